"""Whatever kind of network a user brings is explained alike and left as it was, or refused in one line."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.counterfactual import explain
from cfx.counterfactual.metrics import attribute_change, cout
from tests.counterfactual.toys import ClassGaussian, Linear, Quadratic, assert_same, class_means, cohort, tensors
from tests.models.kinds import exported, loaded, state

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]
MEANS = class_means((6, 6))
TOYS = cohort(MEANS, 5)


class Rough(nn.Module):
    """The linear classifier with dropout that evaluation mode stops, on images brought to [0, 1] where they are."""

    def __init__(self, classifier=None):
        super().__init__()
        self.drop, self.linear = nn.Dropout(0.5), classifier or Linear((6, 6))

    def forward(self, x):
        x.add_(1).div_(2)
        return self.linear(self.drop(2 * x - 1))


def explained(classifier, x=None, **more):
    x = TOYS.x if x is None else x
    return explain(x, classifier, ClassGaussian(MEANS), batch_size=2, oracle=Quadratic(MEANS), **more)


@pytest.fixture(scope="module")
def expected():
    return explained(Linear((6, 6)))


KINDS = {
    "in place": lambda: Rough(),
    "scripted": lambda: torch.jit.script(Rough()),
    "from a file": lambda: loaded(torch.jit.script(Rough())),
    "frozen": lambda: torch.jit.freeze(torch.jit.script(Rough().eval())),
    "exported": lambda: exported(Rough()),
    "compiled": lambda: torch.compile(Rough(), backend="eager"),
    "parallel": lambda: nn.DataParallel(Rough()),
    "squeezed": lambda: lambda x: Linear((6, 6))(x)[:, None].squeeze(),
    "function": lambda: Linear((6, 6)).forward,
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_classifier_is_explained_alike(kind, expected):
    classifier = KINDS[kind]()
    before, x = state(classifier), TOYS.x.clone()
    result = explained(classifier, x)
    assert torch.equal(x, TOYS.x)
    assert torch.equal(result.x, TOYS.x)
    assert_same(tensors(result), tensors(expected))
    assert state(classifier) == before


def test_an_oracle_that_works_in_place_changes_no_image(expected):
    oracle = Rough(Quadratic(MEANS))
    result = explain(TOYS, Linear((6, 6)), ClassGaussian(MEANS), batch_size=2, oracle=oracle)
    assert torch.equal(result.x, TOYS.x)
    assert_same(tensors(result), tensors(expected))
    assert state(oracle) == ([True] * 3, [])


def test_metrics_hand_over_copies_as_well(expected):
    before = expected.x_cf.clone()
    torch.testing.assert_close(cout(expected, Rough()), cout(expected, Linear((6, 6))))
    found, plain = (attribute_change(expected, {"sex": f}) for f in (Rough(), Linear((6, 6))))
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(expected.x_cf, before)


@pytest.mark.parametrize("error", [RuntimeError("out of order"), KeyboardInterrupt()])
def test_a_run_that_ends_early_leaves_the_classifier_as_it_was(error):
    classifier = Rough()
    before, asked = state(classifier), []

    def hook(module, inputs):
        asked.append(module.training)
        if len(asked) == 4:
            raise error

    classifier.register_forward_pre_hook(hook)
    with pytest.raises(InputError if isinstance(error, RuntimeError) else KeyboardInterrupt):
        explained(classifier)
    assert asked == [False] * 4
    assert state(classifier) == before


class Checked(Linear):
    def forward(self, x):
        raise AssertionError(f"expected 96 pixels a side, got {x.shape[-1]}")


class Random(Linear):
    """Dropout that evaluation mode does not stop."""

    def forward(self, x):
        return super().forward(nn.functional.dropout(x, 0.3))


def traced_in_training():
    return torch.jit.trace(Rough(), TOYS.x.clone(), check_trace=False)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (
            lambda: Checked((6, 6)),
            r"^classifier: failed on images of shape \(1, 1, 6, 6\): expected 96 pixels a side, got 6$",
        ),
        (
            lambda: Random((6, 6)),
            "^classifier: expected the same answer whenever an image is shown, got two that differ",
        ),
        (traced_in_training, "^classifier: expected the same answer whenever an image is shown, got two that differ"),
    ],
)
def test_what_fails_or_draws_at_random_is_refused_in_one_line(classifier, message):
    with pytest.raises(InputError, match=message):
        explained(classifier())


def test_inside_inference_mode_there_is_one_clear_line(expected):
    with torch.inference_mode():
        x = cohort(MEANS, 5).x
        with pytest.raises(InputError, match=r"^classifier: no gradient can be had .*; leave inference_mode$"):
            explained(Linear((6, 6)), x)
    assert_same(tensors(explained(Linear((6, 6)), x)), tensors(expected))

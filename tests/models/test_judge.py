"""One convention for every classifier, gradients that are right, and a classifier left as it was found."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models.judge import Judge, margin_of
from cfx.models.wrappers import Finding, Near
from tests.models import kinds
from tests.models.kinds import KINDS, plain, state

OLD = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
W = torch.tensor([[0.5, -1.0, 2.0, 0.1], [1.5, 0.3, -0.7, 0.2], [-0.4, 0.9, 0.6, -1.2]])


class Affine(nn.Module):
    """Logits W x + b of 2 x 2 images, in the shape asked for."""

    def __init__(self, weight, shape=(-1,), bias=0.1):
        super().__init__()
        self.weight, self.shape, self.bias = nn.Parameter(weight), shape, bias

    def forward(self, x):
        return (x.flatten(1) @ self.weight.T + self.bias).reshape(len(x), *self.shape)


def images(n=6, seed=0):
    return torch.rand(n, 1, 2, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("target", [0, 1])
def test_one_logit_a_column_of_one_and_two_columns_agree(target):
    x, y = images(), torch.full((6,), target)
    one = Judge(Affine(W[:1], ()))
    column = Judge(Affine(W[:1]))
    two = Judge(nn.Sequential(Affine(W[:1]), nn.Linear(1, 2, bias=False)))
    two.classifier[1].weight.data = torch.tensor([[0.0], [1.0]])
    logit = x.flatten(1) @ W[0] + 0.1
    expected = logit if target == 1 else -logit
    for judge in (one, column, two):
        torch.testing.assert_close(judge.logits(x), torch.stack([torch.zeros(6), logit], 1))
        torch.testing.assert_close(judge.margin(x, y), expected)
        torch.testing.assert_close(judge.probabilities(x, batch=4)[:, 1], logit.sigmoid())
        torch.testing.assert_close(judge.gradient(x, y), (2 * target - 1) * W[0].view(1, 1, 2, 2).expand_as(x))


def test_margin_and_gradient_of_three_classes():
    x, y = images(), torch.tensor([0, 1, 2, 0, 1, 2])
    judge = Judge(Affine(W))
    logits = x.flatten(1) @ W.T + 0.1
    rival = torch.stack([row.masked_fill(torch.arange(3) == t, -9).argmax() for row, t in zip(logits, y, strict=True)])
    expected = logits.gather(1, y[:, None])[:, 0] - logits.gather(1, rival[:, None])[:, 0]
    torch.testing.assert_close(judge.margin(x, y), expected)
    torch.testing.assert_close(judge.gradient(x, y), (W[y] - W[rival]).view(6, 1, 2, 2))
    assert torch.equal(margin_of(logits, logits.argmax(1)) > 0, torch.ones(6, dtype=torch.bool))


def test_a_gradient_is_had_where_gradients_are_off_and_leaves_none_behind():
    judge, x = Judge(Affine(W)), images()
    with torch.no_grad(), judge.at_rest():
        g = judge.gradient(x, torch.zeros(6, dtype=torch.long))
    assert not g.requires_grad
    assert not x.requires_grad
    assert judge.classifier.weight.grad is None


@pytest.mark.parametrize(
    ("classifier", "message"),
    [
        (nn.Linear(9, 2), r"scan: failed on images of shape \(6, 1, 2, 2\): "),
        (nn.Identity(), r"scan: expected logits of shape \(6, k\), got \(6, 1, 2, 2\)"),
        (nn.Flatten(0), r"scan: expected logits of shape \(6, k\), got \(24,\)"),
        (nn.LSTM(2, 2), r"scan: failed on images of shape \(6, 1, 2, 2\): LSTM: Expected input to be 2D or 3D"),
        (lambda x: {"logits": x}, r"scan: expected logits of shape \(6, k\), got \(6, 1, 2, 2\)"),
        (lambda x: {"a": x, "b": x}, r"scan: expected a tensor under logits, out or sample, .*keys \['a', 'b'\]"),
    ],
)
def test_what_is_no_classifier_is_refused_by_name(classifier, message):
    if not isinstance(classifier, nn.Module):
        wrapped = nn.Identity()
        wrapped.forward = classifier
        classifier = wrapped
    with pytest.raises(InputError, match=message):
        Judge(classifier, "scan").logits(images())


def test_no_gradient_is_refused():
    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.zeros(2))

        def forward(self, x):
            return self.bias.expand(len(x), 2)

    y = torch.zeros(6, dtype=torch.long)
    with pytest.raises(InputError, match="classifier: expected logits that depend on the image, got none that do"):
        Judge(Constant()).gradient(images(), y)
    detached = Affine(W)
    detached.register_forward_hook(lambda module, inputs, out: out.detach())
    with pytest.raises(InputError, match="classifier: expected logits with a gradient to the image, got detached ones"):
        Judge(detached).gradient(images(), y)


class Mean(nn.Module):
    """A regressor: the mean pixel."""

    def forward(self, x):
        return x.flatten(1).mean(1)


def test_the_side_an_edit_came_from_measures_how_far_it_went():
    values = torch.linspace(-1, 1, 9)
    x, u = values.view(9, 1, 1, 1).expand(9, 1, 4, 4), (values - 0.2) / 0.1
    judge, one = Judge(Near(Mean(), 0.2, 0.1)), torch.ones(9, dtype=torch.long)
    for source, side in ((0, u), (2, -u)):
        torch.testing.assert_close(judge.margin(x, one, source * one), 4 * (1 + side))
        sign = 1 - source
        torch.testing.assert_close(judge.gradient(x, one, source * one), torch.full_like(x, sign * 4 / 0.1 / 16))
    # out of the tolerance, either way: nothing lies beyond, so the side is all there is
    for target, source in ((0, 1), (0, 2), (2, 1), (2, 0)):
        there = judge.margin(x, target * one, source * one)
        torch.testing.assert_close(there, judge.margin(x, target * one))
        assert (there.diff() * (target - 1) > 0).all()
    # without order a source says nothing
    plain = Judge(Affine(W))
    y, some = torch.tensor([0, 1, 2]), images(3)
    torch.testing.assert_close(plain.margin(some, y, (y + 1) % 3), plain.margin(some, y))


@OLD
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # of the compiler
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_classifier_has_the_same_margins_and_gradients_and_is_left_as_it_was(kind):
    network, x, y = KINDS[kind](plain()), kinds.images(), torch.tensor([0, 1, 1, 0, 1, 0])
    judge, before = Judge(network), state(network)
    reference = plain().eval()
    leaf = x.clone().requires_grad_(True)
    margin = margin_of(reference(leaf), y)
    (g,) = torch.autograd.grad(margin.sum(), leaf)
    torch.testing.assert_close(judge.margins(x, y, batch=4), margin.detach())
    with judge.at_rest(), torch.no_grad():
        torch.testing.assert_close(judge.margin(x, y), margin.detach())
        torch.testing.assert_close(judge.gradient(x, y), g, atol=1e-5, rtol=1e-4)
        judge.check(x[:1], judge.logits(x)[:1])
    assert state(network) == before


def test_a_lone_image_of_a_network_that_squeezes_is_one_row():
    x, y = images(1), torch.tensor([1])
    for weight in (W[:1], W):
        full, bare = Judge(Affine(weight)), Judge(lambda v, weight=weight: (v.flatten(1) @ weight.T + 0.1).squeeze())
        assert torch.equal(bare.logits(x), full.logits(x))
        assert torch.equal(bare.gradient(x, y), full.gradient(x, y))
        # the last batch holds one image
        assert torch.equal(bare.answers(images(), batch=5), full.answers(images(), batch=5))


def test_a_classifier_that_works_in_place_changes_nothing_of_ours():
    x, y = images(), torch.tensor([0, 1, 2, 0, 1, 2])
    before = x.clone()
    judge, inside = Judge(Affine(W)), Affine(W)
    rough = Judge(lambda v: inside(v.sub_(0.3).div_(0.7)))
    moved = (x - 0.3) / 0.7
    torch.testing.assert_close(rough.logits(x), judge.logits(moved))
    torch.testing.assert_close(rough.answers(x), judge.answers(moved))
    torch.testing.assert_close(rough.margin(x, y), judge.margin(moved, y))
    torch.testing.assert_close(rough.gradient(x, y), judge.gradient(moved, y) / 0.7)
    torch.testing.assert_close(rough.log_gradient(x, y), judge.log_gradient(moved, y) / 0.7)
    assert torch.equal(x, before)


def test_a_slope_is_the_gradient_of_any_score():
    x = images()
    found = Judge(Affine(W)).slope(x, lambda v: v[:, 2] - v[:, 0])
    torch.testing.assert_close(found, (W[2] - W[0]).view(1, 1, 2, 2).expand_as(x))


def test_inside_inference_mode_a_gradient_is_refused_and_images_made_there_are_welcome():
    judge, y = Judge(Affine(W)), torch.zeros(6, dtype=torch.long)
    expected = judge.gradient(images(), y)
    with torch.inference_mode():
        x = images()
        with pytest.raises(InputError, match=r"classifier: no gradient .* torch.inference_mode\(\); leave inference"):
            judge.gradient(x, y)
    assert x.is_inference()
    assert torch.equal(judge.gradient(x, y), expected)


def test_two_answers_to_one_image_are_refused():
    inside = Affine(W)
    judge = Judge(lambda x: inside(nn.functional.dropout(x, 0.3)), "scan")
    x = images(1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        logits = judge.logits(x)
        with pytest.raises(InputError, match="scan: expected the same answer whenever an image is shown, got two that"):
            judge.check(x, logits)
    steady = Judge(inside)
    steady.check(x, steady.logits(x))


def test_rounding_beside_other_images_is_no_second_answer():
    """What is settled by asking the very same again is not refused, however coarse the arithmetic is."""
    judge, x = Judge(Affine(W)), images(1)
    judge.check(x, judge.logits(x) + 0.01)


@pytest.mark.gpu
def test_images_and_classifier_may_be_on_different_devices():
    x, y = images(), torch.zeros(6, dtype=torch.long)
    here, there = Judge(Affine(W)), Judge(Affine(W).cuda())
    for ask in ("margin", "margins", "gradient", "log_gradient"):
        found = getattr(there, ask)(x, y)
        assert found.device == x.device
        torch.testing.assert_close(found, getattr(here, ask)(x, y), atol=1e-4, rtol=1e-4)


MANY = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def test_labels_of_several_findings_want_one_to_be_chosen():
    three = Affine(W)
    with pytest.raises(InputError, match=r"^classifier: .* reference.y has labels of 3 findings .* Finding"):
        Judge(three).check_labels(images(1), MANY, "reference")
    for classifier in (Finding(three, 1), Near(Affine(W[:1]), 0.0, 1.0), Affine(W[:2]), Affine(W[:1])):
        Judge(classifier).check_labels(images(1), MANY, "x")
    for y in (torch.eye(3), torch.tensor([0, 1, 2]), None):  # one class an image, as columns or numbers
        Judge(three).check_labels(images(1), y, "x")


def test_the_labels_a_classifier_is_about():
    y = torch.tensor([0, 1, 1])
    assert torch.equal(Judge(Affine(W)).labels(y), y)
    assert torch.equal(Judge(Finding(Affine(W), 1)).labels(MANY), torch.tensor([1, 0, 1]))
    for classifier, unclear in ((Affine(W), MANY), (Finding(Affine(W), 3), MANY), (Near(Affine(W), 0.0, 1.0), y)):
        assert Judge(classifier).labels(unclear) is None
    assert Judge(Affine(W)).labels(None) is None


def test_whose_names_and_labels_are_its_classes():
    y, plain, finding, near = torch.tensor([0, 1, 1]), Affine(W), Finding(Affine(W), 1), Near(Affine(W), 0.0, 1.0)
    networks, labels = (plain, finding, near), (y, MANY, None)
    said = {network: [Judge(network).is_about(some) for some in labels] for network in networks}
    assert said == {plain: [True, False, True], finding: [True, False, False], near: [False] * 3}


class Normalised(nn.Module):
    """Batch normalisation by what it is shown, whatever the mode; one is enough to differ from two."""

    def forward(self, x):
        return Affine(W)(nn.functional.batch_norm(x, None, None, training=True))


BATCH_NORM = nn.Sequential(nn.BatchNorm2d(1), Affine(W)).train()
DEPENDENT = {
    "functional": Normalised(),
    "hidden in a function": lambda x: BATCH_NORM(x),
    "mean of the batch": lambda x: Affine(W)(x - x.mean()),
    "rank in the batch": lambda x: Affine(W)(x) + torch.arange(len(x)).flip(0)[:, None],
}


@pytest.mark.parametrize("kind", DEPENDENT)
def test_an_answer_that_depends_on_the_images_beside_it_is_refused(kind):
    judge, x = Judge(DEPENDENT[kind], "oracle"), images(8)
    for known in (None, judge.logits(x)):
        with pytest.raises(InputError, match=r"^oracle: .* depends on the images beside it; is there batch norm"):
            judge.check_company(x, known)


def test_answers_at_random_are_refused_also_where_the_first_image_hides_it():
    blank = images(8) * (torch.arange(8) > 0).view(8, 1, 1, 1)
    judge = Judge(lambda x: Affine(W)(nn.functional.dropout(x, 0.5)))
    with pytest.raises(InputError, match=r"^classifier: expected the same answer .* got two that differ"):
        judge.check_company(blank)


def test_answers_to_each_image_by_itself_pass():
    at_rest = nn.Sequential(nn.BatchNorm2d(1), nn.InstanceNorm2d(1), nn.Dropout(0.5), Affine(W)).eval()
    for classifier in (Affine(W), at_rest, lambda x: Affine(W)(x - x.mean((1, 2, 3), keepdim=True))):
        for n in (1, 2, 3, 8):
            Judge(classifier).check_company(images(n))

"""A network of other pixels and answers gives, adapted, what it gives by hand; contradictions are refused."""

from inspect import unwrap
from pathlib import Path

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.core.resize import resized
from cfx.models import Output, Pixels, adapt
from cfx.models.judge import Judge, margin_of
from cfx.models.running import at_rest, device_of, in_batches
from cfx.models.wrappers import Finding, Near
from tests.models.kinds import KINDS, images, plain, state

OLD = pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


class Seen(nn.Module):
    """Returns, flattened, the pixels it was shown."""

    def forward(self, x):
        return x.flatten(1)


def shown(x, **pixels):
    return adapt(Seen(), pixels=Pixels(**pixels))(x)


@pytest.mark.parametrize("low_high", [(0, 1), (0, 255), (-1, 1), (-1024, 3071), (-3.5, 0.25)])
def test_the_range_is_the_network_s(low_high):
    low, high = low_high
    x = torch.tensor([-1.0, 0.0, 1.0]).reshape(1, 1, 3, 1)
    torch.testing.assert_close(shown(x, range=low_high), torch.tensor([[low, (low + high) / 2, high]]).float())


def test_cfx_s_own_pixels_are_not_touched():
    x = images()
    assert torch.equal(shown(x), x.flatten(1))


@pytest.mark.parametrize("space", [(6, 6), (6, 4, 8)])
def test_gray_images_become_standardised_colour_ones_of_another_size(space):
    x = torch.rand(2, 1, *space) * 2 - 1
    by_hand = resized(((x + 1) / 2).repeat(1, 3, *(1,) * len(space)), 12)
    mean, std = (torch.tensor(IMAGENET[k]).reshape(3, *(1,) * len(space)) for k in ("mean", "std"))
    found = shown(x, range=(0, 1), channels=3, size=12, **IMAGENET)
    torch.testing.assert_close(found, ((by_hand - mean) / std).flatten(1))


def test_one_mean_serves_all_channels():
    x = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(shown(x, mean=0.5, std=2), ((x - 0.5) / 2).flatten(1))


@pytest.mark.parametrize(
    ("pixels", "channels", "message"),
    [
        (
            {"mean": (0.1, 0.2, 0.3)},
            1,
            "pixels.mean: expected one number for each of 1 channels, got 3; pixels.channel",
        ),
        ({"std": (1.0, 2.0)}, 3, "pixels.std: expected one number for each of 3 channels, got 2"),
        ({"mean": (0.1, 0.2, 0.3), "channels": 1}, 1, "pixels.mean: .* got 3 and channels: 1"),
        ({"mean": (0.5,), "channels": 3}, 1, "pixels.mean: .* got 1 and channels: 3"),
        ({"channels": 1}, 3, "pixels.channels: expected images of 1 or 1 channels, got 3"),
        ({"range": (1, 0)}, 1, r"pixels.range: expected \(low, high\) with low < high"),
        ({"range": (0, 0)}, 1, r"pixels.range: expected \(low, high\) with low < high"),
        ({"std": 0.0}, 1, "pixels.std: expected positive numbers, got 0"),
        ({"std": (1.0, 1.0, -1.0)}, 3, "pixels.std: expected positive numbers"),
        ({"size": 0}, 1, "pixels.size: expected positive numbers, got 0"),
        ({"size": (8, 8, 8)}, 1, r"size: expected 2 positive numbers for images of \(6, 6\)"),
    ],
)
def test_pixels_that_contradict_themselves_or_the_images_are_refused(pixels, channels, message):
    with pytest.raises(InputError, match=message):
        shown(torch.zeros(2, channels, 6, 6), **pixels)


LOGITS = torch.tensor([[0.0], [3.0], [-4.0], [11.0], [-30.0]])


def saying(out):
    """A network that gives these numbers, moved by the image."""
    return lambda x: out.to(x.dtype) + 0 * x.flatten(1).sum(1, keepdim=True)


def blank(n=5):
    return torch.zeros(n, 1, 2, 2)


@pytest.mark.parametrize("kind", ["binary", "logits"])
def test_a_sigmoid_is_turned_back(kind):
    adapted = adapt(saying(LOGITS.sigmoid()), output=Output(kind=kind, activation="sigmoid"))
    torch.testing.assert_close(adapted(blank()), LOGITS, atol=2e-2, rtol=1e-4)
    torch.testing.assert_close(Judge(adapted).probabilities(blank())[:, 1:], LOGITS.sigmoid())


def test_a_softmax_is_turned_back_to_what_has_its_probabilities_and_margins():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * 6
    judge = Judge(adapt(saying(logits.softmax(1)), output=Output(activation="softmax")))
    torch.testing.assert_close(judge.probabilities(blank()), logits.softmax(1))
    target = torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(judge.margins(blank(), target), margin_of(logits, target), atol=1e-2, rtol=1e-3)


class Ends(nn.Module):
    """One affine number an image, or two, before an activation."""

    def __init__(self, activation, scale=1.0):
        super().__init__()
        self.activation, self.scale = activation, scale

    def forward(self, x):
        z = self.scale * x.flatten(1).sum(1, keepdim=True)
        return z.sigmoid() if self.activation == "sigmoid" else torch.cat([-z, z], 1).softmax(1)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
@pytest.mark.parametrize("scale", [-70.0, -12.0, 0.1, 12.0])
def test_the_gradient_lives_wherever_a_probability_is_not_lost(activation, scale):
    x = torch.full((1, 1, 1, 1), 1.0)
    judge = Judge(adapt(Ends(activation, scale), output=Output(activation=activation)))
    g = judge.gradient(x, torch.tensor([1]))
    assert g.isfinite().all()
    if abs(scale) < 15 or (activation, scale) == ("sigmoid", -70.0):
        factor = 1 if activation == "sigmoid" else 2
        torch.testing.assert_close(g.item(), factor * scale, atol=0, rtol=2e-2)


@pytest.mark.parametrize("p", [0.0, 1.0])
def test_a_saturated_probability_has_a_finite_logit_and_a_finite_slope(p):
    x = torch.full((1, 1, 1, 1), p, requires_grad=True)
    (logit,) = adapt(Seen(), output=Output(activation="sigmoid"))(x)
    logit.backward()
    assert logit.abs() > 15
    assert (logit > 0) == (p == 1.0)
    assert 0 < x.grad < 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_but_does_not_break(dtype):
    p = torch.tensor([[0.25, 0.75], [1.0, 0.0]], dtype=dtype)
    out = adapt(lambda x: p, output=Output(activation="softmax"))(blank(2))
    assert out.isfinite().all()
    torch.testing.assert_close(out[:1].softmax(1), torch.tensor([[0.25, 0.75]]))


NAMES = tuple(f"finding-{k}" for k in range(14))


@pytest.mark.parametrize("finding", [3, "finding-3"])
@pytest.mark.parametrize("activation", ["none", "sigmoid"])
def test_one_finding_of_fourteen(finding, activation):
    logits = torch.randn(5, 14, generator=torch.Generator().manual_seed(1))
    out = logits.sigmoid() if activation == "sigmoid" else logits
    output = Output(kind="multilabel", activation=activation, finding=finding, classes=NAMES)
    adapted = adapt(saying(out), output=output)
    assert isinstance(adapted, Finding)
    torch.testing.assert_close(adapted(blank()), logits[:, 3:4])


def test_a_value_is_near_its_goal():
    output = Output(kind="regression", goal=70, tolerance=5)
    adapted = adapt(saying(torch.tensor([[60.0], [66.0], [70.0], [74.0], [80.0]])), output=output)
    assert isinstance(adapted, Near)
    assert Judge(adapted).ordered
    assert adapted(blank()).argmax(1).tolist() == [0, 1, 1, 1, 2]


@pytest.mark.parametrize(
    ("output", "columns", "message"),
    [
        ({"kind": "binary"}, 14, "output.kind: binary expects one column an image, got 14"),
        ({"kind": "binary", "activation": "softmax"}, 1, "softmax does not go with kind: binary; two columns behind"),
        ({"kind": "multilabel"}, 14, "output.finding: .*one finding at a time; name one by its number"),
        ({"kind": "multilabel", "classes": NAMES}, 14, "name one among 0 finding-0, 1 finding-1, .*13 finding-13"),
        ({"kind": "multilabel", "classes": NAMES, "finding": "Edema"}, 14, "expected one among .*got 'Edema'"),
        ({"kind": "multilabel", "finding": "Edema"}, 14, "expected one by its number, from 0, got 'Edema'"),
        ({"kind": "multilabel", "classes": NAMES, "finding": 14}, 14, "output.finding: expected one .*got 14"),
        ({"kind": "multilabel", "finding": -1}, 14, "output.finding: expected one .*got -1"),
        ({"kind": "multilabel", "finding": 14}, 14, r"output.finding: expected one of .*, 0 \.\. 13, got 14"),
        (
            {"kind": "multilabel", "finding": 1, "activation": "softmax"},
            14,
            "softmax does not go with kind: multilabel",
        ),
        ({"kind": "multilabel", "finding": 1, "classes": ("a", "b")}, 3, "output.classes: expected 3 names .*got 2"),
        ({"classes": ("a", "b", "c")}, 2, "output.classes: expected 2 names for 2 columns, got 3"),
        ({"kind": "binary", "classes": ("a",)}, 1, "output.classes: expected 2 names for 1 columns, got 1"),
        ({"kind": "regression"}, 1, "output.goal: kind: regression .*expected a number"),
        ({"kind": "regression", "goal": 1.0}, 1, "output.tolerance: kind: regression .*expected a number"),
        ({"kind": "regression", "goal": 1.0, "tolerance": 0.0}, 1, "tolerance: expected a positive number, got 0"),
        ({"kind": "regression", "goal": 1.0, "tolerance": 1.0}, 2, "regression expects one column an image, got 2"),
        ({"kind": "regression", "goal": 1, "tolerance": 1, "activation": "sigmoid"}, 1, "sigmoid does not go with"),
        ({"finding": 0}, 2, "output.finding: only with kind: multilabel, got kind: logits"),
        ({"goal": 0.0}, 2, "output.goal: only with kind: regression, got kind: logits"),
        ({"activation": "sigmoid"}, 14, "14 columns, each behind a sigmoid, are independent findings"),
        ({"activation": "softmax"}, 1, "a softmax over one column is always 1"),
    ],
)
def test_answers_that_contradict_the_settings_are_refused(output, columns, message):
    with pytest.raises(InputError, match=message):
        adapt(saying(torch.full((5, columns), 1 / columns)), output=Output(**output))(blank())


@pytest.mark.parametrize(
    ("activation", "out", "message"),
    [
        ("sigmoid", [[1.2], [-3.0]], r"expected probabilities of a sigmoid, in \[0, 1\], got values from -3 to 1.2"),
        ("softmax", [[0.2, 1.8], [0.5, 0.5]], "expected probabilities of a softmax, .*got values from 0.2 to 1.8"),
        ("softmax", [[0.2, 0.3], [0.5, 0.5]], "rows of a softmax, which sum to 1, got a sum of 0.5"),
    ],
)
def test_what_is_no_probability_is_not_turned_back(activation, out, message):
    with pytest.raises(InputError, match=message):
        adapt(saying(torch.tensor(out)), output=Output(activation=activation))(blank(2))


@OLD
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")  # of the compiler
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("output", [{}, {"kind": "multilabel", "finding": 1}])
def test_every_kind_of_network_is_held_asked_at_rest_and_left_as_it_was(kind, output):
    network, x = KINDS[kind](plain()), images(5)
    adapted = adapt(network, pixels=Pixels(range=(-2, 2)), output=Output(**output))
    before = state(adapted)
    with torch.no_grad():
        expected = plain().eval()(2 * x)
    torch.testing.assert_close(in_batches(adapted, x, batch=2), expected[:, 1:] if output else expected)
    with at_rest(adapted):
        assert not any(part for parts in state(adapted) for part in parts)
        assert Judge(adapted).gradient(x, torch.zeros(5, dtype=torch.long)).abs().sum() > 0
    assert state(adapted) == before
    assert device_of(adapted) == (device_of(network) if isinstance(network, nn.Module) else None)


@pytest.mark.parametrize("wrap", [lambda v: {"logits": v}, lambda v: (v, v * 0)])
def test_wrapped_answers_are_unwrapped(wrap):
    torch.testing.assert_close(adapt(lambda x: wrap(LOGITS))(blank()), LOGITS)
    near = Near(lambda x: wrap(LOGITS), 0.0, 1.0)
    torch.testing.assert_close(near(blank())[:, 2:], 4 * LOGITS)


@pytest.mark.parametrize(
    ("given", "same"),
    [
        ({"pixels": {"range": (0, 1)}}, {"pixels": Pixels(range=(0, 1))}),
        ({"pixels": {"range": [0, 255], "size": 4}}, {"pixels": Pixels(range=(0, 255), size=4)}),
        (
            {"output": {"kind": "binary", "activation": "sigmoid"}},
            {"output": Output(kind="binary", activation="sigmoid")},
        ),
        ({"pixels": {}, "output": {}}, {}),
    ],
)
def test_settings_may_be_mappings_as_in_a_configuration(given, same):
    x = torch.rand(3, 1, 6, 6) * 2 - 1

    def network(v):
        return v.mean((1, 2, 3))[:, None].clamp(0.1, 0.9)

    torch.testing.assert_close(adapt(network, **given)(x), adapt(network, **same)(x), rtol=0, atol=0)


@pytest.mark.parametrize(
    ("network", "settings", "message"),
    [
        (print, {"pixels": {"rnage": (0, 1)}}, "pixels: unknown key `rnage`; did you mean `range`"),
        (print, {"output": {"kind": "binray"}}, "kind: unknown choice 'binray'; did you mean 'binary'"),
        (
            print,
            {"output": "binary"},
            r"output: expected Output\(...\) or a mapping of .*\(kind, .*got 'binary'",
        ),
        (print, {"pixels": (0, 1)}, r"pixels: expected Pixels\(...\) or a mapping"),
        (print, {"output": Pixels()}, r"output: expected Output\(...\) or a mapping"),
        ("script.pt", {}, r"network: expected a network, got the path 'script.pt'; cfx.models.open_network\("),
        (Path("a/b"), {}, r"network: expected a network, got the path 'a/b'; cfx.models.open_network\("),
    ],
)
def test_other_settings_and_networks_are_one_line(network, settings, message):
    with pytest.raises(InputError, match=message):
        unwrap(adapt)(network, **settings)  # before the type checks of the test run


@pytest.mark.parametrize(("finding", "classes"), [(14, ()), ("c", ("a", "b", "c"))])
def test_a_finding_that_the_network_lacks_is_named_by_its_key(finding, classes):
    output = Output(kind="multilabel", finding=finding, classes=classes)
    with pytest.raises(
        InputError, match=rf"output.finding: expected one of the network's findings, 0 .. 1, got '?{finding}"
    ):
        adapt(lambda x: x.flatten(1)[:, :2], output=output)(torch.zeros(1, 1, 2, 2))

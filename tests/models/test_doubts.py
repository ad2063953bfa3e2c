"""What is probably wrong is said, by its own evidence; networks and images that are right stay silent."""

import re
import warnings
from functools import partial

import pytest
import torch
import yaml
from torch import nn

from cfx.core.errors import CfxWarning
from cfx.models import Output, build
from cfx.models.doubts import (
    Doubts,
    of_findings,
    of_images,
    of_pixels,
    of_range,
)
from cfx.models.doubts import of_outputs as said
from cfx.models.goal import goals
from cfx.models.judge import Judge
from cfx.models.wrappers import Finding, Near
from cfx.runtime.config import check
from tests.counterfactual.toys import ClassGaussian, Linear, Quadratic, class_means, cohort

MEANS = class_means((8, 8))
TOYS = cohort(MEANS, 8)


def network(k, seed=0):
    torch.manual_seed(seed)
    return build("cnn", spatial_dims=2, in_channels=1, out_channels=k, channels=(8, 16))


def plain(k):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, k), nn.Softmax(1))


def of_outputs(classifier, x=TOYS.x):
    judge = Judge(classifier)
    return said(judge, x, judge.answers(x))


def handmade(x):
    return 1 / (1 + torch.exp(-Linear((8, 8))(x)))


PROBABILITIES = {
    "sigmoid": (lambda: nn.Sequential(network(1), nn.Sigmoid()), "activation='sigmoid'"),
    "squeezed": (lambda: lambda x: network(1)(x).sigmoid().squeeze(), "leave out the sigmoid"),
    "by hand": (lambda: handmade, "leave out the sigmoid"),
    "both": (lambda: lambda x: torch.stack([1 - handmade(x), handmade(x)], 1), "sums to 1"),
    "softmax": (lambda: nn.Sequential(network(3), nn.Softmax(1)), "every row sums to 1"),
    "scripted": (
        lambda: torch.jit.script(plain(14)),
        "every row sums to 1",
    ),
    "half": (lambda: lambda x: network(14)(x).softmax(1).half(), "every row sums to 1"),
    "findings": (lambda: nn.Sequential(network(14), nn.Sigmoid()), "of independent findings"),
    "one finding": (lambda: Finding(nn.Sequential(network(14), nn.Sigmoid()), 3), "leave out the sigmoid"),
}


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("kind", PROBABILITIES)
def test_probabilities_are_told_from_one_image_and_from_many(kind, n):
    make, words = PROBABILITIES[kind]
    message = of_outputs(make(), TOYS.x[:n])
    assert message is not None
    assert "expected logits, got values in [0" in message
    assert words in message


def test_what_a_probability_is_read_as_is_named():
    message = of_outputs(lambda x: Linear((8, 8))(x - 0.02).sigmoid(), TOYS.x[:1])
    p = float(torch.sigmoid(Linear((8, 8))(TOYS.x[:1] - 0.02)))
    assert f"{p:.3g} is p = {torch.tensor(p).sigmoid():.3f}" in message


class Narrow(Linear):
    """Logits that lie in [0, 1] for real images, but not for others."""

    def forward(self, x):
        return 0.5 + 0.3 * super().forward(x).tanh() + 0.2 * super().forward(x) / 4


LOGITS = {
    "binary": lambda: Linear((8, 8)),
    "distances": lambda: Quadratic(MEANS),
    "narrow": lambda: Narrow((8, 8)),
    "log-probabilities": lambda: nn.Sequential(network(3), nn.LogSoftmax(1)),
    "near": lambda: Near(handmade, 0.5, 0.2),
    "constant": lambda: lambda x: 0 * Linear((8, 8))(x) + 0.3,
    "bounded": lambda: lambda x: Linear((8, 8))(x).tanh(),
}


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("kind", LOGITS)
def test_logits_are_no_probabilities(kind, n):
    assert of_outputs(LOGITS[kind](), TOYS.x[:n]) is None


@pytest.mark.parametrize("k", [1, 2, 14])
def test_untrained_networks_raise_no_alarm_even_where_all_their_logits_are_in_0_to_1(k):
    suspected = 0
    for seed in range(30):
        judge = Judge(network(k, seed))
        logits = judge.answers(TOYS.x)
        suspected += bool((logits >= 0).all() and (logits <= 1).all())
        assert said(judge, TOYS.x[:2], logits[:2]) is None
        assert of_findings(logits) is None
    assert suspected > 2 or k == 14


def test_findings_are_told_by_images_without_any():
    n = torch.arange(12)
    logits = torch.full((12, 14), -3.0)
    logits[n[6:], n[6:] % 5] = 2.0
    assert "wrap the one that is asked for in Finding(classifier, k)" in of_findings(logits)
    assert of_findings(logits[:3]) is None  # too few
    assert of_findings(logits[:6]) is None  # distances and log-probabilities are never above 0
    assert of_findings(logits - logits.mean(1, keepdim=True)) is None  # as cross-entropy leaves them
    assert of_findings(Judge(Near(Linear((8, 8)), 0.5, 0.2)).answers(TOYS.x)) is None


def test_images_in_0_to_1_are_told_by_the_generator_alone():
    generator, bright = ClassGaussian(MEANS), TOYS.x * 0.2 + 0.6
    assert "pass 2 * x - 1" in of_range((TOYS.x + 1) / 2, generator)
    assert of_range(TOYS.x, generator) is None
    assert of_range(bright, ClassGaussian(MEANS * 0.2 + 0.6)) is None  # such are its images
    assert of_range((TOYS.x + 1) / 2, None) is None


@pytest.mark.parametrize("below", [-0.004, -0.03])
def test_unit_images_that_interpolation_took_below_0_are_seen(below):
    x = (TOYS.x + 1) / 2
    x[:, :, 0, 0] = below
    assert "hardly any below 0" in of_range(x, ClassGaussian(MEANS))
    bright = TOYS.x * 0.2 + 0.6
    bright[:, :, 0, 0] = below
    assert of_range(bright, ClassGaussian(MEANS * 0.2 + 0.6)) is None  # such are its images


def test_blank_images_are_counted():
    x = TOYS.x.clone()
    x[2:4] = -1
    assert "a single value in 2 of 8 rows" in of_images(x)
    assert of_images(TOYS.x) is None


def looked(doubts, x, batch):
    logits = doubts.judge.answers(x)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for at in torch.arange(len(x)).split(batch):
            doubts.look(x[at], logits[at], at)
    assert all(issubclass(w.category, CfxWarning) for w in seen)
    return [str(w.message) for w in seen]


@pytest.mark.parametrize("batch", [1, 3, 40])
def test_each_doubt_is_said_once_whatever_the_batches(batch):
    toys = cohort(MEANS, 40)
    messages = looked(Doubts(Judge(handmade), ClassGaussian(MEANS), 40), (toys.x + 1) / 2, batch)
    assert len(messages) == 2
    assert "none below 0" in messages[0]
    assert "look like probabilities" in messages[1]
    wrong = partial(looked, x=toys.x, batch=batch)
    (message,) = wrong(Doubts(Judge(lambda x: -Linear((8, 8))(x)), ClassGaussian(MEANS), 40, toys.y))
    assert "exchanged" in message
    assert wrong(Doubts(Judge(Linear((8, 8))), ClassGaussian(MEANS), 40, toys.y)) == []
    assert wrong(Doubts(Judge(Linear((8, 8))), ClassGaussian(MEANS), 40, toys.y + 5)) == []


@pytest.mark.parametrize("depth", ["typical", "boundary"])
def test_the_reference_judges_the_classifier(depth):
    reference = cohort(MEANS, 40)

    class Weak(Linear):
        """Right for 12 of 20 images of a class."""

        def forward(self, x):
            return super().forward(x) * (1 - 2.0 * (torch.arange(len(x)) % 5 > 2))

    with pytest.warns(CfxWarning, match=r"recognises the classes of reference, got balanced accuracy 0\.[56]"):
        goals(Judge(Weak((8, 8))), 2, depth, reference)
    goals(Judge(Linear((8, 8))), 2, depth, reference)


@pytest.mark.parametrize(
    ("last", "k", "settings"),
    [
        (nn.Sigmoid(), 1, {"kind": "binary", "activation": "sigmoid"}),
        (nn.Softmax(1), 3, {"activation": "softmax"}),
        (nn.Sigmoid(), 3, {"kind": "multilabel", "activation": "sigmoid", "finding": "k"}),
    ],
)
@pytest.mark.parametrize("name", ["classifier", "oracle"])
def test_the_key_of_a_file_is_said_beside_the_call(last, k, settings, name):
    """What stands there is right as it is, for whoever has a file and no Python."""
    judge = Judge(nn.Sequential(nn.Flatten(), nn.Linear(16, k), last), name)
    x = torch.rand(8, 1, 4, 4) * 2 - 1
    with judge.at_rest():
        text = str(said(judge, x, judge.logits(x).detach()))
    there = re.search(r"; in a file, beside the path of (\w+): output: (\{.*\})$", text)
    assert (there[1], yaml.safe_load(there[2])) == (name, settings)
    assert check(Output, settings) == Output(**settings)
    assert re.search(r"adapt\(network, output=Output\(.*\)\)|Finding\(network, k\)", text)


class Unit(nn.Module):
    """A classifier of images in [0, high]: class 1 if they are bright on the whole."""

    def __init__(self, high, at=0.5):
        super().__init__()
        self.high, self.at = high, at

    def forward(self, v):
        bright = v.flatten(1).mean(1) / self.high - self.at
        return torch.stack([-bright, bright], 1) * 20


@pytest.mark.parametrize(("high", "n"), [(1, 40), (255, 40), (1, 64)])
def test_a_range_that_was_forgotten_is_found_though_the_classifier_beats_chance(high, n):
    y = torch.arange(n) % 2
    brightness = torch.linspace(0.05, 0.45, n) + 0.5 * y  # of 1; as [-1, 1] a third of class 1 seems dark
    x = (2 * brightness - 1).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()
    judge = Judge(Unit(high))
    own = judge.answers(x)
    assert of_pixels(judge, x, y, judge.answers((x + 1) * high / 2)) is None  # right as it is: nothing is asked
    message = of_pixels(judge, x, y, own)
    assert f"when they are shown in [0, {high}]" in message
    assert f"pixels: {{range: [0, {high}]}}" in message


@pytest.mark.parametrize("share", [0.5, 0.65, 0.8, 1.0])
def test_a_classifier_of_minus_1_to_1_is_not_suspected(share):
    """Wrong as often as may be: other pixels do not make it right."""
    for seed in range(20):
        g = torch.Generator().manual_seed(seed)
        x = torch.rand((40, 1, 4, 4), generator=g) * 2 - 1
        truth = (x.mean((1, 2, 3)) > 0).long()
        y = torch.where(torch.rand(40, generator=g) < share, truth, 1 - truth)
        judge = Judge(lambda v: torch.stack([-v.mean((1, 2, 3)), v.mean((1, 2, 3))], 1) * 9)
        assert of_pixels(judge, x, y, judge.answers(x)) is None

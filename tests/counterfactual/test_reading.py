"""The read part: exact for classifiers whose reason is known, in two and three dimensions."""

import pytest
import torch
from torch import nn

from cfx.core.broadcast import each
from cfx.counterfactual import explain
from cfx.counterfactual.reading import IDLE, SHARE, Reading, attribution, parts_of
from cfx.models.judge import Judge
from tests.counterfactual.toys import ClassGaussian, Linear, Projection, class_means, cohort


class Seen(nn.Module):
    """One binary logit: a weighted sum of the voxels, bent."""

    def __init__(self, weight, bend=lambda v: v):
        super().__init__()
        self.register_buffer("weight", weight)
        self.bend = bend

    def forward(self, x):
        return self.bend((self.weight * x).flatten(1).sum(1))


def divided(classifier, x, x_cf, **more):
    target = torch.ones(len(x), dtype=torch.long)
    judge = Judge(classifier)
    seen = []

    def margin(rows, images):
        seen.append(len(images))
        return judge.margin(images, target[rows])

    before, after = judge.margin(x, target), judge.margin(x_cf, target)
    asked = more.pop("asked", after)
    parts = parts_of(x, x_cf, before, after, margin, lambda r, v: judge.gradient(v, target[r]), asked, **more)
    return parts, sum(seen) / len(x)


def images(space, n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    x = 0.2 * torch.randn((n, 1, *space), generator=g)
    return x, x + 0.05 + torch.rand((n, 1, *space), generator=g)


SPACES = [(12, 12), (6, 6, 6)]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize(
    "bend", [lambda v: v, lambda v: 4 * torch.tanh(v), lambda v: v + 0.3 * v**2], ids=["a", "b", "c"]
)
def test_a_patch_is_found_exactly(space, width, bend):
    """Only what the classifier sees is read; it alone brings the change, the rest nothing."""
    weight = torch.zeros(1, *space)
    weight[(0, *[slice(2, 2 + width)] * len(space))] = 1.0 / width ** len(space)
    x, x_cf = images(space)
    parts, shown = divided(Seen(weight, bend), x, x_cf)
    assert not (parts.read & (weight == 0)).any()
    assert (parts.alone >= SHARE).all()
    assert (parts.rest <= 0.1).all()
    assert (parts.error < 0.01).all()
    assert all(
        Reading.of(s, r) == Reading.CARRIED for s, r in zip(parts.share.tolist(), parts.rest.tolist(), strict=True)
    )
    assert shown <= 6


@pytest.mark.parametrize("space", SPACES)
def test_what_is_read_all_over_is_whole(space):
    x, x_cf = images(space)
    parts, _ = divided(Seen(torch.ones(1, *space)), x, x_cf)
    assert (parts.share > 0.8).all()
    assert all(
        Reading.of(s, r) == Reading.WHOLE for s, r in zip(parts.share.tolist(), parts.rest.tolist(), strict=True)
    )


def test_either_of_two_parts_suffices():
    """A logit that saturates on the stronger half: what comes first is read, and the rest brings it all as well."""
    weight = torch.zeros(1, 12, 12)
    weight[:, :3, :3], weight[:, 8:11, 8:11] = 1.0, 0.02

    class Either(nn.Module):
        def forward(self, x):
            strong, weak = (x[:, 0, :3, :3].mean((1, 2)), x[:, 0, 8:11, 8:11].mean((1, 2)))
            return 4 * torch.tanh(60 * torch.maximum(strong, 0.5 * weak)) - 2

    x = torch.zeros(4, 1, 12, 12)
    parts, _ = divided(Either(), x, x + 0.8)
    assert (parts.rest > 0.9).all()
    assert all(
        Reading.of(s, r) == Reading.REDUNDANT for s, r in zip(parts.share.tolist(), parts.rest.tolist(), strict=True)
    )


def test_attribution_is_complete():
    """It sums to the change of margin, for a quadratic exactly: the midpoint rule integrates its gradient."""
    x, x_cf = images((6, 6))
    weight = torch.linspace(-1, 1, 36).view(1, 6, 6)
    judge, target = Judge(Seen(weight, lambda v: v + 0.1 * v**2)), torch.ones(6, dtype=torch.long)
    a = attribution(torch.arange(6), x, x_cf - x, lambda r, v: judge.gradient(v, target[r]))
    change = judge.margin(x_cf, target) - judge.margin(x, target)
    torch.testing.assert_close(a.flatten(1).sum(1), change, rtol=1e-4, atol=1e-4)


def test_more_is_read_where_most_of_the_attribution_do_not_suffice():
    """A threshold near the end of the way: all of it is needed, though each voxel counts alike."""
    x = torch.zeros(3, 1, 8, 8)
    parts, _ = divided(Seen(torch.full((1, 8, 8), 1 / 64), lambda v: 4 * torch.sigmoid(200 * (v - 0.97))), x, x + 1)
    assert (parts.alone >= SHARE).all()
    assert (parts.share > 0.95).all()


def test_the_read_part_reaches_what_is_wanted():
    x, x_cf = images((12, 12))
    classifier, target = Seen(torch.ones(1, 12, 12)), torch.ones(6, dtype=torch.long)
    judge = Judge(classifier)
    before, after = judge.margin(x, target), judge.margin(x_cf, target)
    wanted = before + 0.97 * (after - before)
    parts, _ = divided(classifier, x, x_cf, asked=wanted, reach=True)
    assert (judge.margin(torch.where(parts.read, x_cf, x), target) >= wanted - 1e-5).all()


def test_edits_that_move_nothing_have_no_reading():
    x, x_cf = images((8, 8))
    still = torch.where(each(torch.arange(6) < 2, x), x, x_cf)
    parts, _ = divided(Seen(-torch.ones(1, 8, 8)), x, still)
    assert not parts.read.any()
    assert parts.share.isnan().all()
    little, _ = divided(Seen(torch.ones(1, 8, 8)), x, x_cf, asked=torch.tensor([1e4, 20, 1e4, 20, 20, 20.0]))
    assert little.share.isnan().tolist() == [True, False, True, False, False, False]
    assert Reading.of(float("nan"), float("nan")) == Reading.NONE == ""


def test_every_result_says_what_is_read():
    """The toy's blob is what both know: read whole, and the figures are those of the images that are returned."""
    means = class_means((8, 8))
    data = cohort(means, 8)
    result = explain(data, Linear((8, 8)), ClassGaussian(means), 1 - data.y)
    assert set(result.reading) == {"whole"}
    judge = Judge(Linear((8, 8)))
    before, after = (judge.margin(v, result.target) for v in (result.x, result.x_cf))
    rest = torch.where(result.read, result.x, result.x_cf)
    for image, share in ((result.x_read, result.read_alone), (rest, result.rest_alone)):
        torch.testing.assert_close(
            (judge.margin(image, result.target) - before) / (after - before), share, rtol=1e-4, atol=1e-4
        )
    assert (result.read_error < 1e-3).all()


class Corner(Projection):
    """Reads the blob's left half only."""

    def forward(self, x):
        half = torch.zeros_like(self.weight)
        half[..., : x.shape[-1] // 2] = 1
        return 16 * ((x - self.middle) * self.weight * half).flatten(1).sum(1)


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_only_the_read_part_on_request(space):
    means = class_means(space)
    data = cohort(means, 6)
    whole, read = (
        explain(data, Corner(space), ClassGaussian(means), 1 - data.y, part=part) for part in ("whole", "read")
    )
    right = (..., slice(space[-1] // 2, None))
    assert (whole.edited[right] & ~whole.read[right]).any()
    assert set(whole.reading) == {"carried"}
    assert not read.edited[right].any()
    assert torch.equal(read.edited, read.read)
    assert read.reached.all()
    assert (read.margin_after <= whole.margin_after + 1e-5).all()
    assert (read.read_share < 2 / 3).all()
    assert (whole.rest_alone <= IDLE).all()


def test_a_miss_returns_only_what_is_read():
    """An impossible margin: the right half of the attempt, which the classifier does not see, is taken back."""

    class Short(Corner):
        def forward(self, x):
            return torch.tanh(super().forward(x))  # never as sure as it is asked to be

    means = class_means((8, 8))
    data = cohort(means, 6)
    result = explain(data, Short((8, 8)), ClassGaussian(means), 1 - data.y)
    assert set(result.verdicts) == {"budget"}
    assert not result.edited[..., 4:].any()
    assert result.edited.any()
    assert torch.equal(result.x_read, result.x_cf)
    assert (result.margin_after > -1).all()
    # the attempt itself, where it is asked for: the same row by row, and more of it
    attempt = explain(data, Short((8, 8)), ClassGaussian(means), 1 - data.y, part="attempt")
    assert set(attempt.verdicts) == {"budget"}
    assert attempt.edited[..., 4:].any()
    assert torch.equal(attempt.x_read, result.x_cf)

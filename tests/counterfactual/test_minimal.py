"""The replay under guidance: nothing at strength 0, more with more strength; and what pasting keeps."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfx.core.abduction import abduct
from cfx.counterfactual.judge import Judge
from cfx.counterfactual.minimal import Guidance, Minimal, paste
from tests.counterfactual.toys import ClassGaussian, Counted, Linear, class_means, cohort

SPACES = [(8, 8), (8, 8, 8)]
ROW = torch.tensor([5, 0, 12, 3])


def guided(space, conditional, x=None, method=None):
    """Four images, their maps and their guidance towards the other class."""
    means = class_means(space)
    generator, method = Counted(ClassGaussian(means, conditional)), method or Minimal()
    x = cohort(means, 4).x if x is None else x
    source = torch.arange(4) % 2 if conditional else None
    maps = abduct(generator, x, method.times(generator), seed=3, row=ROW, label=source)
    label = None if source is None else 1 - source
    judge = Judge(Linear(space))
    return x, maps, Guidance(method, generator, judge, 3, ROW, source, 1 - torch.arange(4) % 2, label)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
def test_strength_zero_returns_the_image_again_and_again(space, conditional):
    x, maps, guide = guided(space, conditional)
    original, rows, zero = x, torch.arange(4), torch.zeros(4)
    for _ in range(10):
        edited = guide.edit(maps, rows, zero)
        assert (edited - original).abs().max() <= 1e-6
        assert torch.equal(paste(x, edited, guide.method.least), x)
        x, maps, guide = guided(space, conditional, edited)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
def test_more_strength_more_margin(space, conditional):
    _, maps, guide = guided(space, conditional)
    rows = torch.arange(4)
    margins = [
        guide.judge.margin(guide.edit(maps, rows, torch.full((4,), w)), guide.target) for w in (0.0, 0.1, 0.3, 0.6, 1.0)
    ]
    steps = torch.stack(margins).diff(dim=0)
    assert (steps > 0).all()


@pytest.mark.parametrize("conditional", [True, False])
def test_rows_are_edited_independently(conditional):
    _, maps, guide = guided((8, 8), conditional)
    w = torch.tensor([0.2, 0.9, 0.4, 0.7])
    together = guide.edit(maps, torch.arange(4), w)
    for rows in ([2], [3, 0], [1, 2, 3]):
        torch.testing.assert_close(guide.edit(maps, torch.tensor(rows), w[rows]), together[rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("steps", [3, 7])
def test_a_replay_costs_what_it_says(conditional, steps):
    method = Minimal(steps=steps)
    _, maps, guide = guided((8, 8), conditional, method=method)
    assert guide.generator.rows == 4 * steps  # the abduction
    guide.generator.rows = 0
    guide.edit(maps, torch.tensor([3, 1]), torch.ones(2))
    assert guide.generator.rows == 2 * method.nfe(conditional)


def test_the_grid_begins_at_the_start_asked_for():
    generator = ClassGaussian(class_means((8, 8)))
    times = Minimal(start=0.5, steps=5).times(generator)
    assert (times[0], times[-1], len(times)) == (500, 0, 6)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(SPACES), st.floats(0.01, 0.2), st.floats(0, 0.5))
def test_paste_keeps_large_changes_and_undoes_small_ones(seed, space, least, size):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 2, *space, generator=g) * 2 - 1
    edited = x + size * (torch.rand(x.shape, generator=g) * 2 - 1) * torch.rand(2, 1, *space, generator=g).round()
    pasted = paste(x, edited, least)
    change = edited.clamp(-1, 1) - x
    weight = _local_size(change) / least - 1
    small, large = (weight < -1e-4).expand_as(x), (weight > 1 + 1e-4).expand_as(x)
    assert torch.equal(pasted[small], x[small])
    torch.testing.assert_close(pasted[large], edited.clamp(-1, 1)[large], atol=1e-6, rtol=0)
    torch.testing.assert_close(pasted, x + weight.clamp(0, 1) * change, atol=1e-5, rtol=0)
    assert pasted.abs().max() <= 1 + 1e-6


def _local_size(change):
    """Mean over the 3-sided cube around every voxel, as far as it lies inside, of the largest channel's change."""
    size = change.abs().amax(1, keepdim=True)
    total, count = torch.zeros_like(size), torch.zeros_like(size)
    padded = torch.nn.functional.pad(size, [1, 1] * (size.ndim - 2))
    inside = torch.nn.functional.pad(torch.ones_like(size), [1, 1] * (size.ndim - 2))
    for offset in torch.cartesian_prod(*[torch.arange(3)] * (size.ndim - 2)).tolist():
        where = (slice(None), slice(None), *[slice(o, o + n) for o, n in zip(offset, size.shape[2:], strict=True)])
        total, count = total + padded[where], count + inside[where]
    return total / count


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 0.3), st.floats(1e-6, 1e-2))
def test_paste_is_continuous(seed, size, nudge):
    """Lipschitz with constant 19: 1 for the change; its weight moves only where at most 9 x 2 `least` has changed."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(1, 1, 8, 8, generator=g) - 0.5
    edited = x + size * torch.rand(x.shape, generator=g)
    other = edited + nudge * (torch.rand(x.shape, generator=g) * 2 - 1)
    gap = (paste(x, edited, 0.05) - paste(x, other, 0.05)).abs().max()
    assert gap <= 19 * nudge + 1e-6

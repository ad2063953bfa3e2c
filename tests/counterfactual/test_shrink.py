"""What pasting keeps and what shrinking leaves."""

from dataclasses import replace

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cfx.counterfactual.method import Meter, Problem
from cfx.counterfactual.search import Found
from cfx.counterfactual.shrink import GRID, paste, pasted, settled, shrink
from cfx.models.goal import Goal
from cfx.models.judge import Judge
from tests.counterfactual.toys import Linear, class_means, cohort

SPACES = [(8, 8), (8, 8, 8)]


def problem(n=6):
    """Images of both classes that have to reach a margin of 1 for the other."""
    means = class_means((8, 8))
    data, judge = cohort(means, n), Judge(Linear((8, 8)))
    target = 1 - data.y
    return Problem(
        x=data.x, source=data.y, target=target, goal=Goal(torch.ones(n)), before=judge.margin(data.x, target),
        row=torch.arange(n), seed=0, judge=judge, generator=None, meter=Meter(n),
    )  # fmt: skip


def whole(p):
    """An edit that goes twice as far as the class means are apart, plus faint changes everywhere."""
    step = class_means((8, 8)).diff(dim=0)
    sign = (2.0 * p.target - 1).view(-1, 1, 1, 1)
    return (p.x + 2 * sign * step + 0.04 * sign).clamp(-1, 1)


def test_shrinking_leaves_the_least_scale_that_convinces_and_the_next_one_fails():
    p = problem()
    edited = whole(p)
    image = paste(p.x, edited, 0.03)
    done = p.judge.margin(image, p.target) >= p.margin
    assert done.all()
    out, smaller = shrink(p, edited, image, done, 0.03)
    assert (p.judge.margin(out, p.target) >= p.margin).all()
    assert (smaller < p.margin).all()
    # the classifier is linear: one grid step of an edit that was scaled by s costs at most 1 / (s GRID) of its gain
    gain = p.judge.margin(out, p.target) - p.before
    assert ((p.judge.margin(out, p.target) - smaller) <= gain / 2).all()
    assert GRID == 16
    assert ((out - p.x).abs() <= (image - p.x).abs() + 1e-6).all()


def test_shrinking_leaves_failures_alone():
    p = problem()
    image = p.x + 0.0
    done = torch.zeros(6, dtype=torch.bool)
    out, smaller = shrink(p, whole(p), image, done, 0.03)
    assert torch.equal(out, image)
    assert smaller.isnan().all()
    assert int(p.meter.classifier.sum()) == 0


def test_shrinking_does_not_depend_on_the_batch():
    p = problem()
    edited = whole(p)
    image = paste(p.x, edited, 0.03)
    done = torch.ones(6, dtype=torch.bool)
    together, _ = shrink(p, edited, image, done, 0.03)
    for i in range(6):
        done = torch.arange(6) == i
        alone, _ = shrink(problem(), edited, image, done, 0.03)
        torch.testing.assert_close(alone[i], together[i], atol=1e-6, rtol=0)


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


def test_what_may_not_change_is_not_pasted():
    p = problem()
    allowed = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5
    rows = torch.tensor([4, 1])
    found = pasted(replace(p, allowed=allowed), rows, whole(p)[rows], 0.03)
    assert torch.equal(found, torch.where(allowed[rows], paste(p.x[rows], whole(p)[rows], 0.03), p.x[rows]))


def test_a_whole_change_is_settled_as_it_is_and_the_least_one_shrunk():
    p, zero = problem(), torch.zeros(6)
    found = Found(whole(p), zero, zero + 1, zero.long(), zero - 2, zero == 0)
    image, smaller = settled(replace(p, goal=Goal(p.margin, whole=True)), found, 0.03)
    assert torch.equal(image, paste(p.x, whole(p), 0.03))
    assert torch.equal(smaller, zero - 2 + p.margin)  # what the search tried and rejected
    least, failed = settled(p, found, 0.03)
    again = shrink(p, found.image, image, zero == 0, 0.03)
    assert torch.equal(least, again[0])
    assert torch.equal(failed, again[1])

"""The reverse diffusion the baselines share: its grid, its steps, its noise, and which voxels are strongest."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.core.solvers import ancestral_mean, ancestral_std
from cfx.counterfactual.baselines.respaced import Reverse, dilate, ladder, strongest
from tests.counterfactual.baselines.problems import part, problem

COSINE = Schedule.from_diffusers({"beta_schedule": "squaredcos_cap_v2"})


@pytest.mark.parametrize(("schedule", "t"), [(None, 298), (COSINE, 560)])
def test_starts_at_a_noise_level_whatever_the_schedule(schedule, t):
    p = problem()
    if schedule is not None:
        p = replace(p, generator=replace(p.generator.generator, schedule=schedule))
    reverse = Reverse(p, start_sigma=0.774, steps=60)
    assert reverse.times[0] == t
    assert float(reverse.schedule.sigma(t, p.x)) == pytest.approx(0.774, abs=2e-3)
    assert len(reverse) == 60
    assert reverse.times[-1] == 0
    assert max(a - b for a, b in pairwise(reverse.times)) - min(a - b for a, b in pairwise(reverse.times)) <= 1


def test_the_same_level_has_about_the_same_guidance_on_every_schedule():
    """What a step number does not: of 200 steps the last 60 have a quarter of it on a cosine schedule."""
    p = problem()
    budget = []
    for schedule in (p.generator.schedule, COSINE):
        reverse = Reverse(replace(p, generator=replace(p.generator.generator, schedule=schedule)), 0.774, 60)
        alpha = [float(schedule.alpha(t, p.x)) for t in reverse.times]
        budget.append(sum(v / a for v, a in zip(reverse._variance, alpha, strict=False)))
    assert budget[1] == pytest.approx(budget[0], rel=0.15)


@pytest.mark.parametrize(("start_sigma", "steps"), [(0.774, 0), (0.0, 10), (1.1, 10), (0.1, 60)])
def test_refuses_grids_that_do_not_exist(start_sigma, steps):
    with pytest.raises(InputError, match=r"expected"):
        Reverse(problem(), start_sigma, steps)


def test_noise_is_the_row_s_own_and_new_at_every_draw():
    p = problem()
    whole, alone = Reverse(p, 0.8, 6), Reverse(part(p, [2]), 0.8, 6)
    a, b = whole.noised(p.everyone, 0), whole.noised(p.everyone, 0)
    assert (a - b).abs().amax((1, 2, 3)).min() > 0.1
    assert torch.equal(alone.noised(torch.tensor([0]), 0), a[2:3])
    assert torch.equal(whole.noised(p.everyone, 6), p.x)


def test_a_step_is_ddpm_moved_against_the_gradient_by_the_variance():
    p = problem()
    rows, z, g = p.everyone, torch.randn(p.x.shape, generator=torch.Generator().manual_seed(0)), p.x
    schedule = p.diffusion.schedule
    for i in range(6):
        one, other = Reverse(p, 0.8, 6), Reverse(p, 0.8, 6)
        t, s = one.times[i : i + 2]
        # the last step has no variance of its own: it takes that of the step before
        variance = ancestral_std(schedule, t, s) ** 2 if s else ancestral_std(schedule, *one.times[-3:-1]) ** 2
        free = one.step(rows, p.x, z, i)
        torch.testing.assert_close(other.step(rows, p.x, z, i, g), free - variance * g, atol=1e-6, rtol=0)
        away = (free - ancestral_mean(schedule, p.x, z, t, s)) / max(ancestral_std(schedule, t, s), 1e-3)
        assert float(away.std()) == pytest.approx(1.0 if s else 0.0, abs=0.15)


def test_a_ladder_stops_at_the_first_scale_that_convinces():
    p = problem(margin=1.0)
    tried = []

    def attempt(rows, scale):
        tried.append((rows.tolist(), scale))
        good = torch.tensor([[scale > row] for row in rows.tolist()])[..., None, None]
        return torch.where(good, p.x[1 - rows % 2], p.x[rows])

    found = ladder(p, (1.0, 2.0, 2.5), attempt)
    assert tried == [([0, 1, 2, 3], 1.0), ([1, 2, 3], 2.0), ([2, 3], 2.5)]
    assert found.strength.tolist() == [1.0, 2.0, 2.5, 0.0]
    assert torch.equal(found.image[3], p.x[3])
    assert p.meter.classifier.tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize("space", [(7, 7), (7, 7, 7)])
def test_dilation_is_a_cube(space):
    point = torch.zeros(1, 1, *space)
    point[(0, 0, *[3] * len(space))] = 2.0
    wide = dilate(point, 5)
    assert int((wide > 0).sum()) == 5 ** len(space)
    assert float(wide.max()) == 2.0


def test_strongest_takes_its_share_of_every_row():
    ramp = torch.arange(100.0).view(1, 1, 10, 10)
    values = torch.cat([ramp, 99 - ramp, 0 * ramp, ramp * torch.nan, (ramp - 97).clamp_min(0)])
    found = strongest(values, 0.1).flatten(1)
    assert found.sum(1).tolist() == [10, 10, 0, 100, 2]
    assert found[0, -10:].all()
    assert found[1, :10].all()
    assert strongest(ramp, 0.0001).sum() == 1

"""Multi-start reconstruction: the published budget, exact errors for normal pixels, and starts that stand alone."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.solvers import ddim_step, sample
from cfx.ood import build_detector
from cfx.ood.walks import draws, start_grid
from tests.ood.detectors import SCHEDULE, GaussianGenerator, images
from tests.ood.reconstruction.known import ask, learn, maps


def test_the_starts_are_those_of_the_published_program():
    starts = build_detector("multi-start").starts
    assert [steps for _, steps in starts] == [2, 18, 34, 50, 66, 82, 98]
    betas = torch.linspace(0.0015**0.5, 0.0195**0.5, 1000, dtype=torch.float64).square()
    sigma = (1 - (1 - betas).cumprod(0)).sqrt()
    assert [level for level, _ in starts] == pytest.approx(sigma[[10, 170, 330, 490, 650, 810, 970]].tolist())


@pytest.mark.parametrize(("skip", "cost"), [(1, 5049), (2, 2550), (4, 1250), (16, 350), (32, 200), (64, 68)])
def test_the_budgets_are_the_published_ones(skip, cost):
    # the paper's count for skip 1 is 5151, of 101 time steps; its program today has 100
    assert sum(steps for _, steps in build_detector("multi-start", skip=skip).starts) == cost


def test_the_errors_are_those_of_ddim_alone_from_each_start():
    detector, x = build_detector("multi-start", steps=8, skip=3), images(3)
    found, where = detector.errors(ask(x, features=None), seed=3)
    for k, (sigma, steps) in enumerate(detector.starts):
        grid = start_grid(SCHEDULE, sigma, steps)
        x_t = SCHEDULE.noised(x, grid[0], draws(x, [k], 3, 0x35A7)[0].expand_as(x))
        back = sample(ddim_step, GaussianGenerator(), x_t, grid).clamp(-1, 1)
        torch.testing.assert_close(found[:, k], (back - x).square().flatten(1).mean(1))
        torch.testing.assert_close(where[:, k : k + 1], (back - x).square())


def test_a_start_does_not_know_of_the_others():
    x = images(3)
    few, many = (build_detector("multi-start", steps=9, skip=skip) for skip in (4, 2))
    assert [s for s, _ in few.starts] == [s for s, _ in many.starts][::2]
    alone = few._back(ask(x), x, [1], 0)
    torch.testing.assert_close(alone[0], few._back(ask(x), x, [0, 1], 0)[1])


def test_the_map_averages_to_the_score_but_for_a_constant():
    rows = learn(24, features=None)
    found = build_detector("multi-start", steps=8, skip=3).fit(rows)(ask(images(6, seed=5), features=None))
    gap = found.map.flatten(1).mean(1).double() - found.score
    torch.testing.assert_close(gap, gap[:1].expand(6), rtol=1e-4, atol=1e-5)


def test_features_add_a_score_of_their_own():
    detector = build_detector("multi-start", steps=8, skip=3)
    found = detector.fit(learn(24))(ask(images(6, seed=5), features=maps))
    assert set(found.statistics) == {"squared_error", "feature_distance"}
    torch.testing.assert_close(found.score, sum(found.statistics.values()))
    plain = detector.fit(learn(24, features=None))(ask(images(6, seed=5), features=None))
    torch.testing.assert_close(plain.score, found.statistics["squared_error"])


def test_the_fitted_images_have_mean_zero():
    rows = learn(24)
    found = build_detector("multi-start", steps=8, skip=3).fit(rows)(ask(rows.cohort.x))
    assert abs(float(found.score.mean())) < 1e-5


@pytest.mark.parametrize("skip", [0, 10, 11])
def test_a_skip_must_leave_a_start(skip):
    with pytest.raises(InputError, match="skip: expected 1 to 9"):
        build_detector("multi-start", steps=10, skip=skip)

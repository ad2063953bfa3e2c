"""Curvature of the path: what bends less or more than the images it was fitted to."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.core.scores import auroc
from cfx.data import BrainConfig, load_cohort
from cfx.data.shifts import Shift, apply
from cfx.models import load
from cfx.ood import build_detector, fit
from cfx.ood.reconstruction.trajectory import directions, even_levels
from cfx.ood.reconstruction.trajectory_curvature import bends
from tests.ood.detectors import SCHEDULE, GaussianGenerator, images
from tests.ood.reconstruction.known import ask, learn


def test_it_is_the_squared_change_of_direction():
    x = images(3)
    eps = directions(ask(x), [SCHEDULE.time_of(level) for level in even_levels(5)])
    torch.testing.assert_close(bends(ask(x), 5), (eps[:, 1:] - eps[:, :-1]).square()[:, :, 0])


@pytest.mark.parametrize("deviation", [0.05, 0.6])
def test_paths_that_are_too_straight_or_too_bent_are_unusual(deviation):
    fitted = build_detector("trajectory-curvature").fit(learn(60))
    own, other = fitted(ask(images(20, seed=5))), fitted(ask(images(20, seed=6, deviation=deviation)))
    assert float(other.score.min()) > float(own.score.max())


def test_the_map_shows_where_and_averages_to_the_steps_over_the_fitted_images():
    rows, x = learn(40), images(3)
    fitted = build_detector("trajectory-curvature").fit(rows)
    assert float(fitted(ask(rows.cohort.x)).map.mean()) == pytest.approx(4, rel=1e-4)
    x[:, 0, 2, 3] = 1.0
    assert fitted(ask(x)).map.flatten(1).argmax(1).tolist() == [19] * 3


def test_a_schedule_of_too_few_levels_is_refused():
    coarse = GaussianGenerator()
    coarse.schedule = Schedule(torch.tensor([0.9, 0.1]))
    with pytest.raises(InputError, match="generator: expected a schedule with at least 4 different times"):
        build_detector("trajectory-curvature").fit(learn(generator=coarse))


def test_the_shipped_generator_sees_blur_and_lesions_in_brains(root):
    rows = load_cohort(BrainConfig(n=20, seed=1, start=700_000, size=64, dims=2))
    x = load_cohort(BrainConfig(n=6, seed=1, start=710_000, size=64, dims=2))
    generator = load(root / "checkpoints" / "brain64-diffusion")
    fitted = fit(rows, "trajectory-curvature", generator=generator, calibration=0.2)
    own = fitted.score(x).score
    for shift in (Shift("blur", 1.0), Shift("lesion", 1.0)):
        both = torch.cat([own, fitted.score(apply(shift, x)).score])
        assert float(auroc(both, torch.arange(12) >= 6)) > 0.8

"""Partial diffusion with smooth noise: the published level, and large changes that are drawn over."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.ood import build_detector
from tests.ood.detectors import images
from tests.ood.reconstruction.known import ask, learn


def test_the_level_is_that_of_time_250_of_the_linear_schedule():
    linear = Schedule.from_diffusers({"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02})
    assert linear.time_of(build_detector("simplex").sigma) == 250


def test_the_score_is_the_mean_of_the_map():
    found = build_detector("simplex", steps=6).fit(learn())(ask(images(4)))
    torch.testing.assert_close(found.score, found.map.flatten(1).mean(1))


def test_a_bright_disc_is_drawn_over_and_shown():
    x = images(4)
    x[:, 0, 2:6, 2:6] = 1.0
    found = build_detector("simplex", steps=12).fit(learn())(ask(x))
    assert float(found.map[:, 0, 2:6, 2:6].mean()) > 5 * float(found.map[:, 0, 0].mean())


@pytest.mark.parametrize("sigma", [0.0, 1.0, 1.5])
def test_the_level_is_inside(sigma):
    with pytest.raises(InputError, match=r"sigma: expected a noise level in \(0, 1\)"):
        build_detector("simplex", sigma=sigma)

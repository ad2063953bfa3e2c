"""Norms of the score of normal pixels, which are known."""

import math

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.ood import build_detector
from tests.ood.detectors import SCHEDULE, GaussianGenerator, images
from tests.ood.reconstruction.known import ask, learn


def test_the_levels_are_the_published_ones_for_images_twice_as_wide():
    sigma = build_detector("msma").sigmas
    rho = [s / math.sqrt(1 - s * s) for s in sigma]
    assert rho == pytest.approx([2 * 0.01 ** (1 - k / 9) for k in range(10)])


def test_the_norms_are_those_of_the_known_score():
    # x_t = alpha x without noise; eps = sigma alpha (x - m) / (alpha^2 v + sigma^2)
    detector, x = build_detector("msma", levels=4, lowest=0.2), images(3)
    times = [SCHEDULE.time_of(s) for s in detector.sigmas]
    a = torch.tensor([SCHEDULE.alpha_squared(t) for t in times])
    gain = (a * (1 - a)).sqrt() / (a * 0.04 + 1 - a)
    expected = (gain * x.flatten(1).norm(dim=1)[:, None]).log()
    torch.testing.assert_close(detector.norms(ask(x)), expected.float(), rtol=1e-4, atol=1e-4)


def test_levels_on_one_time_are_asked_once():
    few = GaussianGenerator()
    few.schedule = Schedule(torch.tensor([0.9, 0.5, 0.3, 0.1]))
    batch = ask(images(2), generator=few)
    assert build_detector("msma").norms(batch).shape[1] == int(batch.spent.unet_forward[0]) < 10


@pytest.mark.parametrize("deviation", [0.05, 0.6])
def test_smaller_and_larger_scores_are_unusual(deviation):
    fitted = build_detector("msma", lowest=0.2, levels=4).fit(learn(60))
    own, other = fitted(ask(images(20, seed=5))), fitted(ask(images(20, seed=6, deviation=deviation)))
    assert float(other.score.min()) > float(own.score.max())


def test_a_generator_that_sees_no_noise_anywhere_is_refused():
    class Blind(GaussianGenerator):
        def forward(self, x_t, t, label=None):
            q = super().forward(x_t, t)
            return type(q)(x_t / q.alpha, x_t, q.alpha, q.sigma)

    with pytest.raises(InputError, match="norms of scores that differ between images, got the same for all"):
        build_detector("msma").fit(learn(generator=Blind()))


def test_the_range_of_levels_has_a_width():
    with pytest.raises(InputError, match="lowest, highest: expected 0 < lowest < highest"):
        build_detector("msma", lowest=1.0, highest=1.0)

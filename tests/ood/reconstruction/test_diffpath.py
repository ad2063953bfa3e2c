"""The six statistics of a path, and what they tell."""

import pytest
import torch

from cfx.ood import build_detector
from cfx.ood.reconstruction.trajectory import directions, even_levels
from tests.ood.detectors import SCHEDULE, images
from tests.ood.reconstruction.known import ask, learn


def test_they_are_powers_of_directions_and_of_their_rates():
    x = images(3)
    eps = directions(ask(x), [SCHEDULE.time_of(level) for level in even_levels(6)])
    rate = 6 * (eps[:, 1:] - eps[:, :-1])
    expected = [(v**p).flatten(1).mean(1) for v in (eps, rate) for p in (1, 2, 3)]
    torch.testing.assert_close(build_detector("diffpath", steps=6).statistics(ask(x)), torch.stack(expected, 1))


@pytest.mark.parametrize("change", [lambda x: 0.2 * x, lambda x: 3 * x, lambda x: x + 0.3])
def test_narrow_wide_and_shifted_images_are_unusual(change):
    fitted = build_detector("diffpath").fit(learn(80))
    own, other = fitted(ask(images(20, seed=5))), fitted(ask(change(images(20, seed=6)).clamp(-1, 1)))
    assert float(other.score.min()) > float(own.score.max())

"""The way of an image to noise, for pixels whose flow is known."""

import math

import pytest
import torch

from cfx.ood.reconstruction.trajectory import directions, even_levels
from tests.ood.detectors import SCHEDULE, GaussianGenerator, images
from tests.ood.reconstruction.known import CodeGenerator, ask


def test_the_levels_are_even_times_of_a_cosine():
    assert even_levels(4) == pytest.approx([math.sin(math.pi / 8), math.sin(math.pi / 4), math.sin(3 * math.pi / 8)])


def test_directions_are_those_of_ddim_run_backwards():
    x, g = images(3), GaussianGenerator()
    q = g(x, 1)
    second = g(SCHEDULE.noised(q.mean, 40, q.eps), 40)
    third = g(SCHEDULE.noised(second.mean, 90, second.eps), 90)
    torch.testing.assert_close(directions(ask(x), [40, 90]), torch.stack([q.eps, second.eps, third.eps], 1))


def test_with_many_steps_the_path_is_the_flow_of_normal_pixels():
    # the flow keeps every quantile: x_t = x sqrt(w / v) with w = alpha_t^2 v + sigma_t^2, and eps_t = sigma_t x_t / w
    x, t = images(3), 70
    eps = directions(ask(x), list(range(1, t + 1)))[:, -1]
    a2, v = SCHEDULE.alpha_squared(t), 0.04
    expected = math.sqrt(1 - a2) * x / math.sqrt(v * (a2 * v + 1 - a2))
    torch.testing.assert_close(eps, expected, rtol=0.05, atol=0.02)


def test_codes_have_a_path_of_their_own():
    batch = ask(images(3), generator=CodeGenerator())
    assert directions(batch, [40, 90]).shape == (3, 3, 1, 4, 4)
    assert batch.spent.unet_forward.tolist() == [3] * 3

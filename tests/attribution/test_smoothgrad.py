"""SmoothGrad of a quadratic is its gradient moved by the mean noise, of the size that was asked for."""

import torch

from cfx.attribution import attribute, build_attribution
from tests.attribution.networks import images


def quadratic(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([x.flatten(1).square().sum(1), x.flatten(1).sum(1)], 1)


def test_noise_is_a_share_of_the_range_and_goes_by_the_seed():
    x = images(2)
    made = build_attribution("smoothgrad", copies=100, level=0.1)
    noise = attribute(quadratic, x, 0, method=made).map / 2 - x
    assert 0.8 < float(noise.std() / (0.2 / 10)) < 1.2  # the mean of a hundred draws
    again, other = (attribute(quadratic, x, 0, method=made, seed=s).map / 2 - x for s in (0, 1))
    assert torch.equal(noise, again)
    assert not torch.equal(noise, other)


def test_without_noise_it_is_the_gradient_and_times_change_that_of_the_input():
    x = images(2)
    plain = build_attribution("smoothgrad", copies=2, level=0.0)
    torch.testing.assert_close(attribute(quadratic, x, 0, method=plain).map, 2 * x)
    times = build_attribution("smoothgrad", copies=2, level=0.0, times_change=True)
    torch.testing.assert_close(attribute(quadratic, x, 0, method=times, baseline="black").map, 2 * x * (x + 1))

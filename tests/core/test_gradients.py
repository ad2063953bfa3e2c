"""Averaged gradients: what noise does to them is known for polynomials."""

import pytest
import torch

from cfx.core.gradients import smoothed
from cfx.core.random import normal


@pytest.mark.parametrize("space", [(3, 2), (2, 2, 2)])
def test_the_gradient_of_a_quadratic_is_moved_by_the_mean_noise(space: tuple[int, ...]) -> None:
    x, noise = (normal((*k, 1, *space), seed=1, row=torch.arange(4), stream=len(k)) for k in ((), (5,)))
    found = smoothed(lambda v: 2 * v, x, noise)
    torch.testing.assert_close(found, 2 * (x + noise.mean(1)))


def test_copies_of_an_image_stand_together_and_a_cubic_gains_the_variance() -> None:
    x = torch.linspace(-1, 1, 3).view(3, 1, 1, 1).expand(3, 1, 2, 2)
    noise = 0.5 * normal((4000, 1, 2, 2), seed=2, row=torch.arange(3), stream=0)
    own = torch.tensor([1.0, 10.0, 100.0]).repeat_interleave(4000).view(-1, 1, 1, 1)  # a factor a row
    found = smoothed(lambda v: own * 3 * v**2, x, noise)
    expected = torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1, 1) * 3 * (x**2 + 0.25)
    torch.testing.assert_close(found, expected, rtol=0.12, atol=0)

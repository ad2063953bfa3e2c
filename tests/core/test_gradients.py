"""Averaged gradients: what noise does to them is known for polynomials."""

import pytest
import torch

from cfx.core.gradients import along, refined, smoothed
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


def test_midpoints_of_a_line_are_exact_for_a_quadratic_and_may_be_asked_for_together() -> None:
    x, e = (normal((1, 2, 3), seed=3, row=torch.arange(4), stream=k) for k in (0, 1))
    for at_once in (1, 3):
        torch.testing.assert_close(along(lambda v: 2 * v, x, e, 5, at_once), 2 * x + e)


@pytest.mark.parametrize("at_once", [1, 7])
def test_points_go_where_they_are_needed(at_once: int) -> None:
    knee, asked = 0.123, list[torch.Tensor]()

    def value(rows: torch.Tensor, v: torch.Tensor) -> torch.Tensor:  # a kink at `knee` in the first row alone
        return torch.where(rows == 0, (v - knee).clamp_min(0).flatten(1).sum(1), v.flatten(1).sum(1))

    def both(rows: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        asked.append(rows)
        return value(rows, v), torch.where((rows == 0).view(-1, 1, 1, 1) & (v < knee), 0.0, 1.0)

    x, e = torch.zeros(2, 1, 1, 1), torch.ones(2, 1, 1, 1)
    found = refined(value, both, x, e, 4, torch.full((2,), 1e-4), 200, at_once)
    torch.testing.assert_close(found.flatten(), torch.tensor([1 - knee, 1.0]), atol=1e-3, rtol=0)
    counts = torch.cat(asked).bincount().tolist()
    assert counts[1] == 4
    assert 10 < counts[0] < 60
    refined(value, both, x, e, 4, torch.zeros(2), 8, at_once)  # ends, though nothing is good enough

"""Rendered lung lesions: from a shape of their own near the readers' mean."""

import torch

from cfx.core.random import uniform
from cfx.core.scores import dice
from cfx.data.lidc_rendering import Rows, render

N = 40


def discs(radius: torch.Tensor, size: int = 64) -> torch.Tensor:
    """Masks `(n, 4, size, size)` of discs of these radii in pixels; none where it is 0."""
    at = torch.arange(size) - (size - 1) / 2
    away = (at[:, None].square() + at.square()).sqrt()
    return away < radius[:, :, None, None]


def rows(radius: torch.Tensor, seed: int = 0, spacing: float = 1.0) -> Rows:
    n = len(radius)
    return Rows(discs(radius), torch.arange(n) // 2, 100 + torch.arange(n), spacing, seed)


ALIKE = rows(torch.full((N, 4), 10.0))


def test_images_are_in_range_and_of_the_seed():
    x, hidden = render(ALIKE)
    assert x.shape == hidden.shape == (N, 1, 64, 64)
    assert float(x.abs().max()) <= 1
    assert torch.equal(x, render(ALIKE)[0])
    other = render(rows(torch.full((N, 4), 10.0), seed=1))[0]
    assert float((x - other).abs().mean()) > 0.02


def test_a_row_does_not_see_the_others():
    x, hidden = render(ALIKE)
    some, shape = render(ALIKE[slice(7, 11)])
    assert torch.allclose(some, x[7:11], atol=1e-5)
    assert torch.equal(shape, hidden[7:11])


def test_the_order_of_readers_does_not_show():
    radius = 6 + 6 * uniform((4,), seed=1, row=torch.arange(N), stream=0)
    x = render(rows(radius))[0]
    assert torch.allclose(render(rows(radius[:, torch.tensor([3, 1, 0, 2])]))[0], x, atol=1e-5)


def test_the_hidden_shape_is_near_the_mean_and_another():
    hidden = render(ALIKE)[1][:, 0]
    overlap = dice(hidden, ALIKE.masks[:, 0])
    assert float((overlap < 1).float().mean()) > 0.9  # all readers agree, and yet the image has another shape
    assert 0.93 < float(overlap.mean()) < 0.98
    shift = hidden.flatten(1).sum(1).double().div(torch.pi).sqrt() - 10
    assert 0.2 < float(shift.std()) < 0.6
    assert abs(float(shift.mean())) < 0.2


def test_few_readers_make_a_faint_lesion_and_disagreement_a_soft_one():
    def inside(radius: torch.Tensor) -> float:
        return float(render(rows(radius))[0][:, 0, 28:36, 28:36].mean())

    one = torch.zeros(N, 4)
    one[:, 0] = 10
    assert inside(torch.full((N, 4), 10.0)) > inside(one) + 0.3

    def steepest(radius: torch.Tensor) -> float:
        x = render(rows(radius))[0]
        return float(x[:, 0, 31].diff(dim=1).abs().amax(1).mean())

    apart = torch.tensor([4.0, 8.0, 12.0, 16.0]).expand(N, 4)
    assert steepest(torch.full((N, 4), 10.0)) > 1.3 * steepest(apart)


def test_a_mask_of_one_pixel_and_one_of_the_whole_grid():
    tiny = rows(torch.tensor([[0.8, 0, 0, 0], [100.0, 0, 10, 0]]))
    x, hidden = render(tiny)
    assert torch.isfinite(x).all()
    assert bool(hidden[1].any())

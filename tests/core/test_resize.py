"""Resizing is torch's where torch has it, keeps what a mean must keep, and has a gradient."""

import pytest
import torch
from torch.nn.functional import interpolate

from cfx.core.errors import InputError
from cfx.core.resize import resized


def images(*space):
    return torch.rand(2, 3, *space, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [(7, 5), (16, 20), (33, 64), (8, 40), (1, 1)])
def test_two_axes_are_torch_s_antialiased_ones(size):
    x = images(16, 20)
    theirs = interpolate(x, size=size, mode="bilinear", antialias=True, align_corners=False)
    torch.testing.assert_close(resized(x, size), theirs, atol=1e-9, rtol=0)


def test_three_axes_are_the_same_axis_by_axis():
    x = images(6, 8, 10)
    plane = interpolate(x.flatten(1, 2), size=(5, 12), mode="bilinear", antialias=True, align_corners=False)
    whole = resized(x, (6, 5, 12))
    torch.testing.assert_close(whole, plane.unflatten(1, (3, 6)), atol=1e-9, rtol=0)
    assert resized(x, 4).shape == (2, 3, 4, 4, 4)


@pytest.mark.parametrize("size", [3, 8, 21])
def test_constants_stay_and_the_range_is_kept(size):
    x = images(8, 8)
    torch.testing.assert_close(resized(torch.ones_like(x), size), torch.ones(2, 3, size, size).double())
    assert resized(x, size).amin() >= x.amin()
    assert resized(x, size).amax() <= x.amax()


def test_the_same_size_is_the_same_image():
    x = images(8, 8)
    assert torch.equal(resized(x, 8), x)


def test_the_gradient_is_the_transposed_map():
    x = images(9, 7).requires_grad_(True)
    v = torch.rand(2, 3, 4, 12, dtype=torch.float64)
    (g,) = torch.autograd.grad((resized(x, (4, 12)) * v).sum(), x)
    other = images(9, 7)
    torch.testing.assert_close((g * other).sum(), (v * resized(other, (4, 12))).sum())


@pytest.mark.parametrize("size", [(4,), (4, 4, 4), (0, 4), 0])
def test_other_than_one_positive_number_an_axis_is_refused(size):
    with pytest.raises(InputError, match=r"size: expected 2 positive numbers for images of \(8, 8\)"):
        resized(images(8, 8), size)

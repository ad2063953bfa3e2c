"""Values to [-1, 1] and images to one size: known answers and what is refused."""

import re

import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.data.pixels import full_range, resize, scale, stack


def test_ranges_by_convention():
    assert full_range(np.dtype(np.uint8)) == (0.0, 255.0)
    assert full_range(np.dtype(np.uint16)) == (0.0, 65535.0)
    assert full_range(np.dtype(">u2")) == full_range(np.dtype("<u2"))
    assert full_range(np.dtype(bool)) == (0.0, 1.0)
    assert full_range(np.dtype(np.float32)) is full_range(np.dtype(np.int16)) is None


def test_a_range_is_mapped_linearly():
    x = scale(np.array([[0, 51, 255]], np.uint8), (0.0, 255.0), "x")
    assert x.dtype == torch.float32
    torch.testing.assert_close(x, torch.tensor([[-1.0, -0.6, 1.0]]))
    torch.testing.assert_close(
        scale(np.array([-1000.0, 0.0, 1000.0]), (-1000.0, 1000.0), "x"), torch.tensor([-1.0, 0, 1])
    )


def test_what_lies_outside_the_range_is_refused_and_nan_is_left():
    with pytest.raises(
        InputError, match=re.escape("scan: expected values within value_range (0.0, 10.0), got [-1, 10]")
    ):
        scale(np.array([-1.0, 10.0]), (0.0, 10.0), "scan")
    with pytest.raises(
        InputError, match=re.escape("value_range: expected (low, high) with low < high, got (3.0, 3.0)")
    ):
        scale(np.array([3.0]), (3.0, 3.0), "scan")
    for empty in ((0.0, np.inf), (-np.inf, 0.0), (np.nan, 1.0)):
        with pytest.raises(InputError, match="value_range: expected"):
            scale(np.array([3.0]), empty, "scan")
    assert scale(np.array([np.nan, 0.0]), (0.0, 1.0), "scan").isnan().tolist() == [True, False]


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_shrinking_takes_means_and_growing_keeps_the_range(space):
    x = torch.rand(2, 1, *space, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pool = torch.nn.functional.avg_pool2d if len(space) == 2 else torch.nn.functional.avg_pool3d
    torch.testing.assert_close(resize(x, 4), pool(x, 2))
    grown = resize(x, 12)
    assert grown.shape[2:] == (12,) * len(space)
    assert x.amin() - 1e-6 <= grown.amin()
    assert grown.amax() <= x.amax() + 1e-6
    assert resize(x, 8) is x
    assert resize(x, (4,) * len(space)).equal(resize(x, 4))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match=re.escape("one number would distort images of (4, 6) pixels")):
        resize(torch.zeros(1, 1, 4, 6), 4)
    for size in ((4, 4, 4), (0, 4)):
        with pytest.raises(InputError, match=re.escape(f"2 positive numbers for images of (4, 6) pixels, got {size}")):
            resize(torch.zeros(1, 1, 4, 6), size)


def test_only_images_of_one_shape_are_stacked():
    a, b = torch.zeros(1, 2, 2), torch.ones(1, 2, 2)
    assert stack([a, b], ["a", "b"], "crop them").tolist() == [a.tolist(), b.tolist()]
    with pytest.raises(InputError, match=re.escape("(1, 2, 2) in a, (1, 3, 2) in c; crop them")):
        stack([a, b, torch.zeros(1, 3, 2)], ["a", "b", "c"], "crop them")
    with pytest.raises(InputError, match="expected at least one image, found none"):
        stack([], [], "crop them")

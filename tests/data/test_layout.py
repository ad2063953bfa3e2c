"""What an axis is follows from the shape where it can be only one thing, and is asked for everywhere else."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.data.layout import channels_first, layout_of, move_channels


@pytest.mark.parametrize(
    ("shape", "layout"),
    [
        ((5, 28, 28), "nhw"), ((5, 28, 28, 3), "nhwc"), ((5, 28, 28, 1), "nhwc"), ((5, 1, 28, 28), "nchw"),
        ((5, 28, 28, 28), "ndhw"), ((5, 9, 64, 64), "ndhw"), ((2, 4, 5, 6), "ndhw"), ((5, 28, 28, 28, 1), "ndhwc"),
        ((5, 28, 28, 28, 3), "ndhwc"), ((5, 1, 28, 28, 28), "ncdhw"), ((5, 4, 28, 28, 28), "ncdhw"),
        ((3, 3, 3), "nhw"), ((1, 64, 64, 3), "nhwc"), ((3, 1, 64, 64), "nchw"),
    ],
)  # fmt: skip
def test_a_shape_that_can_be_one_thing(shape, layout):
    assert layout_of(shape, None, "x") == layout


@pytest.mark.parametrize(
    ("shape", "readings"),
    [
        ((4, 3, 32, 32), "nchw .*32x32 with 3 channels.*ndhw .*3x32x32"),
        ((4, 4, 128, 128), "nchw .*ndhw"),
        ((4, 2, 64, 64), "nchw .*ndhw"),
        ((4, 32, 32, 4), "nhwc .*ndhw"),
        ((4, 32, 32, 2), "nhwc .*ndhw"),
        ((4, 3, 32, 3), "nchw .*nhwc"),
        ((4, 1, 32, 1), "nchw .*nhwc"),
        ((4, 3, 16, 16, 3), "ncdhw .*ndhwc"),
        ((4, 16, 16, 16, 16), "ncdhw .*ndhwc"),
    ],
)
def test_a_shape_that_can_be_two_things_is_asked_for(shape, readings):
    with pytest.raises(InputError, match=f"x: expected `layout` to say.*{readings}"):
        layout_of(shape, None, "x")
    for layout in ("nchw", "nhwc", "ndhw") if len(shape) == 4 else ("ncdhw", "ndhwc"):
        assert layout_of(shape, layout, "x") == layout


@pytest.mark.parametrize("shape", [(4, 3), (2,) * 6, (), (0, 4, 4), (4, 0, 4)])
def test_what_has_no_images_is_refused(shape):
    with pytest.raises(InputError, match="x: expected"):
        layout_of(shape, None, "x")


def test_a_layout_of_another_number_of_axes_is_refused():
    with pytest.raises(InputError, match="layout: nchw has 4 axes, x has 3"):
        layout_of((4, 5, 6), "nchw", "x")


def test_where_channels_are_first_by_convention_few_axes_can_be_some():
    for shape, layout in (((5, 3, 9, 9), "nchw"), ((5, 4, 9, 9, 9), "ncdhw"), ((5, 9, 9), "nhw")):
        assert channels_first(shape, None, "x") == layout
    for shape in ((5, 9, 9, 3), (5, 9, 9, 9), (5, 9, 9, 9, 1)):
        with pytest.raises(InputError, match="x: expected `layout`"):
            channels_first(shape, None, "x")
    assert channels_first((5, 9, 9, 3), "nhwc", "x") == "nhwc"


@pytest.mark.parametrize(
    ("shape", "layout", "wanted"),
    [
        ((2, 5, 6), "nhw", (2, 1, 5, 6)), ((2, 5, 6, 3), "nhwc", (2, 3, 5, 6)), ((2, 3, 5, 6), "nchw", (2, 3, 5, 6)),
        ((2, 4, 5, 6), "ndhw", (2, 1, 4, 5, 6)), ((2, 4, 5, 6, 3), "ndhwc", (2, 3, 4, 5, 6)),
        ((2, 3, 4, 5, 6), "ncdhw", (2, 3, 4, 5, 6)),
    ],
)  # fmt: skip
def test_channels_come_first(shape, layout, wanted):
    x = torch.arange(float(torch.tensor(shape).prod())).view(shape)
    moved = move_channels(x, layout)
    assert tuple(moved.shape) == wanted
    assert moved[1, 0].flatten()[0] == x[1].flatten()[0]
    assert moved.flatten().sort().values.equal(x.flatten())

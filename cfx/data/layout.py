"""Which axis of an array of images is which.

A row of three axes may be three channels of an image or three slices of a volume; both are common, and nothing in the
array says which. So an axis that can be only one thing is taken for that, and all else is asked for.
"""

from collections.abc import Sequence
from typing import Literal

from jaxtyping import Shaped
from torch import Tensor

from cfx.core.errors import InputError

Layout = Literal["nhw", "nhwc", "nchw", "ndhw", "ndhwc", "ncdhw"]
"""The axes of an array in their order: n rows, c channels, and d, h, w in space."""

_BY_AXES: dict[int, tuple[Layout, ...]] = {3: ("nhw",), 4: ("nchw", "nhwc", "ndhw"), 5: ("ncdhw", "ndhwc")}


def layout_of(shape: tuple[int, ...], layout: Layout | None, name: str) -> Layout:
    """The layout of an array of images: the one that is given, or the only one that its shape can have.

    An axis of 1, or a last one of 3, is channels. An axis of 2 to 4 beside larger ones may be, so it must be said.

    Args:
        shape: Shape of the array.
        layout: What the user says, or None.
        name: What the array is, for the error message.

    Raises:
        InputError: no row or no pixel, axes of another number than the layout has, or a shape that can be two things.
    """
    possible = _check_axes(shape, layout, name)
    if layout is not None:
        return layout
    if len(possible) == 1:
        return possible[0]
    front, back = _channels(shape, 1), _channels(shape, len(shape) - 1)
    first, last, whole = possible[0], possible[1], possible[2:]
    sure_front = front and (shape[1] == 1 or not whole)
    sure_back = back and (shape[-1] in (1, 3) or not whole)
    if sure_front and not back:
        return first
    if sure_back and not front:
        return last
    if whole and not front and not back:
        return whole[0]
    raise _ask(shape, name, [first] * front + [last] * back + [*whole])


def channels_first(shape: tuple[int, ...], layout: Layout | None, name: str) -> Layout:
    """The layout of an array that by convention has its channels first, where so few axes can be channels.

    Raises:
        InputError: as `layout_of`, or more than four channels and no layout that says so.
    """
    possible = _check_axes(shape, layout, name)
    if layout is None and len(possible) > 1 and shape[1] > 4:
        raise _ask(shape, name, possible)
    return layout or possible[0]


def move_channels(x: Shaped[Tensor, "n ..."], layout: Layout) -> Shaped[Tensor, "n c ..."]:
    """The images as `(n, c, *space)`; nothing is copied."""
    return x.movedim(layout.index("c"), 1) if "c" in layout else x.unsqueeze(1)


def _check_axes(shape: tuple[int, ...], layout: Layout | None, name: str) -> tuple[Layout, ...]:
    """The layouts of so many axes."""
    possible = _BY_AXES.get(len(shape), ())
    if not possible:
        raise InputError(f"{name}: expected (n, h, w) or (n, d, h, w), with or without channels (c), got {shape}")
    if layout is not None and layout not in possible:
        raise InputError(f"layout: {layout} has {len(layout)} axes, {name} has {len(shape)}: {shape}")
    if 0 in shape:
        raise InputError(f"{name}: expected images, got none: shape {shape}")
    return possible


def _channels(shape: tuple[int, ...], axis: int) -> bool:
    """Whether an axis may be channels: 1 or 3 long, or 2 or 4 and at most half of any axis in space."""
    rest = [length for i, length in enumerate(shape) if i not in (0, axis)]
    return shape[axis] in (1, 3) or (shape[axis] in (2, 4) and 2 * shape[axis] <= min(rest))


def _ask(shape: tuple[int, ...], name: str, possible: Sequence[Layout]) -> InputError:
    readings = [f"{layout} ({_described(shape, layout)})" for layout in possible or _BY_AXES[len(shape)]]
    return InputError(f"{name}: expected `layout` to say what the axes of {shape} are: {', '.join(readings)}")


def _described(shape: tuple[int, ...], layout: Layout) -> str:
    """What the images would be."""
    size = "x".join(str(length) for length, axis in zip(shape, layout, strict=True) if axis in "dhw")
    channels = shape[layout.index("c")] if "c" in layout else 1
    return f"{shape[0]} {'volumes' if 'd' in layout else 'images'} of {size} with {channels} channels"

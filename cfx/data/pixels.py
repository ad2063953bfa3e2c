"""Pixels to the house's range and size: float32 in [-1, 1], one shape for all."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from cfx.core.errors import InputError
from cfx.data.table import some

Range = tuple[float, float]
Size = int | tuple[int, ...]


def full_range(dtype: np.dtype[Any]) -> Range | None:
    """What an image of this dtype spans by convention: 0..255, 0..65535, or 0..1 for booleans; None if it has none."""
    if dtype == np.bool_:
        return (0.0, 1.0)
    return (0.0, float(np.iinfo(dtype).max)) if dtype.newbyteorder("=") in (np.uint8, np.uint16) else None


def range_of(values: npt.NDArray[Any], value_range: Range | None, name: str) -> Range:
    """The values that become -1 and 1: the ones given, or the full range of the dtype.

    Raises:
        InputError: neither; the message says what the values span.
    """
    found = value_range or full_range(values.dtype)
    if found is None:
        finite = values[np.isfinite(values)] if values.dtype.kind in "iuf" else values[:0]
        span = f"; they lie in [{finite.min():.4g}, {finite.max():.4g}]" if finite.size else ""
        raise InputError(f"{name}: {values.dtype} need a value_range (the values that become -1 and 1){span}")
    return found


def scale(values: npt.NDArray[Any], value_range: Range, name: str) -> Float[Tensor, " ..."]:
    """Map `value_range` linearly onto [-1, 1], as float32.

    Args:
        values: Numbers of any dtype and shape.
        value_range: The values that become -1 and 1.
        name: What the values are, for the error message.

    Raises:
        InputError: an empty range, or values outside it. NaN is left for the caller to name.
    """
    low, high = value_range
    if not -np.inf < low < high < np.inf:
        raise InputError(f"value_range: expected (low, high) with low < high, got {value_range}")
    if ((values < low) | (values > high)).any():
        raise InputError(
            f"{name}: expected values within value_range {value_range}, got [{values.min():.4g}, {values.max():.4g}]"
        )
    x = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return ((x - low) * (2 / (high - low)) - 1).clamp(-1, 1)


def resize(x: Float[Tensor, "n c *space"], size: Size) -> Float[Tensor, "n c *space2"]:
    """Resize images: by area where no axis grows, else (bi- or tri-) linearly; both keep the range.

    Args:
        x: Images with two or three spatial axes.
        size: Pixels along every axis; one number for images whose axes are equally long.

    Raises:
        InputError: one number for images that are not square, or the wrong count of numbers.
    """
    space = tuple(x.shape[2:])
    if isinstance(size, int) and len(set(space)) > 1:
        raise InputError(f"size: one number would distort images of {space} pixels; expected {len(space)} numbers")
    wanted = (size,) * len(space) if isinstance(size, int) else tuple(size)
    if len(wanted) != len(space) or min(wanted) < 1:
        raise InputError(f"size: expected {len(space)} positive numbers for images of {space} pixels, got {wanted}")
    if wanted == space:
        return x
    if all(new <= old for new, old in zip(wanted, space, strict=True)):
        return functional.interpolate(x, size=wanted, mode="area")
    mode = "bilinear" if len(space) == 2 else "trilinear"
    return functional.interpolate(x, size=wanted, mode=mode, align_corners=False)


def resize_mask(mask: Bool[Tensor, "n 1 *space"], size: Size) -> Bool[Tensor, "n 1 *space2"]:
    """Resize masks as `resize` does images: inside is where at least half of a pixel was; errors as there."""
    return resize(mask.float(), size) >= 0.5


def stack(images: Sequence[Tensor], names: Sequence[str], hint: str) -> Tensor:
    """Stack images of one shape.

    Args:
        images: Tensors of the same shape.
        names: What to call each in the error message.
        hint: What the user can do when the shapes differ.

    Raises:
        InputError: no image at all, or two shapes; both are named.
    """
    if not images:
        raise InputError("path: expected at least one image, found none")
    for image, name in zip(images, names, strict=True):
        if image.shape != images[0].shape:
            raise InputError(
                f"images differ in shape: {tuple(images[0].shape)} in {names[0]}, {tuple(image.shape)} in {name}; "
                f"{hint}"
            )
    return torch.stack(list(images))


def binary(values: npt.NDArray[Any], name: str) -> Bool[Tensor, " ..."]:
    """A mask of an array that is 0 outside and has one other value inside.

    Raises:
        InputError: more values than these, or nothing inside.
    """
    present = np.unique(values)
    inside = present[present != 0]
    if len(inside) != 1:
        came = "nothing but 0" if not len(inside) else f"the values {some(present.tolist())}"
        raise InputError(f"{name}: expected a mask, 0 outside and one other value inside, got {came}")
    return torch.from_numpy(values != 0)

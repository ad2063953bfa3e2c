"""Resizing with antialiasing, by one matrix an axis, so two and three spatial axes are one code path.

Along an axis of n pixels made m, with the scale s = n / m, pixel i of the result is the weighted mean of the pixels j

    w_ij ~ max(0, 1 - |j + 1/2 - s (i + 1/2)| / max(s, 1)),

linear interpolation where the axis grows and a tent that covers s pixels to either side where it shrinks: what torch's
`interpolate(mode="bilinear", antialias=True)` does, which is for images of two axes only. Linear, so differentiable.
"""

from collections.abc import Sequence
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError


def resized(x: Float[Tensor, "b c *space"], size: int | Sequence[int]) -> Float[Tensor, "b c *space2"]:
    """Images at another size.

    Args:
        x: Images of two or three spatial axes.
        size: Pixels along every axis, or one number for all.

    Raises:
        InputError: other than one positive number an axis.
    """
    axes = x.ndim - 2
    wanted = (size,) * axes if isinstance(size, int) else tuple(size)
    if len(wanted) != axes or min(wanted) < 1:
        raise InputError(f"size: expected {axes} positive numbers for images of {tuple(x.shape[2:])}, got {wanted}")
    for axis, m in enumerate(wanted, start=2):
        if m != x.shape[axis]:
            w = _weights(x.shape[axis], m).to(x.device, x.dtype)
            x = (x.movedim(axis, -1) @ w.T).movedim(-1, axis)
    return x


@lru_cache(maxsize=64)
def _weights(n: int, m: int) -> Float[Tensor, "m n"]:
    """The matrix of one axis, double precision."""
    s = n / m
    centre = s * (torch.arange(m, dtype=torch.float64) + 0.5)
    distance = (torch.arange(n, dtype=torch.float64) + 0.5 - centre[:, None]).abs()
    w = (1 - distance / max(s, 1.0)).clamp_min(0)
    return w / w.sum(1, keepdim=True)

"""Probabilities and classes that a user hands in, checked once: what is none of them is told by its name."""

from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from numpy.typing import NDArray
from torch import Tensor

from cfx.core.arrays import as_tensor, whole_numbers
from cfx.core.errors import InputError

Probabilities = Shaped[Tensor, "..."] | NDArray[Any]
"""Probabilities, or logits, `(n, k, *space)` of k classes of every row, or of every voxel of it."""
Classes = Shaped[Tensor, "..."] | NDArray[Any]
"""The class `(n, *space)` of every row, or of every voxel of it, numbered from 0."""

_ROUNDING = 1e-3  # a sum of half-precision probabilities may differ from 1 by this
_CHUNK = 1 << 22  # numbers looked at together


def probabilities(p: Probabilities, name: str = "p") -> Float[Tensor, "n k *space"]:
    """Probabilities as a tensor.

    Raises:
        InputError: not `(n, k, *space)` with two classes or more, numbers outside [0, 1] (logits, say), rows that do
            not add up to one, or no rows.
    """
    found = as_tensor(p, name, "probabilities (n, k, *space)")
    if not found.is_floating_point() or found.ndim < 2 or not found.numel():
        came = f"{found.dtype} {tuple(found.shape)}".removeprefix("torch.")
        raise InputError(f"{name}: expected probabilities (n, k, *space) of at least one row, got {came}")
    if found.shape[1] < 2:
        raise InputError(
            f"{name}: expected a column a class, two or more, got {tuple(found.shape)}; of one probability q of class "
            "1 pass torch.stack([1 - q, q], 1)"
        )
    for part in found.split(max(1, _CHUNK * len(found) // found.numel())):
        _check(part, name)
    return found


def _check(p: Tensor, name: str) -> None:
    low, high = (float(v) for v in p.aminmax())
    if not (low >= -_ROUNDING and high <= 1 + _ROUNDING):
        raise InputError(
            f"{name}: expected probabilities in [0, 1], got [{low:.4g}, {high:.4g}]; of logits pass logits.softmax(1)"
        )
    off = float((p.sum(1) - 1).abs().max())
    if not off <= _ROUNDING * p.shape[1]:
        raise InputError(
            f"{name}: expected probabilities that add up to 1 over the classes, axis 1, got a sum that is off by "
            f"{off:.3g}; of independent findings take one at a time"
        )


def logits(x: Probabilities, name: str = "logits") -> Float[Tensor, "n k *space"]:
    """Logits as a tensor.

    Raises:
        InputError: not `(n, k, *space)` with two classes or more, numbers that are not finite, no rows, or what looks
            like probabilities: in [0, 1] and adding up to one in every row.
    """
    found = as_tensor(x, name, "logits (n, k, *space)")
    if not found.is_floating_point() or found.ndim < 2 or not found.numel() or found.shape[1] < 2:
        came = f"{found.dtype} {tuple(found.shape)}".removeprefix("torch.")
        raise InputError(f"{name}: expected logits (n, k, *space) of two or more classes, got {came}")
    low, high = (float(v) for v in found.aminmax())
    if not (low > -torch.inf and high < torch.inf):
        raise InputError(f"{name}: expected finite logits, got NaN or infinity")
    if low >= 0 and high <= 1 and bool(((found.sum(1) - 1).abs() <= _ROUNDING).all()):
        raise InputError(f"{name}: expected logits, got what looks like probabilities; pass p.clamp_min(1e-12).log()")
    return found


def classes(y: Classes, like: Float[Tensor, "n k *space"], name: str = "y") -> Int[Tensor, "n *space"]:
    """Classes of rows whose probabilities are `like`, as int64 on their device.

    Raises:
        InputError: another shape, or numbers that are no classes of `like`.
    """
    found = whole_numbers(as_tensor(y, name, "class numbers"), name).to(like.device)
    wanted = (len(like), *like.shape[2:])
    if tuple(found.shape) != wanted:
        raise InputError(f"{name}: expected one class a row or voxel, {wanted}, got {tuple(found.shape)}")
    low, high = (int(v) for v in found.aminmax())
    if low < 0 or high >= like.shape[1]:
        raise InputError(f"{name}: expected classes 0 .. {like.shape[1] - 1}, a column of p each, got {low} .. {high}")
    return found


def entries(per_row: int) -> int:
    """Rows of so many numbers each that are worked on together."""
    return max(1, _CHUNK // max(1, per_row))

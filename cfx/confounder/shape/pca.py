"""Principal components of signed distances: the closed-form shape model, and what every shape model stands on.

A shape is stored as its signed distance clipped to +-`clip` voxels and divided by it, x in [-1, 1]: far from the
boundary a distance says nothing about the mask, and unclipped it would have most of the weight.

Reference: Leventon, Grimson and Faugeras (2000), "Statistical shape influence in geodesic active contours".
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol, Self, runtime_checkable

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from cfx.core.components import components
from cfx.core.distance import signed_distance
from cfx.core.errors import InputError

DEPTH = 0.25
"""`clip` as a share of the shapes' mean depth (the largest distance inside)."""
_NOTHING = 1e-5  # a mode that moves x by less than this (root mean square over voxels) is rounding


@runtime_checkable
class Codec(Protocol):
    """Shapes to codes and back."""

    kind: ClassVar[str]

    @property
    def clip(self) -> float:
        """Distance in voxels at which signed distances are clipped."""

    @property
    def space(self) -> tuple[int, ...]:
        """Grid of the shapes."""

    def encode(self, shape: Num[Tensor, "n 1 *space"] | Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n k"]:
        """Codes of masks (bool) or signed distances (float, voxels)."""

    def decode(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n 1 *space"]:
        """Signed distances in voxels, clipped; the mask is where they are <= 0."""


def as_distance(shape: Tensor) -> Float[Tensor, "n 1 *space"]:
    """Signed distances in voxels of masks; of signed distances (float), themselves.

    Raises:
        InputError: neither, or distances that are not finite or not `(n, 1, *space)`.
    """
    if shape.dtype == torch.bool:
        return signed_distance(shape)
    if not shape.is_floating_point() or shape.ndim not in (4, 5) or shape.shape[1] != 1:
        raise InputError(f"shape: expected masks or distances (n, 1, *space), got {shape.dtype} {tuple(shape.shape)}")
    if not bool(torch.isfinite(shape).all()):
        raise InputError("shape: expected finite signed distances, got NaN or infinite values")
    return shape.float()


def mirrored(shape: Tensor, axis: int | None) -> Tensor:
    """The shapes, and behind them their mirror images along a spatial axis (0 is the first); None adds nothing.

    Raises:
        InputError: no such axis.
    """
    if axis is None:
        return shape
    if not 0 <= axis < shape.ndim - 2:
        raise InputError(f"mirror: expected a spatial axis 0 .. {shape.ndim - 3} or None, got {axis}")
    return torch.cat([shape, shape.flip(2 + axis)])


@dataclass(frozen=True)
class SdfPca:
    """Principal components of clipped signed distances; codes are coefficients over their standard deviations.

    Attributes:
        mean: Mean shape `(1, *space)`, in [-1, 1].
        basis: Orthonormal modes `(k, *space)`, by falling variance.
        scale: Standard deviations of the coefficients `(k,)`.
        clip: Voxels at which distances are clipped.
    """

    kind: ClassVar[str] = "pca"

    mean: Float[Tensor, "1 *space"]
    basis: Float[Tensor, "k *space"]
    scale: Float[Tensor, " k"]
    clip: float

    @classmethod
    def fit(cls, shape: Tensor, k: int, *, mirror: int | None = None) -> Self:
        """The first k modes of masks or signed distances `(n, 1, *space)`.

        Args:
            shape: Masks (bool) or signed distances in voxels.
            k: Number of modes.
            mirror: Spatial axis across which the organ is symmetric: every shape counts mirrored as well.

        Raises:
            InputError: k is not between 1 and the number of modes that the shapes span, fewer than there are shapes.
        """
        whole = cls.whole(shape, mirror=mirror)
        if not 1 <= k <= len(whole.scale):
            raise InputError(f"k: expected 1 .. {len(whole.scale)} modes, as many as these shapes span, got {k}")
        return cls(whole.mean, whole.basis[:k], whole.scale[:k], whole.clip)

    @classmethod
    def whole(cls, shape: Tensor, *, mirror: int | None = None, most: int | None = None) -> Self:
        """All modes that the shapes span, or the first `most`; arguments and errors as `fit`.

        Raises:
            InputError: shapes that are all alike.
        """
        distance = mirrored(as_distance(shape), mirror)
        clip = DEPTH * float(-distance.flatten(1).amin(1).mean())
        if not clip > 0:
            raise InputError("shape: expected signed distances that are negative inside, got none below zero")
        x = (distance / clip).clamp(-1, 1).flatten(1)
        found = components(x, least=_NOTHING * x.shape[1] ** 0.5, most=most)
        if not len(found.variance):
            raise InputError(f"shape: expected shapes that differ, got {len(distance)} alike")
        grid = distance.shape[2:]
        basis = found.axes.T.contiguous().reshape(-1, *grid)
        return cls(found.mean.view(1, *grid), basis, found.spread.float(), clip)

    @property
    def space(self) -> tuple[int, ...]:
        """Grid of the shapes."""
        return tuple(self.mean.shape[1:])

    def encode(self, shape: Tensor) -> Float[Tensor, "n k"]:
        """Orthogonal projection of masks or signed distances, standardised.

        Raises:
            InputError: shapes on another grid.
        """
        x = clipped(shape, self.clip, self.space)
        return (x - self.mean).flatten(1) @ self.basis.flatten(1).T / self.scale

    def decode(self, z: Float[Tensor, "n k"]) -> Float[Tensor, "n 1 *space"]:
        """Signed distances in voxels, clipped."""
        flat = (z * self.scale) @ self.basis.flatten(1)
        return self.clip * (self.mean + flat.view(len(z), *self.mean.shape)).clamp(-1, 1)


def clipped(shape: Tensor, clip: float, space: tuple[int, ...]) -> Float[Tensor, "n 1 *space"]:
    """Masks or signed distances as x in [-1, 1].

    Raises:
        InputError: shapes on another grid than `space`.
    """
    if tuple(shape.shape[2:]) != space:
        raise InputError(f"shape: expected the grid {space} of the model, got {tuple(shape.shape[2:])}")
    return (as_distance(shape) / clip).clamp(-1, 1)

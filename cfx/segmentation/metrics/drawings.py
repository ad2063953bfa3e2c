"""Samples and readers' masks of the same images, checked, and how alike their pairs are."""

from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.overlap import Overlap, overlaps

Masks = Shaped[Tensor, "..."]
"""Masks `(n, s, *space)`: boolean, or class numbers."""
Layers = Bool[Tensor, "k n _ ..."]
"""The same as a boolean mask for every foreground class."""


@dataclass(frozen=True)
class Likeness:
    """How alike two masks are, of all pairs, float64.

    Attributes:
        iou: Intersection over union.
        dice: Dice overlap.
    """

    iou: Float[Tensor, "n s r"]
    dice: Float[Tensor, "n s r"]

    @property
    def distance(self) -> Float[Tensor, "n s r"]:
        """The distance d = 1 - IoU, which is a metric."""
        return 1 - self.iou


@dataclass(frozen=True)
class Drawings:
    """What samplers and readers drew, as a boolean mask for every foreground class.

    Attributes:
        samples: Masks of the samples.
        readers: Masks of the readers.
    """

    samples: Layers
    readers: Layers

    @classmethod
    def of(cls, samples: Masks, readers: Masks, classes: int | None = None, *, least: tuple[int, int] = (1, 1)) -> Self:
        """Check masks.

        Args:
            samples: Samples `(n, s, *space)`.
            readers: Readers' masks `(n, r, *space)` of the same images.
            classes: Number of classes, for class numbers.
            least: Least number of samples and of readers that is needed.

        Raises:
            InputError: no masks, masks of other images or of another grid, class numbers out of range, or too few.
        """
        found = [
            layers(masks, name, classes, least=enough)
            for masks, name, enough in zip((samples, readers), ("samples", "readers"), least, strict=True)
        ]
        ours, theirs = ((len(m), *m.shape[2:]) for m in (samples, readers))
        if ours != theirs:
            raise InputError(
                f"readers: expected masks of the {ours[0]} images of {_grid(ours[1:])} voxels that the samples are of, "
                f"got {theirs[0]} of {_grid(theirs[1:])}"
            )
        return cls(*found)

    @cached_property
    def across(self) -> Likeness:
        """Every sample with every reader."""
        return alike(self.samples, self.readers)

    @cached_property
    def among_samples(self) -> Likeness:
        """Every sample with every sample."""
        return alike(self.samples, self.samples)

    @cached_property
    def among_readers(self) -> Likeness:
        """Every reader with every reader."""
        return alike(self.readers, self.readers)


def layers(masks: Masks, name: str, classes: int | None, *, least: int = 1) -> Layers:
    """A boolean mask for every foreground class.

    Raises:
        InputError: as `Drawings.of`.
    """
    _check_kind(masks, name, classes)
    if masks.ndim < 3 or masks.shape[1] < least:
        needed = f"at least {least} {name.removesuffix('s')}{'s' if least > 1 else ''} an image"
        raise InputError(f"{name}: expected masks (n, {name}, *space), {needed}; got shape {tuple(masks.shape)}")
    if masks.dtype == torch.bool and classes in (None, 2):
        return masks[None]
    return torch.stack([masks == k for k in range(1, classes or 2)])


def _check_kind(masks: Masks, name: str, classes: int | None) -> None:
    """Refuse what is neither boolean nor class numbers in range."""
    if masks.is_floating_point() or masks.is_complex():
        raise InputError(f"{name}: expected boolean masks or class numbers, got {masks.dtype}; threshold them first")
    if masks.dtype == torch.bool and classes is None:
        return
    if classes is None:
        raise InputError(
            f"classes: expected the number of classes, background included, since {name} are class numbers "
            f"({masks.dtype}); of one foreground class pass {name} != 0"
        )
    if classes < 2:
        raise InputError(f"classes: expected at least 2, the background being one, got {classes}")
    if masks.numel() and (int(masks.min()) < 0 or int(masks.max()) >= classes):
        raise InputError(
            f"{name}: expected class numbers 0 .. {classes - 1}, got {int(masks.min())} .. {int(masks.max())}"
        )


def _grid(space: tuple[int, ...]) -> str:
    return " x ".join(map(str, space))


def alike(a: Layers, b: Layers) -> Likeness:
    """How alike all pairs of masks are."""
    counts = overlaps(a.flatten(0, 1), b.flatten(0, 1))
    found = Overlap(*(c.unflatten(0, a.shape[:2]) for c in (counts.both, counts.a, counts.b)))
    return Likeness(over_classes(found.iou, found.any), over_classes(found.dice, found.any))


def over_classes(value: Float[Tensor, "k ..."], present: Bool[Tensor, "k ..."]) -> Float[Tensor, "..."]:
    """Mean over the classes that are present, 1 where none is."""
    count = present.sum(0)
    mean = torch.where(present, value, 0.0).sum(0) / count
    return torch.where(count == 0, 1.0, mean)

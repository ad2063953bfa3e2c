"""Images with what is known about them, the value that every floor takes in.

Images are float32 tensors `(n, c, *space)` in [-1, 1]; `*space` is two or three axes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.rows import Rows, about


def check_images(x: Tensor, name: str = "x") -> None:
    """Refuse what is not a batch of images in [-1, 1].

    Raises:
        InputError: not floating point, not `(n, c, *space)` with 2 or 3 spatial axes, non-finite, or outside [-1, 1].
    """
    if not x.is_floating_point():
        raise InputError(f"{name}: expected a floating-point tensor in [-1, 1], got {x.dtype}")
    if x.ndim not in (4, 5):
        raise InputError(f"{name}: expected (n, c, h, w) or (n, c, d, h, w), got shape {tuple(x.shape)}")
    bad = (~torch.isfinite(x)).flatten(1).any(1)
    if bad.any():
        raise InputError(f"{name}: NaN or infinite pixels in rows {_some(bad)}; expected finite values in [-1, 1]")
    outside = (x.abs() > 1 + 1e-4).flatten(1).any(1)
    if outside.any():
        raise InputError(
            f"{name}: expected values in [-1, 1], got [{x.min():.4g}, {x.max():.4g}] (rows {_some(outside)})"
        )


def _some(rows: Tensor, most: int = 8) -> str:
    """The first few true rows of a boolean vector, as text."""
    found = rows.nonzero().flatten().tolist()
    return str(found[:most])[:-1] + (f", ... {len(found)} in all]" if len(found) > most else "]")


@dataclass(frozen=True)
class Cohort(Rows):
    """Images with what is known about them.

    Attributes:
        x: Images `(n, c, *space)`, float32 in [-1, 1].
        y: Labels: `(n,)` int64 classes, or `(n, k)` 0/1 for multi-label; None if unlabelled.
        ids: One name a row.
        affine: Voxel-to-world matrices `(n, 4, 4)` in mm for images that have one, else None.
        spacing: Pixel spacing `(n, len(space))` in mm, None if unknown.
        covariates: Numeric columns `(n,)` by name.
        mask: Region of interest (a brain mask, say) `(n, 1, *space)`, or None.
        x_true: True counterfactual of every row (the same subject, the other class), for simulated cohorts only.
        lesion: Ground-truth lesion mask of `x`, `(n, 1, *space)`, or None.
        classes: Names of the classes, in label order.
    """

    x: Float[Tensor, "n c *space"] = field(metadata=about(array="factual"))
    y: Int[Tensor, " n"] | Float[Tensor, "n k"] | None = field(default=None, metadata=about(array="label"))
    ids: tuple[str, ...] = field(default=(), metadata=about(array="sample"))
    affine: Float[Tensor, "n world=4 voxel=4"] | None = None
    spacing: Float[Tensor, "n dims"] | None = None
    covariates: Mapping[str, Shaped[Tensor, " n"]] = field(default_factory=dict)
    mask: Bool[Tensor, "n 1 *space"] | None = field(default=None, metadata=about(array="region"))
    x_true: Float[Tensor, "n c *space"] | None = field(default=None, metadata=about(array="truth"))
    lesion: Bool[Tensor, "n 1 *space"] | None = None
    classes: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the images and that every per-row field has one entry a row."""
        check_images(self.x, "Cohort.x")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(str(i) for i in range(len(self.x))))
        super().__post_init__()

    @property
    def space(self) -> tuple[int, ...]:
        """Spatial shape of the images."""
        return tuple(self.x.shape[2:])

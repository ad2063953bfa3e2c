"""An image with the brain shape of another: the intervention of the shape-reliance test, and its controls.

Every arm goes through the same two interpolations, `core.registration.reshape` by half of the way each, so that what
interpolating does to an image (it blurs a little) is in all of them, as much and as often:

| arm | first half | second half | support |
|---|---|---|---|
| `transfer(x, mask, donor)` | exp(v / 2), with mask o exp(v) ~ donor | exp(v / 2) | the donor's mask |
| `.back()` of it | the same image half way | exp(-v / 2) | its own mask |
| `transfer.deform(x, mask, v, dose=t)` | exp(t v / 2) | exp(t v / 2) | where exp(t v) carries the mask |
| `transfer.identity(x, mask)` | none | none | its own mask |
| `transfer.random(x, mask, v, ...)` | of a random v, as large | the same | its own mask |

`back` is the control of a transfer: it shares the first interpolation, its second is as large, and the shape is the
image's own again. The two halves are one flow, exp(v / 2) o exp(v / 2) = exp(v).

A donor is a mask: another subject's, or `sdf <= 0` of a draw from a shape model.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core import geometry
from cfx.core.broadcast import each
from cfx.core.cohort import check_images
from cfx.core.distance import check_mask, signed_distance
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.registration import LIMIT, match, reshape
from cfx.core.scores import dice

LEAST_DICE = 0.95
MOST_LESION_CHANGE = 0.1
_KNOT = 8  # voxels between the control points of a random warp
_TAPER = 4.0  # voxels from the outline at which a random warp is at full strength


@dataclass(frozen=True)
class Transferred:
    """Reshaped images, one row an input, and what happened to them.

    Attributes:
        x: Images `(n, c, *space)` in [-1, 1].
        mask: Their support: the donor's mask at dose 1.
        source: The support before.
        v: Stationary velocity in voxels, dose included.
        u: Displacement in voxels of both interpolations together.
        middle: The images half of the way.
        middle_mask: Their support.
        dice: Overlap of `source` carried by u with `mask`.
        jacobian_min: Least forward-difference Jacobian of u on the grid.
        jacobian_max: Largest.
        folded: Rows with a Jacobian <= 0 somewhere.
        blur: Energy of the gradient inside the support, after over before: 1 keeps the sharpness.
        lesion_volume_change: Relative change of the lesion's volume; 0 without a lesion.
        plausible: Rows whose source and support have volumes in `Transfer.volumes`.
    """

    x: Float[Tensor, "n c *space"]
    mask: Bool[Tensor, "n 1 *space"]
    source: Bool[Tensor, "n 1 *space"]
    v: Float[Tensor, "n d *space"]
    u: Float[Tensor, "n d *space"]
    middle: Float[Tensor, "n c *space"]
    middle_mask: Bool[Tensor, "n 1 *space"]
    dice: Float[Tensor, " n"]
    jacobian_min: Float[Tensor, " n"]
    jacobian_max: Float[Tensor, " n"]
    folded: Bool[Tensor, " n"]
    blur: Float[Tensor, " n"]
    lesion_volume_change: Float[Tensor, " n"]
    plausible: Bool[Tensor, " n"]

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.x)

    @property
    def ok(self) -> Bool[Tensor, " n"]:
        """Rows to trust: plausible, the support reached, tissue neither folded, squeezed nor made up, lesion kept."""
        kept = (self.jacobian_min >= 1 / LIMIT) & (self.jacobian_max <= LIMIT) & ~self.folded
        lesion = self.lesion_volume_change.abs() < MOST_LESION_CHANGE
        return self.plausible & kept & lesion & (self.dice >= LEAST_DICE)

    def back(self) -> Float[Tensor, "n c *space"]:
        """The images taken half of the way and back to the shape they came from: as many interpolations, as large."""
        return reshape(self.middle, self.middle_mask, self.source, geometry.exponential(-self.v / 2))

    def along(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """Other images of the same bodies, taken the way that these were."""
        half = geometry.exponential(self.v / 2)
        return reshape(reshape(x, self.source, self.middle_mask, half), self.middle_mask, self.mask, half)


@dataclass(frozen=True)
class Transfer:
    """Settings of the pipeline that all arms share.

    Attributes:
        volumes: Least and largest plausible volume of a mask in voxels (`core.distance.plausible_volumes`), or None.
    """

    volumes: tuple[float, float] | None = None

    def __call__(
        self,
        x: Float[Tensor, "n c *space"],
        mask: Bool[Tensor, "n 1 *space"],
        donor: Bool[Tensor, "n 1 *space"],
        *,
        dose: float = 1.0,
        lesion: Bool[Tensor, "n 1 *space"] | None = None,
    ) -> Transferred:
        """Give each image the shape of its donor.

        Args:
            x: Images in [-1, 1].
            mask: Their brains: solid, one component (`core.distance.solid`).
            donor: Shapes wanted, as many; `sdf <= 0` of a shape model's draw.
            dose: Part of the way, in [0, 1]; at 1 the support is the donor's mask exactly.
            lesion: Pathology that may move but not change, or None.

        Raises:
            InputError: images, masks or dose out of range, or shapes that differ.
        """
        _check(x, mask, donor, lesion)
        v = match(mask, donor, rigid=lesion)
        return self.deform(x, mask, v, dose=dose, support=donor if dose == 1 else None, lesion=lesion)

    def deform(
        self,
        x: Float[Tensor, "n c *space"],
        mask: Bool[Tensor, "n 1 *space"],
        v: Float[Tensor, "n d *space"],
        *,
        dose: float = 1.0,
        support: Bool[Tensor, "n 1 *space"] | None = None,
        lesion: Bool[Tensor, "n 1 *space"] | None = None,
    ) -> Transferred:
        """Deform each image by exp(dose v), v a velocity that is known already.

        Args:
            x: Images in [-1, 1].
            mask: Their brains.
            v: Velocities in voxels, as `Transferred.v` at dose 1.
            dose: Part of the way, in [0, 1].
            support: Support to force; None for where the deformation carries the mask.
            lesion: Pathology whose volume to follow, or None.

        Raises:
            InputError: as `__call__`.
        """
        _check(x, mask, mask if support is None else support, lesion)
        if not 0 <= dose <= 1:
            raise InputError(f"dose: expected a number in [0, 1], got {dose}")
        half = geometry.exponential(dose * v / 2)
        u, middle_mask = geometry.compose(half, half), _carry(mask, half)
        support = _carry(mask, u) if support is None else support
        middle = reshape(x, mask, middle_mask, half)
        out = reshape(middle, middle_mask, support, half)
        j = geometry.jacobian_determinant(u).flatten(1)
        change = torch.zeros(len(x)).to(x) if lesion is None else _growth(lesion, u)
        plausible = self._plausible(mask) & self._plausible(support)
        blur = _sharpness(out, support) / _sharpness(x, mask)
        return Transferred(
            out, support, mask, dose * v, u, middle, middle_mask, dice(_carry(mask, u), support), j.amin(1), j.amax(1),
            j.amin(1) <= 0, blur, change, plausible,
        )  # fmt: skip

    def identity(self, x: Float[Tensor, "n c *space"], mask: Bool[Tensor, "n 1 *space"]) -> Transferred:
        """The images through the pipeline, unchanged; errors as `__call__`."""
        v = torch.zeros(len(x), x.ndim - 2, *x.shape[2:]).to(x)
        return self.deform(x, mask, v, support=mask)

    def random(
        self,
        x: Float[Tensor, "n c *space"],
        mask: Bool[Tensor, "n 1 *space"],
        v: Float[Tensor, "n d *space"],
        *,
        seed: int,
        row: Int[Tensor, " n"],
    ) -> Transferred:
        """The images under random warps that keep the outline and deform the inside as much as v does.

        Arguments as `deform`, `seed` and `row` as `core.random.normal`; errors as `__call__`.
        """
        _check(x, mask, mask, None)
        return self.deform(x, mask, random_velocity(v, mask, seed=seed, row=row), support=mask)

    def _plausible(self, mask: Tensor) -> Tensor:
        volume = mask.flatten(1).sum(1)
        low, high = self.volumes or (0, mask[0].numel())
        return (volume >= low) & (volume <= high)


def random_velocity(
    v: Float[Tensor, "n d *space"], mask: Bool[Tensor, "n 1 *space"], *, seed: int, row: Int[Tensor, " n"]
) -> Float[Tensor, "n d *space"]:
    """Random smooth velocities that vanish on the outline and outside, as large as v.

    As large: the root-mean-square log-Jacobian of their flow inside the mask is that of exp(v).

    Args:
        v: Velocities to match in size, voxels.
        mask: Bodies whose outline is kept.
        seed: Seed.
        row: Counter of every row: what a row receives does not depend on its batch.

    Raises:
        InputError: see `core.distance.check_mask` and `core.random.normal`.
    """
    space = v.shape[2:]
    knots = normal((len(space), *(n // _KNOT + 2 for n in space)), seed=seed, row=row, stream=0).to(v)
    field = F.interpolate(knots, size=space, mode="bilinear" if len(space) == 2 else "trilinear", align_corners=True)
    w = geometry.smooth(field, _KNOT / 4) * (-signed_distance(mask) / _TAPER).clamp(0, 1)
    goal = _strain(v, mask)
    for _ in range(5):  # the norm is nearly proportional to the field
        scale = goal / _strain(w, mask).clamp_min(1e-6)
        w = w * each(scale, w)
    return w


def _strain(v: Tensor, mask: Tensor) -> Float[Tensor, " n"]:
    """Root-mean-square log-Jacobian of exp(v) inside the mask."""
    squared = geometry.log_jacobian(geometry.exponential(v)).square() * mask
    return (squared.flatten(1).sum(1) / mask.flatten(1).sum(1)).sqrt()


def _carry(mask: Tensor, u: Tensor) -> Bool[Tensor, "n 1 *space"]:
    """The mask after the warp, cut at one half."""
    return geometry.warp(mask.to(u), u) >= 0.5


def _growth(lesion: Tensor, u: Tensor) -> Float[Tensor, " n"]:
    """Relative change of a lesion's volume, 0 where there is none."""
    before = lesion.flatten(1).sum(1).to(u)
    after = geometry.warp(lesion.to(u), u).flatten(1).sum(1)
    return torch.where(before > 0, after / before.clamp_min(1) - 1, 0.0)


def _sharpness(x: Tensor, mask: Tensor) -> Float[Tensor, " n"]:
    """Mean squared difference of neighbours both inside the mask; a floor keeps flat images at a ratio of 1."""
    energy = torch.full((len(x),), 1e-8).to(x)
    for axis in range(2, x.ndim):
        both = mask.narrow(axis, 1, x.shape[axis] - 1) & mask.narrow(axis, 0, x.shape[axis] - 1)
        total = (x.diff(dim=axis).square() * both).flatten(1).sum(1)
        energy = energy + total / (x.shape[1] * both.flatten(1).sum(1).clamp_min(1))
    return energy


def _check(x: Tensor, mask: Tensor, donor: Tensor, lesion: Tensor | None) -> None:
    """Refuse images or masks that do not go together."""
    check_images(x)
    expected = (len(x), 1, *x.shape[2:])
    for name, m in (("mask", mask), ("donor", donor), ("lesion", lesion)):
        if m is None:
            continue
        if tuple(m.shape) != expected:
            raise InputError(f"{name}: expected shape {expected}, got {tuple(m.shape)}")
        if name != "lesion":
            check_mask(m, name)

"""What a mask can be read for, as a ladder: each rung sees more of the shape, so that rungs compared say what leaks.

    volume      how much
    moments     the volume, where (box, centre) and along which axes (second moments)
    occupancy   the mask after an affine map to unit second moments: what no size, place, tilt or stretch explains
    sdf         the signed distance: the whole mask
    cnn         the whole mask for a network to read (`cfx.confounder.probes.network`)

Everything is in voxels, in two and three dimensions alike. What is learned from rows (principal components, scales) is
left to the probe, which learns it inside each fold.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from cfx.core.distance import check_mask, signed_distance
from cfx.core.errors import InputError
from cfx.core.geometry import identity

CELLS = 16
"""Cells of the coarse grids along their longest axis: 14 mm of a whole head."""
_REACH = 1.25  # half side of the normalised grid, in radii of a ball of unit second moments
_OVERSAMPLING = 3  # points a cell and axis
_FLAT = 1e-3  # voxels^2 added to second moments, so that a plane or a line has an inverse


@dataclass(frozen=True)
class Features:
    """Columns that describe every row.

    Attributes:
        name: What they are.
        values: The columns `(n, p)`, finite.
        standardise: Whether the columns have units of their own, and so are put on one scale inside each fold.
    """

    name: str
    values: Float[Tensor, "n p"]
    standardise: bool = False

    def __post_init__(self) -> None:
        """Check that there are columns and that they are finite."""
        if self.values.shape[1] == 0:
            raise InputError(f"{self.name}: expected at least one column, got none")
        if not bool(torch.isfinite(self.values).all()):
            raise InputError(f"{self.name}: expected finite values, got NaN or infinite ones")

    def __getitem__(self, rows: Tensor) -> "Features":
        """The features of these rows."""
        return Features(self.name, self.values[rows], self.standardise)


def view(x: Shaped[Tensor, "n ..."], name: str = "view") -> Features:
    """Any view as it is, one column a pixel: an image, a mask, a log-Jacobian.

    Args:
        x: One entry a row, numbers or booleans.
        name: What it is.

    Raises:
        InputError: no column, or NaN or infinite values.
    """
    flat = x.reshape(len(x), -1)
    return Features(name, flat if flat.is_floating_point() else flat.float())


def volume(mask: Bool[Tensor, "n 1 *space"]) -> Features:
    """Voxels inside."""
    return Features("volume", mask.flatten(1).double().sum(1, keepdim=True), standardise=True)


def moments(mask: Bool[Tensor, "n 1 *space"]) -> Features:
    """Volume, sides and middle of the bounding box, centre of mass, and second central moments."""
    centre, second = _centre_and_second(mask)
    d = centre.shape[1]
    lower = torch.ones(d, d, dtype=torch.bool).tril()
    low, high = _box(mask)
    columns = [volume(mask).values, high - low, (high + low) / 2, centre, second[:, lower]]
    return Features("moments", torch.cat(columns, 1), standardise=True)


def occupancy(mask: Bool[Tensor, "n 1 *space"]) -> Features:
    """Share of each cell that the mask fills after the affine map that gives it centre 0 and unit second moments.

    The map p -> S^(-1/2) (p - c), S the second moments and S^(1/2) their symmetric root, is the affine normalisation
    nearest to none: it takes away place, size, stretch and shear, and with them all that `moments` sees but the box.
    """
    centre, second = _centre_and_second(mask)
    d = centre.shape[1]
    value, vector = torch.linalg.eigh(second)
    root = (vector * value.sqrt()[:, None]) @ vector.mT
    points = CELLS * _OVERSAMPLING
    axis = (torch.arange(points, dtype=torch.float64) + 0.5) / points * 2 - 1
    q = torch.cartesian_prod(*[axis * _REACH * math.sqrt(d + 2)] * d)  # a ball of unit moments has radius sqrt(d + 2)
    size = torch.tensor(mask.shape[2:], dtype=torch.float64)
    rows = []
    for m, c, r in zip(mask, centre, root, strict=True):  # one at a time: the points of a volume fill memory
        grid = ((q @ r + c) * (2 / (size - 1)) - 1).flip(-1).float().view(1, *[points] * d, d)
        rows.append(_coarse(F.grid_sample(m[None].float(), grid, align_corners=True), (CELLS,) * d))
    return Features("occupancy", torch.cat(rows).flatten(1))


def sdf(mask: Bool[Tensor, "n 1 *space"]) -> Features:
    """Signed distance in voxels, negative inside, as means over the cells of a coarse grid."""
    return Features("sdf", _coarse(signed_distance(mask), _grid(mask, CELLS)).flatten(1))


RUNGS: Mapping[str, Callable[[Tensor], Features]] = {
    "volume": volume,
    "moments": moments,
    "occupancy": occupancy,
    "sdf": sdf,
}
"""The rungs by name, from the least to the most."""


def features(mask: Bool[Tensor, "n 1 *space"], rung: str) -> Features:
    """One rung of the ladder.

    Args:
        mask: Masks with an inside and an outside.
        rung: One of `RUNGS`.

    Raises:
        InputError: no rung of that name, or see `cfx.core.distance.check_mask`.
    """
    if rung not in RUNGS:
        raise InputError(f"rung: expected one of {list(RUNGS)}, got {rung!r}")
    check_mask(mask)
    return RUNGS[rung](mask)


def shares(mask: Bool[Tensor, "n 1 *space"], cells: int) -> Float[Tensor, "n 1 *cells"]:
    """Share of each cell that the mask fills, on a grid with at most `cells` cells along its longest axis."""
    return _coarse(mask.float(), _grid(mask, cells))


def _grid(mask: Tensor, cells: int) -> tuple[int, ...]:
    """Cells along each axis, near to cubes and none smaller than a voxel."""
    space = mask.shape[2:]
    side = max(1.0, max(space) / cells)
    return tuple(max(1, round(n / side)) for n in space)


def _coarse(x: Float[Tensor, "n 1 *space"], grid: tuple[int, ...]) -> Float[Tensor, "n 1 *grid"]:
    """Means over cells."""
    return F.interpolate(x, size=grid, mode="area")


def _centre_and_second(mask: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d d"]]:
    """Centre of mass and second central moments of each mask, float64."""
    m = mask.flatten(1).double()
    p = identity(tuple(mask.shape[2:]), m).flatten(2)[0]  # (d, voxels)
    weight = m / m.sum(1, keepdim=True)
    centre = weight @ p.T
    products = (p[:, None] * p[None]).flatten(0, 1)
    d = len(p)
    second = (weight @ products.T).view(-1, d, d) - centre[:, :, None] * centre[:, None]
    return centre, second + _FLAT * torch.eye(d, dtype=second.dtype)


def _box(mask: Tensor) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """First and last voxel inside along every axis."""
    d = mask.ndim - 2
    low, high = [], []
    for axis in range(d):
        on = mask.movedim(2 + axis, 1).flatten(2).any(2).double()
        low.append(on.argmax(1))
        high.append(on.shape[1] - 1 - on.flip(1).argmax(1))
    return torch.stack(low, 1).double(), torch.stack(high, 1).double()

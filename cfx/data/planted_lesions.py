"""Lesions that no subject of the simulated cohort has, drawn on its images, with the mask of where they are.

What is drawn keeps the grain of the image: with m the soft mask of the lesion, v its value and x smoothed by 2.2 mm,

    x + m (v - smooth(x)),

so that inside the lesion the mean is v and the noise is that of the scanner. Discs have a soft edge of .9 mm, as the
cohort's own lesions. Masks of real patients are read in MNI space and carried to each subject by its own deformation.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from cfx.core import geometry
from cfx.core.broadcast import each
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.data import template
from cfx.data.brain import Population
from cfx.data.subjects import Factors

Soft = Float[Tensor, "n 1 *space"]
_EDGE = 0.9  # mm over which the logit of a soft edge changes by one
_GRAIN = 2.2  # mm below which an image is grain
_FAINT = 0.02  # of the ink is none, so that the image is itself elsewhere, bit for bit
_STREAM = 911
_TISSUES = {"white": 2, "grey": 1}  # channels of the template


@dataclass(frozen=True)
class Marks:
    """Round lesions.

    Attributes:
        value: Their intensity in [-1, 1].
        radius: Smallest and largest radius in mm.
        tissue: Where their middle is.
        words: What they are.
    """

    value: float
    radius: tuple[float, float]
    tissue: Literal["white", "grey"]
    words: str


ROUND: Mapping[str, Marks] = {
    "dark": Marks(-0.9, (6.0, 9.0), "white", "a disc as dark as air in white matter"),
    "bright": Marks(0.95, (6.0, 9.0), "white", "a bright disc in white matter"),
    "small-bright": Marks(0.95, (3.0, 4.5), "grey", "a bright disc of 3 to 4.5 mm radius in grey matter"),
    "cortical": Marks(-0.32, (5.0, 7.0), "grey", "a disc as dark as the cohort's own lesions, but in grey matter"),
}
"""Round lesions by their name; the first two are rungs for development."""


def discs(marks: Marks, people: Population, f: Factors) -> Soft:
    """One disc (or ball) in every image, at a random place of its tissue."""
    space = people.grid.maps.shape[2:]
    middle = centres(marks.tissue, people, f)
    away = (
        (geometry.identity(tuple(space), middle) - each(middle, people.grid.maps)).square().sum(1, keepdim=True).sqrt()
    )
    radius = marks.radius[0] + (marks.radius[1] - marks.radius[0]) * _uniform(people, f)[:, 1]
    return torch.sigmoid((each(radius, away) - away * people.grid.spacing) / _EDGE)


def centres(tissue: Literal["white", "grey"], people: Population, f: Factors) -> Float[Tensor, "n dims"]:
    """A random place of a tissue in every subject, in pixels."""
    maps = people.grid.at(f.level)
    there = geometry.warp(maps, people.deformation(f, maps), padding="zeros")[:, [_TISSUES[tissue]]]
    weight = (there > 0.6).double().flatten(1).cumsum(1) + 1e-9
    u = _uniform(people, f)[:, :1].double()
    place = torch.searchsorted(weight, u * weight[:, -1:]).clamp(max=weight.shape[1] - 1)[:, 0]
    return torch.stack(torch.unravel_index(place, maps.shape[2:]), 1).float()


def _uniform(people: Population, f: Factors) -> Float[Tensor, "n 2"]:
    return uniform((2,), seed=people.config.seed, row=f.index, stream=_STREAM)


def masks_at(path: Path, people: Population, f: Factors) -> Soft:
    """The lesions of a random patient in every image, among those who have some in that slice.

    Args:
        path: An `.npz` of `packed`, masks `(n, voxels)` as `numpy.packbits` leaves them, `shape`, theirs, and
            `affine`, from voxels to MNI mm.
        people: Whose images.
        f: Their factors.

    Raises:
        InputError: no such file, one without these arrays, or no lesion in any slice.
    """
    found = _sampled(path, people.config.size, people.config.dims, people.levels)
    here = _interpolated(found, people, f)
    big = here.flatten(2).sum(2)
    u = uniform((1,), seed=people.config.seed, row=f.index, stream=_STREAM + 1)
    weight = (big > 0.5 * big.amax(1, keepdim=True).clamp(max=20)).double().cumsum(1)
    chosen = torch.searchsorted(weight, u.double() * weight[:, -1:], right=True).clamp(max=weight.shape[1] - 1)
    mask = here[torch.arange(len(here)), chosen[:, 0]][:, None]
    return geometry.warp(mask, people.deformation(f), padding="zeros")


def _interpolated(found: Float[Tensor, "levels k *space"], people: Population, f: Factors) -> Tensor:
    """The masks of all patients at the levels of subjects."""
    levels = people.grid.levels
    if not levels:
        return found.expand(len(f.index), *found.shape[1:])
    step = levels[1] - levels[0]
    return found[((f.level - levels[0]) / step).round().long().clamp(0, len(levels) - 1)]


@lru_cache(maxsize=2)
def _sampled(path: Path, size: int, dims: int, ends: tuple[float, float]) -> Float[Tensor, "levels k *space"]:
    """The masks of all patients on the grid of the template, smoothed against aliasing."""
    masks, affine = _masks(path)
    grid = template.template(size, dims, ends)
    levels = torch.tensor(grid.levels) if dims == 2 else torch.zeros(1)
    world = torch.stack([_world(size, dims, float(z)) for z in levels])
    inverse = torch.linalg.inv(affine)
    voxel = world @ inverse[:3, :3].T + inverse[:3, 3]
    scale = 2 / (torch.tensor(masks.shape[1:]) - 1)
    points = (voxel * scale - 1).float().flip(-1)
    points = points[None] if dims == 2 else points
    soft = functional.avg_pool3d(masks[None].float(), 3, 1, 1)
    at = functional.grid_sample(soft, points, align_corners=True)[0]
    return at.movedim(1, 0) if dims == 2 else at[None]


def _world(size: int, dims: int, level: float) -> Float[Tensor, "*space 3"]:
    """World coordinates in mm of every pixel."""
    space = [size] * dims
    p = geometry.identity(tuple(space), torch.zeros(1, dtype=torch.float64))[0].movedim(0, -1)
    p = p if dims == 3 else torch.cat([p, torch.zeros(*space, 1, dtype=torch.float64)], -1)
    affine = template.affine(size, dims, level).double()
    return p @ affine[:3, :3].T + affine[:3, 3]


@lru_cache(maxsize=2)
def _masks(path: Path) -> tuple[Bool[Tensor, "k x y z"], Float[Tensor, "4 4"]]:
    """All masks of a file, and their affine."""
    try:
        with np.load(path, allow_pickle=False) as file:
            shape = tuple(file["shape"].tolist())
            bits = np.unpackbits(file["packed"], axis=1)[:, : int(np.prod(shape[1:]))]
            return torch.from_numpy(bits.reshape(shape).astype(bool)), torch.from_numpy(file["affine"]).double()
    except (OSError, KeyError, ValueError) as error:
        wanted = "expected an .npz of packed masks with `packed`, `shape` and `affine`"
        raise InputError(f"lesions: {wanted}, got {path} ({error})") from error


def drawn(cohort: Cohort, ink: Soft, value: float | Float[Tensor, "n 1 *_"]) -> Cohort:
    """Images with lesions drawn on them inside their mask, and what was drawn as their `lesion`."""
    assert cohort.mask is not None
    ink = torch.where(cohort.mask & (ink > _FAINT), ink, 0.0)
    base = geometry.smooth(cohort.x, _GRAIN * cohort.space[0] / template.FIELD_OF_VIEW)
    x = torch.where(ink > 0, (cohort.x + ink * (value - base)).clamp(-1, 1), cohort.x)
    return cohort.replace(x=x, lesion=ink > 0.5)

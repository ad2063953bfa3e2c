"""Simulated brains with a bright lesion whose readers follow a known law: what masks an image has is known exactly.

The subjects are those of `cfx.data.brain` without disease, at half their brightness, so that no tissue is above 0. In
each lies one lesion whose contrast, softness, size and outline differ. Readers see the image alone. With y the image x
smoothed by 2.2 mm and t = max y, reader j

    draws nothing with probability 1 - p,   p = min(1, max(0, t) / .8);
    else draws { v : y(v) > t (.5 + .22 u_j + .13 z_j(v)) },   u_j uniform on [-1, 1], z_j a normal field
                                                               correlated over 6 mm, cut at -2 and 2.

The threshold lies in [.02 t, .98 t]. So whoever draws, draws the brightest voxel and no tissue, and an empty mask has
exactly the probability 1 - p. Contrast decides who draws at all, softness how far outlines are apart; the field makes
masks cross that a threshold alone would nest. All that is random given x is the readers' own: this law is the
distribution of masks given the image, noise and all, and `true_masks` draws from it as often as asked. A sampler that
is told x alone can be exactly right.
"""

import math
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cfx.core import geometry
from cfx.core.axes import RAS
from cfx.core.broadcast import each
from cfx.core.cohort import Cohort
from cfx.core.random import normal, uniform
from cfx.data import template
from cfx.data.brain import BrainConfig, Population
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.planted_lesions import centres, drawn
from cfx.data.subjects import Factors

SURE = 0.8
"""Brightness from which every reader draws."""
_MIDDLE, _OFFSET, _FIELD = 0.5, 0.22, 0.13  # of the brightest value: threshold, and how far readers move it
_CUT = 2.0  # most of a standard deviation by which the field moves it
_SEEN, _REACH = 2.2, 6.0  # mm by which readers smooth, and over which their fields are correlated
_VALUE, _RADIUS, _EDGE = (0.2, 0.95), (9.0, 18.0), (1.5, 7.0)  # intensity, mm, mm over which the edge's logit changes
_WOBBLE, _WAVES = 2.5, 9.0  # mm by which the outline is off a circle, and over which it is
_MARKS, _WOBBLES, _OFFSETS, _FIELDS = 940, 941, 942, 943  # streams
_NUMBERS = 20  # bits of a reader's number
_VALUES = 1 << 24  # of fields drawn at a time

Map = Float[Tensor, "n 1 *space"]
Masks = Bool[Tensor, "n s *space"]


class BrainReadersConfig(BaseModel):
    """Simulated brains with a lesion, and masks of readers who follow a known law."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["brain-readers"] = "brain-readers"
    n: int = Field(default=256, ge=1)
    """Number of subjects."""
    seed: int = Field(default=0, ge=0)
    """Seed of the subjects and their lesions."""
    start: int = Field(default=0, ge=0)
    """Index of the first subject: disjoint ranges of one seed are disjoint subjects."""
    size: int = Field(default=64, ge=16, le=256)
    """Pixels along an edge of the 204.8 mm field."""
    dims: Literal[2, 3] = 2
    """2: axial slices; 3: volumes."""
    readers: int = Field(default=4, ge=1, le=1024)
    """Readers an image."""
    reader_seed: int = Field(default=0, ge=0)
    """Seed of what readers do; the images do not depend on it."""
    lazy: bool = False
    """Render a subject when it is asked for, instead of all at once (`cfx train`)."""

    @property
    def spacing(self) -> float:
        """Edge of a pixel in mm."""
        return template.FIELD_OF_VIEW / self.size


def open_brain_readers(config: BrainReadersConfig) -> LazyCohort:
    """The images, each rendered when asked for.

    Returns:
        A source of `x`, the shape that the `lesion` was drawn with, the brain's `mask`, `readings` and affines.
    """
    people = Population(
        BrainConfig(n=config.n, seed=config.seed, start=config.start, size=config.size, dims=config.dims)
    )
    index = torch.arange(config.start, config.start + config.n)
    f = people.factors(index)
    f = replace(f, severity=torch.zeros_like(f.severity))

    def read(rows: slice) -> Columns:
        brain, x, ink = _rendered(people, f[rows])
        affines = torch.stack([template.affine(config.size, config.dims, float(z)) for z in f.level[rows]])
        return {
            "x": x, "mask": brain, "lesion": brain & (ink > 0.5), "affine": affines,
            "spacing": torch.full((len(affines), config.dims), config.spacing),
            "readings": true_masks(x, config.readers, config, row=index[rows]),
        }  # fmt: skip

    axes = ("back", "right") if config.dims == 2 else RAS
    return LazyCohort(read, tuple(f"brain-readers-{config.seed}-{i}" for i in index.tolist()), axes=axes)


def _rendered(people: Population, f: Factors) -> tuple[Bool[Tensor, "n 1 *space"], Map, Map]:
    """Brain masks, images at half their brightness with a lesion each, and the share of a voxel that is lesion."""
    found = people.render(f)
    u = uniform((3,), seed=people.config.seed, row=f.index, stream=_MARKS)
    value, radius, edge = (each(a + (b - a) * u[:, k], found.x) for k, (a, b) in enumerate((_VALUE, _RADIUS, _EDGE)))
    offset = geometry.identity(tuple(found.x.shape[2:]), found.x) - each(centres("white", people, f), found.x)
    away = offset.norm(dim=1, keepdim=True)
    wobble = _WOBBLE * _field(found.x[:, :1], _WAVES / people.grid.spacing, people.config.seed, f.index, _WOBBLES)
    ink = torch.sigmoid((radius - away * people.grid.spacing + wobble) / edge)
    return found.brain, drawn(Cohort(x=found.x / 2 - 0.5, mask=found.brain), ink, value).x, ink


def _field(like: Tensor, sigma: float, seed: int, row: Int[Tensor, " n"], stream: int) -> Map:
    """Normal fields of variance one (that of smoothed white noise is (2 sqrt(pi) sigma)^-d), correlated over sigma."""
    space = tuple(like.shape[2:])
    white = normal((1, *space), seed=seed, row=row, stream=stream)
    return geometry.smooth(white, sigma) * math.pow(2 * math.sqrt(math.pi) * sigma, len(space) / 2)


def visible(x: Map, config: BrainReadersConfig) -> Map:
    """What readers see: the image smoothed."""
    return geometry.smooth(x, _SEEN / config.spacing)


def drawing_probability(x: Map, config: BrainReadersConfig) -> Float[Tensor, " n"]:
    """The probability p that a reader draws anything on each of these images; of an empty mask it is 1 - p.

    Args:
        x: Images on the grid of `config`.
        config: Which grid.
    """
    return (visible(x, config).flatten(1).amax(1) / SURE).clamp(0, 1)


def true_masks(x: Map, count: int, config: BrainReadersConfig, *, row: Int[Tensor, " n"], first: int = 0) -> Masks:
    """Independent masks from the law, given the images: what `readings` hold, and as many more as wanted.

    Args:
        x: Images on the grid of `config`.
        count: Masks an image.
        config: Which grid, and which `reader_seed`.
        row: Counter of every image: the index of its subject, for its readers.
        first: Number of the first reader; the cohort's own are 0 .. `readers` - 1, those from `readers` on are further
            ones, independent of these.
    """
    y, p = visible(x, config), drawing_probability(x, config)
    reader = first + torch.arange(count)
    step = max(1, _VALUES // (count * x[0].numel()))
    parts = [
        _masks(y[i : i + step], p[i : i + step], (row[i : i + step, None] << _NUMBERS) + reader, config)
        for i in range(0, len(x), step)
    ]
    return torch.cat(parts)


def _masks(y: Tensor, p: Float[Tensor, " n"], counter: Int[Tensor, "n s"], config: BrainReadersConfig) -> Masks:
    """Masks of readers of these counters."""
    seed, flat = config.reader_seed, counter.flatten()
    u = uniform((2,), seed=seed, row=flat, stream=_OFFSETS).view(*counter.shape, 2)
    field = (
        _field(y, _REACH / config.spacing, seed, flat, _FIELDS).clamp(-_CUT, _CUT).view(*counter.shape, *y.shape[2:])
    )
    share = _MIDDLE + _OFFSET * each(2 * u[..., 1] - 1, field) + _FIELD * field
    draws = u[..., 0] < p[:, None]
    return (y > share * each(y.flatten(1).amax(1), y)) & each(draws, field)

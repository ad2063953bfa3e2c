"""Images for the readers' masks: a lesion in lung tissue, drawn from a hidden shape of its own.

The database has no pixels. An image drawn from the readers' masks would be the answer, not a question; so each slice
has a hidden shape of its own, as a fifth reader might have drawn it. In mm, with d_j the signed distance of the mask of
each reader who drew this slice, positive inside,

    h = mean d_j + .3 z_1 + .45 z_2(v)                    z_1 normal; z_2 a normal field, correlated over 4 mm
    m = sigmoid( h / w ),  w = (.3 + .3 s) exp(.3 z_3)    s: standard deviation of the d_j near the outline
    image = blur( lung + c m (soft tissue - lung) ) + noise,   c = (.25 + .75 share of readers who drew) exp(.25 z_4)

with vessels and grain in the lung. Noise, z_1 and the field are a slice's own; z_3, z_4 and the lung a lesion's.

What leaks, on purpose, since real images show it too: where the readers' mean outline is, to about half a mm; how far
readers differ, in the softness of the edge; how many drew, in the contrast; the last two only roughly. Who drew what
does not. No image comes from a patient: figures on these say what a sampler does with real disagreement, not how it
reads a CT.
"""

import math
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from cfx.core.broadcast import each
from cfx.core.distance import signed_distance
from cfx.core.geometry import smooth
from cfx.core.random import normal, uniform

WINDOW = (-1000.0, 400.0)
"""Hounsfield units that become -1 and 1."""
_LUNG, _TISSUE, _VESSEL = -850.0, 30.0, -50.0  # Hounsfield units
OFFSET, FIELD, REACH = 0.3, 0.45, 4.0
"""How far the hidden outline is from the readers' mean, in mm: as a whole, in parts, and how far these reach."""
_RIM = 1.5  # mm from the outline within which readers are compared
_BLUR, _GRAIN, _NOISE = 0.6, 3.0, 25.0  # mm, mm, Hounsfield units
_VESSELS = 3
_LESION, _SLICE = 920, 930  # streams

Map = Float[Tensor, "n 1 h w"]


@dataclass(frozen=True)
class Rows:
    """What is drawn.

    Attributes:
        masks: Readers' masks; every row has one that is not empty.
        lesion: Counter of every row's lesion.
        row: Counter of every row.
        spacing: Edge of a pixel in mm.
        seed: Seed of all that is drawn.
    """

    masks: Bool[Tensor, "n reader h w"]
    lesion: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    spacing: float
    seed: int

    def __getitem__(self, rows: slice) -> Self:
        """Some of them."""
        return type(self)(self.masks[rows], self.lesion[rows], self.row[rows], self.spacing, self.seed)

    def of_lesion(self, k: int) -> Float[Tensor, "n k"]:
        """Normals of the lesion."""
        return normal((k,), seed=self.seed, row=self.lesion, stream=_LESION)

    def field(self, reach: float, stream: int) -> Map:
        """A standard normal field of the slice, correlated over `reach` mm."""
        sigma = reach / self.spacing
        white = normal((1, *self.masks.shape[2:]), seed=self.seed, row=self.row, stream=_SLICE + stream)
        return smooth(white, sigma) * 2 * math.sqrt(math.pi) * sigma


def render(rows: Rows) -> tuple[Map, Bool[Tensor, "n 1 h w"]]:
    """Images in [-1, 1], and the hidden shapes."""
    hidden, softness = _hidden(rows)
    lung_level, edge, contrast = rows.of_lesion(3).unbind(1)
    share = rows.masks.flatten(2).any(2).float().mean(1)
    seen = each((0.25 + 0.75 * share) * torch.exp(0.25 * contrast), hidden).clamp(max=1)
    ink = torch.sigmoid(hidden / (softness * each(torch.exp(0.3 * edge), hidden)))
    lung = _lung(rows, each(lung_level, hidden))
    image = smooth(lung + seen * ink * (_TISSUE - lung), _BLUR / rows.spacing)
    noise = normal(tuple(hidden.shape[1:]), seed=rows.seed, row=rows.row, stream=_SLICE)
    low, high = WINDOW
    return ((image + _NOISE * noise - low) / (high - low) * 2 - 1).clamp(-1, 1), hidden > 0


def _hidden(rows: Rows) -> tuple[Map, Float[Tensor, "n 1 1 1"]]:
    """Signed distance of the hidden shape in mm, positive inside, and the softness w of its edge."""
    drew = rows.masks.flatten(2).any(2)
    distance = torch.zeros(rows.masks.shape)
    framed = functional.pad(rows.masks[drew][:, None], [1] * 4)  # so that a mask of the whole grid has an outside
    distance[drew] = -signed_distance(framed)[:, 0, 1:-1, 1:-1] * rows.spacing
    count = each(drew.sum(1), distance)
    mean = distance.sum(1, keepdim=True) / count
    apart = ((distance - mean).square() * drew[:, :, None, None]).sum(1, keepdim=True) / count
    rim = mean.abs() < max(_RIM, rows.spacing)
    spread = ((apart * rim).flatten(1).sum(1) / rim.flatten(1).sum(1).clamp(min=1)).sqrt()
    offset = OFFSET * normal((1,), seed=rows.seed, row=rows.row, stream=_SLICE + 1)[:, 0]
    hidden = mean + each(offset, mean) + FIELD * rows.field(REACH, 2)
    return hidden, each(0.3 + 0.3 * spread, mean)


def _lung(rows: Rows, level: Tensor) -> Map:
    """Lung tissue with vessels, in Hounsfield units."""
    h, w = rows.masks.shape[2:]
    u = uniform((_VESSELS, 3), seed=rows.seed, row=rows.row, stream=_SLICE + 3)
    y, x = (torch.arange(k) * rows.spacing for k in (h, w))
    down, right = (u[:, :, i, None] * k * rows.spacing for i, k in ((0, h), (1, w)))
    away = ((y - down).square()[:, :, :, None] + (x - right).square()[:, :, None]).sqrt()
    ink = torch.sigmoid((1 + 1.5 * u[:, :, 2, None, None] - away) / 0.3).amax(1, keepdim=True)
    lung = _LUNG + 40 * level + 40 * rows.field(_GRAIN, 4)
    return lung + ink * (_VESSEL - lung)

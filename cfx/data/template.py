"""The MNI152 template (T1, grey and white matter) on the grid the simulated cohort is rendered on.

nilearn ships the ICBM152 2009a nonlinear symmetric average (Fonov et al. 2011) as 1 mm maps. Here they are resampled to
a square (2D axial slices) or cubic field of view of 204.8 mm centred on the brain, and two maps are added: the signed
distance to the lateral ventricles, and a prior for white-matter lesions (deep, periventricular white matter).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from cfx.core.broadcast import each

FIELD_OF_VIEW = 204.8
"""Edge of the rendered field in mm."""
CENTRE = (0.0, -18.0, 6.0)
"""World coordinates (x, y, z) in mm of the field's centre."""
LEVELS = (4.0, 26.0)
"""Range of axial slice levels z in mm: all cut the lateral ventricles."""
CHANNELS = ("t1", "gm", "wm", "ventricle_distance", "lesion_prior")

_SPACING = 2.0  # mm at which the template is prepared; finer than any grid that is rendered, but for 128 x 128
_LEVEL_STEP = 2.0

_Volume = tuple[Float[Tensor, "5 _ _ _"], tuple[float, float, float]]


@dataclass(frozen=True)
class Template:
    """Template maps on a rendering grid.

    Attributes:
        maps: `(levels, 5, *space)`, channels as in `CHANNELS`; 3D has one level. Distances are in mm.
        levels: Slice levels in mm of a 2D template; empty in 3D.
        spacing: Pixel size in mm.
    """

    maps: Float[Tensor, "levels 5 *space"]
    levels: tuple[float, ...]
    spacing: float

    def at(self, level: Float[Tensor, " n"]) -> Float[Tensor, "n 5 *space"]:
        """Maps of `n` subjects: interpolated between slices in 2D, the one volume in 3D (levels ignored)."""
        if not self.levels:
            return self.maps.expand(len(level), *self.maps.shape[1:])
        place = ((level - self.levels[0]) / _LEVEL_STEP).clamp(0, len(self.levels) - 1 - 1e-4)
        below = place.floor().long()
        w = each(place - below, self.maps)
        return (1 - w) * self.maps[below] + w * self.maps[below + 1]


@lru_cache(maxsize=8)
def template(size: int, dims: int, ends: tuple[float, float] = LEVELS) -> Template:
    """The template on a grid of `size` pixels an edge, in 2 or 3 dimensions; `ends`: lowest and highest slice in mm."""
    spacing = FIELD_OF_VIEW / size
    offsets = (np.arange(size) - (size - 1) / 2) * spacing
    volume = _volume()
    blur = 0.35 * spacing / _SPACING
    if dims == 3:
        volume = _blurred(volume, (blur, blur, blur))
        maps = _sample(volume, *(c + offsets for c in CENTRE))[None]
        return Template(maps, (), spacing)
    volume = _blurred(volume, (blur, blur, 0.0))
    levels = tuple(np.arange(ends[0], ends[1] + _LEVEL_STEP, _LEVEL_STEP).tolist())
    maps = _sample(volume, CENTRE[0] + offsets, CENTRE[1] - offsets, np.asarray(levels))
    return Template(maps.permute(3, 0, 2, 1).contiguous(), levels, spacing)  # rows run from anterior to posterior


def affine(size: int, dims: int, level: float = 0.0) -> Float[Tensor, "4 4"]:
    """Pixel-to-world matrix in mm: 3D takes (i, j, k, 1) in RAS order, 2D takes (row, column, 0, 1)."""
    s = FIELD_OF_VIEW / size
    first = (size - 1) / 2 * s
    x, y, z = CENTRE
    if dims == 3:
        rows = [[s, 0, 0, x - first], [0, s, 0, y - first], [0, 0, s, z - first], [0, 0, 0, 1]]
    else:
        rows = [[0, s, 0, x - first], [-s, 0, 0, y + first], [0, 0, 1, level], [0, 0, 0, 1]]
    return torch.tensor(rows, dtype=torch.float32)


@lru_cache(maxsize=1)
def _volume() -> _Volume:
    """All template maps at 2 mm and the world coordinates of the first voxel."""
    from nilearn import datasets

    loaders = (datasets.load_mni152_template, datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    images = [load(resolution=1) for load in loaders]
    first = tuple(float(c) for c in images[0].affine[:3, 3])
    t1, gm, wm = (ndimage.gaussian_filter(im.get_fdata(dtype=np.float32), 0.5)[::2, ::2, ::2] for im in images)
    distance = ndimage.gaussian_filter(_ventricle_distance(t1, gm, wm, first), 1.0)
    deep = np.exp(-(((distance - 8.0) / 5.0) ** 2)) * (wm > 0.75) * (distance > 2.0)
    maps = np.stack([t1, gm, wm, distance, deep]).astype(np.float32)
    return torch.from_numpy(maps), (first[0], first[1], first[2])


def _ventricle_distance(t1: np.ndarray, gm: np.ndarray, wm: np.ndarray, first: tuple[float, ...]) -> np.ndarray:
    """Signed distance in mm to the lateral ventricles (negative inside): the large CSF spaces deep in the brain."""
    brain = t1 > 0.05
    csf = brain & (gm + wm < 0.5)
    x, y, z = (first[k] + _SPACING * np.arange(n) for k, n in enumerate(t1.shape))
    near = (np.abs(x) < 32)[:, None, None] & ((y > -52) & (y < 34))[None, :, None] & ((z > -6) & (z < 34))[None, None]
    deep = ndimage.distance_transform_edt(brain) * _SPACING > 22
    third = ((np.abs(x) < 3)[:, None, None]) & ((z < 4) & (z > -8))[None, None]
    pieces, _ = ndimage.label(csf & near & deep & ~third)
    sizes = np.bincount(pieces.ravel())[1:]
    ventricles = np.isin(pieces, 1 + np.flatnonzero(sizes > 150))
    outside: np.ndarray = ndimage.distance_transform_edt(~ventricles) - ndimage.distance_transform_edt(ventricles)
    return (_SPACING * outside).astype(np.float32)


def _blurred(volume: _Volume, sigma: tuple[float, ...]) -> _Volume:
    """The maps smoothed against aliasing, `sigma` in voxels of the prepared template."""
    maps = np.stack([ndimage.gaussian_filter(m, sigma) for m in volume[0].numpy()])
    return torch.from_numpy(maps), volume[1]


def _sample(volume: _Volume, x: np.ndarray, y: np.ndarray, z: np.ndarray) -> Float[Tensor, "5 x y z"]:
    """The maps at world coordinates (outer product of the three axes), 0 outside the template."""
    maps, first = volume
    axes = []
    for world, start, n in zip((x, y, z), first, maps.shape[1:], strict=True):
        axes.append(torch.as_tensor((world - start) / _SPACING * 2 / (n - 1) - 1, dtype=torch.float32))
    grid = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flip(-1)[None]
    out = F.grid_sample(maps[None], grid, mode="bilinear", padding_mode="zeros", align_corners=True)[0]
    far = F.grid_sample(maps[None, 3:4], grid, mode="bilinear", padding_mode="border", align_corners=True)[0]
    out[3] = far[0]  # a distance must not drop to zero outside
    return out

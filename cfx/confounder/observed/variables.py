"""What can be read off an image without any model: size and shape of its mask, intensity, noise, sharpness, spacing.

Classes that differ in one of these can be told apart by it. Everything is computed for the whole cohort at once, in 2D
and 3D alike.

References: Immerkaer (1996), "Fast noise variance estimation", with the median in place of the mean, in d dimensions;
von Neumann (1941) for the ratio of successive differences.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.components import components
from cfx.core.distance import signed_distance
from cfx.core.geometry import identity

SHAPE_SCORES = 3
"""Principal components of the signed distance that count as variables."""

_VOXELS = 1 << 24  # of images worked on at a time
_SIDE = 32  # most voxels along an axis of the masks whose signed distance is analysed
_ROUNDING = 1e-6  # variation this small, relative to the values, is none
_GAUSSIAN_MEDIAN = 0.6744897501960817  # median of |z|, z standard normal


def image_variables(cohort: Cohort) -> dict[str, Float[Tensor, " n"]]:
    """Variables of the images of a cohort by name, float64; NaN where a row has no value.

    - `volume`: of the mask, in mm^d, or voxels where the spacing is unknown.
    - `extent_i`: standard deviation of the mask along axis i over its geometric mean over axes; `shear_ij`: correlation
      of the coordinates i and j in the mask.
    - `shape_k`: scores, of unit variance, of the first principal components of the mask's signed distance.
    - `mean`, `sd`: intensity inside the mask; `outside_mean`, `outside_sd`: outside it.
    - `noise`: standard deviation of white noise, in units of intensity.
    - `sharpness`: mean squared difference of neighbours over twice the variance inside the mask: 0 smooth, 1 white.
    - `spacing_i`: of the voxels, in mm.

    Without a mask the whole image is inside, and there is no volume, shape or outside. Images of several channels have
    intensity, noise and sharpness of each (`mean_0`, ...).

    Raises:
        InputError: a mask that is empty or full.
    """
    rows = torch.arange(len(cohort)).split(max(1, _VOXELS // math.prod(cohort.x.shape[1:])))
    parts = [_of_rows(cohort[r]) for r in rows]
    found = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    if cohort.mask is None:
        return found
    return found | {f"shape_{k + 1}": score for k, score in enumerate(_scores(cohort.mask).unbind(1))}


def _of_rows(cohort: Cohort) -> dict[str, Float[Tensor, " n"]]:
    """All variables but those that compare the rows with each other."""
    x, mask = cohort.x.double(), cohort.mask
    inside = torch.ones_like(cohort.x[:, :1], dtype=torch.bool) if mask is None else mask
    found = {} if mask is None else _moments_of_shape(mask, cohort.spacing)
    for c in range(x.shape[1]):
        suffix = "" if x.shape[1] == 1 else f"_{c}"
        found |= {name + suffix: value for name, value in _intensity(x[:, c : c + 1], inside).items()}
        if mask is not None:
            found["outside_mean" + suffix], found["outside_sd" + suffix] = _moments(x[:, c : c + 1], ~inside)
    if cohort.spacing is not None:
        found |= {f"spacing_{i}": value.double() for i, value in enumerate(cohort.spacing.unbind(1))}
    return found


def coarse(x: Float[Tensor, "n c *space"], side: int) -> Float[Tensor, "n c *coarse"]:
    """Images averaged down to at most `side` voxels along each axis."""
    size = [min(side, n) for n in x.shape[2:]]
    if len(size) == 2:
        return F.adaptive_avg_pool2d(x, (size[0], size[1]))
    return F.adaptive_avg_pool3d(x, (size[0], size[1], size[2]))


def _moments_of_shape(mask: Bool[Tensor, "n 1 *space"], spacing: Float[Tensor, "n d"] | None) -> dict[str, Tensor]:
    space = tuple(mask.shape[2:])
    d = len(space)
    step = torch.ones(len(mask), d, dtype=torch.float64) if spacing is None else spacing.double()
    weight = mask.flatten(1).double()
    count = weight.sum(1)
    p = identity(space, weight).flatten(2)[0]  # (axis, voxel)
    mean = weight @ p.T / count[:, None]
    second = (weight @ (p[:, None] * p).flatten(0, 1).T).view(-1, d, d) / count[:, None, None]
    cov = (second - mean[:, :, None] * mean[:, None]) * step[:, :, None] * step[:, None]
    sd = cov.diagonal(dim1=1, dim2=2).sqrt()
    extent = sd / sd.log().mean(1, keepdim=True).exp()
    found = {"volume": count * step.prod(1)}
    found |= {f"extent_{i}": extent[:, i] for i in range(d)}
    return found | {f"shear_{i}{j}": cov[:, i, j] / (sd[:, i] * sd[:, j]) for i in range(d) for j in range(i + 1, d)}


def _scores(mask: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n k"]:
    """Scores of the first principal components of the signed distance, each of unit variance."""
    small = coarse(mask.float(), _SIDE) > 0.5
    s = signed_distance(small).flatten(1).double()
    found = components(s, least=_ROUNDING * float(s.square().mean(0).sum().sqrt()), most=SHAPE_SCORES)
    return found.scores(s) / found.spread


def _intensity(x: Float[Tensor, "n 1 *space"], inside: Bool[Tensor, "n 1 *space"]) -> dict[str, Tensor]:
    mean, sd = _moments(x, inside)
    found = {"mean": mean, "sd": sd, "noise": _noise(x, inside), "sharpness": _roughness(x, inside) / sd.square()}
    return {name: value.where(value.isfinite(), torch.nan) for name, value in found.items()}


def _moments(x: Tensor, where: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Mean and standard deviation over a region; NaN where it is empty."""
    weight, values = where.flatten(1).double(), x.flatten(1)
    count = weight.sum(1)
    mean = (weight * values).sum(1) / count
    return mean, ((weight * (values - mean[:, None]).square()).sum(1) / count).sqrt()


def _noise(x: Float[Tensor, "n 1 *space"], inside: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, " n"]:
    """Median absolute second difference along all axes, where the whole stencil lies inside; 0 for planes."""
    d = x.ndim - 2
    outside = (~inside).double()
    pool = F.max_pool2d if d == 2 else F.max_pool3d
    clear = pool(outside, kernel_size=3, stride=1) == 0
    for axis in range(2, 2 + d):
        x = x.diff(n=2, dim=axis)
    size = x.abs().where(clear, torch.nan).flatten(1).nanmedian(1).values
    return size / (_GAUSSIAN_MEDIAN * math.sqrt(6.0**d))


def _roughness(x: Float[Tensor, "n 1 *space"], inside: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, " n"]:
    """Half the mean squared difference of neighbours that both lie inside, averaged over axes."""
    each = []
    for axis in range(2, x.ndim):
        n = x.shape[axis]
        both = inside.narrow(axis, 0, n - 1) & inside.narrow(axis, 1, n - 1)
        weight = both.flatten(1).double()
        each.append((weight * x.diff(dim=axis).flatten(1).square()).sum(1) / weight.sum(1) / 2)
    return torch.stack(each).mean(0)

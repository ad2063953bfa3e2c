"""Deformations of images in two and three dimensions.

A displacement u `(b, d, *space)` in voxels stands for the map phi(p) = p + u(p); component i moves along array axis i.
Warping pulls back: (x o phi)(p) = x(p + u(p)). A stationary velocity field v generates phi = exp(v), the flow of v at
time one, by scaling and squaring (Arsigny et al. 2006, "A log-Euclidean framework for statistics on
diffeomorphisms"); exp(-v) is its inverse.

`warp` interpolates linearly, which is safe (no overshoot) and blurs. `spline` interpolates by the cubic B-spline
through the voxels, which keeps most of what is fine: coefficients c with c * [1/6, 2/3, 1/6] = x along every axis
(Unser, Aldroubi and Eden 1993, "B-spline signal processing": the inverse is sqrt(3) z^|k|, z = sqrt(3) - 2, here cut
off at `_POLE_TAPS`), then the sum of 4^d weighted coefficients as 2^d linear samples at shifted places (Sigg and
Hadwiger 2005, "Fast third-order texture filtering").
"""

import math
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.errors import InputError

_POLE_TAPS = 12  # of the filter to coefficients: what is cut off is below 2e-7 of the centre
_MARGIN = 2  # voxels of coefficients beyond the grid that a sample at its edge needs


def identity(space: tuple[int, ...], like: Tensor) -> Float[Tensor, "1 d *space"]:
    """Voxel coordinates `(1, d, *space)` of a grid, on the device and in the dtype of `like`."""
    axes = [torch.arange(n, device=like.device, dtype=like.dtype) for n in space]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def warp(
    x: Float[Tensor, "b c *space"], u: Float[Tensor, "b d *space"], *, padding: str = "border"
) -> Float[Tensor, "b c *space"]:
    """The image x o phi, sampled linearly at p + u(p).

    Args:
        x: Images.
        u: Displacements in voxels.
        padding: `border` repeats the edge outside the grid, `zeros` puts 0 there.

    Raises:
        InputError: `u` has not one component a spatial axis, or other rows or another grid than `x`.
    """
    space = x.shape[2:]
    expected = (len(x), len(space), *space)
    if tuple(u.shape) != expected:
        raise InputError(f"u: expected shape {expected} for these images, got {tuple(u.shape)}")
    size = torch.tensor(space, device=u.device, dtype=u.dtype).view(1, -1, *[1] * len(space))
    p = (identity(tuple(space), u) + u) * (2 / (size - 1)) - 1
    grid = p.flip(1).movedim(1, -1)  # grid_sample names the last axis first
    out: Tensor = F.grid_sample(x, grid, mode="bilinear", padding_mode=padding, align_corners=True)
    return out


def spline(x: Float[Tensor, "b c *space"], u: Float[Tensor, "b d *space"]) -> Float[Tensor, "b c *space"]:
    """The image x o phi, by the cubic B-spline through its voxels; the edge is repeated outside the grid.

    May overshoot by a few percent of a step: clamp where the range matters. At u = 0 it is x, to within 1e-5.

    Args:
        x: Images.
        u: Displacements in voxels.

    Raises:
        InputError: as `warp`.
    """
    space = tuple(x.shape[2:])
    d, expected = len(space), (len(x), len(space), *space)
    if tuple(u.shape) != expected:
        raise InputError(f"u: expected shape {expected} for these images, got {tuple(u.shape)}")
    p, ends = identity(space, u) + u, torch.tensor(space).to(u).view(1, -1, *[1] * d) - 1
    places, weights = _pairs(torch.minimum(p.clamp_min(0), ends))
    c, out = _coefficients(x), torch.zeros_like(x)
    for corner in product((0, 1), repeat=d):
        q = torch.stack([places[high][:, i] for i, high in enumerate(corner)], 1)
        weight = torch.stack([weights[high][:, i] for i, high in enumerate(corner)], 1).prod(1, keepdim=True)
        grid = q.flip(1).movedim(1, -1) / (ends.flip(1).movedim(1, -1) / 2 + _MARGIN) - 1
        out = out + weight * F.grid_sample(c, grid, mode="bilinear", align_corners=True)
    return out


def _pairs(p: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Where, on the wider grid, two linear samples along an axis hold the four neighbours of p, and their weights."""
    whole = p.floor()
    t = p - whole
    first, last = (1 - t) ** 3 / 6, t**3 / 6
    lower = first + (3 * t**3 - 6 * t**2 + 4) / 6
    upper = 1 - lower
    return (whole + _MARGIN - first / lower, whole + _MARGIN + 1 + last / upper), (lower, upper)


def _coefficients(x: Tensor) -> Tensor:
    """B-spline coefficients on a grid that is `_MARGIN` voxels wider on every side."""
    taps = torch.arange(-_POLE_TAPS, _POLE_TAPS + 1, device=x.device, dtype=x.dtype)
    kernel = 3**0.5 * (3**0.5 - 2) ** taps.abs()
    return _convolved(x, kernel / kernel.sum(), _POLE_TAPS + _MARGIN)


def compose(u: Float[Tensor, "b d *space"], w: Float[Tensor, "b d *space"]) -> Float[Tensor, "b d *space"]:
    """Displacement of phi_u o phi_w: p -> phi_u(phi_w(p)), so x o (phi_u o phi_w) = warp(warp(x, u), w)."""
    return w + warp(u, w)


def exponential(v: Float[Tensor, "b d *space"], *, largest_step: float = 0.25) -> Float[Tensor, "b d *space"]:
    """Displacement of exp(v) by scaling and squaring.

    Args:
        v: Stationary velocity field, voxels per unit time.
        largest_step: The field is halved until no vector is longer than this many voxels.

    Raises:
        InputError: `v` has NaN or infinite values.
    """
    longest = v.detach().square().sum(1).sqrt().flatten(1).amax(1)
    if not torch.isfinite(longest).all():
        raise InputError("v: expected finite velocities, got NaN or infinite values")
    halvings = each(torch.ceil(torch.log2(longest.clamp_min(1e-12) / largest_step)).clamp_min(0), v)
    u = v / 2**halvings
    for k in range(int(halvings.max())):
        u = torch.where(halvings > k, compose(u, u), u)
    return u


def jacobian_determinant(u: Float[Tensor, "b d *space"]) -> Float[Tensor, "b *cells"]:
    """Determinant of D phi by forward differences, one cell less along each axis.

    A value <= 0 is a fold. Central differences miss checkerboard folds (Liu et al. 2024), forward ones do not.
    """
    d = u.shape[1]
    columns = [torch.diff(u, dim=2 + axis)[_shorten(d, axis)] for axis in range(d)]
    j = [[columns[axis][:, i] + float(i == axis) for axis in range(d)] for i in range(d)]
    if d == 2:
        return j[0][0] * j[1][1] - j[0][1] * j[1][0]
    minors = [j[1][a] * j[2][b] - j[1][b] * j[2][a] for a, b in ((1, 2), (2, 0), (0, 1))]
    return j[0][0] * minors[0] + j[0][1] * minors[1] + j[0][2] * minors[2]


def log_jacobian(u: Float[Tensor, "b d *space"]) -> Float[Tensor, "b 1 *space"]:
    """Logarithm of the forward-difference determinant at every voxel; the last along an axis repeats the one before.

    Folds, which have no logarithm, count as a volume of one thousandth.
    """
    j = jacobian_determinant(u)[:, None].clamp_min(1e-3).log()
    return F.pad(j, [0, 1] * u.shape[1], mode="replicate")


def _shorten(d: int, axis: int) -> tuple[slice, ...]:
    """Drop the last cell along every spatial axis but `axis`, which the difference has shortened already."""
    return (slice(None), slice(None), *[slice(None) if k == axis else slice(0, -1) for k in range(d)])


def gradient(f: Float[Tensor, "b 1 *space"]) -> Float[Tensor, "b d *space"]:
    """Spatial gradient of a scalar map by central differences (one-sided at the border), per voxel."""
    d = f.ndim - 2
    return torch.cat(torch.gradient(f, dim=list(range(2, 2 + d))), dim=1)


def smooth(x: Float[Tensor, "b c *space"], sigma: float) -> Float[Tensor, "b c *space"]:
    """Gaussian smoothing with standard deviation `sigma` voxels, edges repeated."""
    if sigma <= 0:
        return x
    radius = max(1, math.ceil(3 * sigma))
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    kernel = torch.exp(-(taps**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    return _convolved(x, kernel, radius)


def _convolved(x: Tensor, kernel: Float[Tensor, " taps"], margin: int) -> Tensor:
    """The images filtered along every axis in turn, their edges repeated `margin` voxels outwards.

    As weighted sums of shifted images, which on a CPU is several times faster than a convolution of lines.
    """
    weights = kernel.tolist()
    for axis in range(2, x.ndim):
        ends = x.narrow(axis, 0, 1), x.narrow(axis, x.shape[axis] - 1, 1)
        first, last = (end.repeat_interleave(margin, axis) for end in ends)
        wide = torch.cat([first, x, last], axis)
        length = wide.shape[axis] - len(weights) + 1
        x = weights[0] * wide.narrow(axis, 0, length)
        for k, weight in enumerate(weights[1:], 1):
            x = torch.add(x, wide.narrow(axis, k, length), alpha=weight)
    return x

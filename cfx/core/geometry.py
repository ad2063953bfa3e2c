"""Deformations of images in two and three dimensions.

A displacement u `(b, d, *space)` in voxels stands for the map phi(p) = p + u(p); component i moves along array axis i.
Warping pulls back: (x o phi)(p) = x(p + u(p)). A stationary velocity field v generates phi = exp(v), the flow of v at
time one, by scaling and squaring (Arsigny et al. 2006, "A log-Euclidean framework for statistics on
diffeomorphisms"); exp(-v) is its inverse.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.errors import InputError


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
    for axis in range(2, x.ndim):
        moved = x.movedim(axis, -1)
        flat = F.pad(moved.reshape(-1, 1, moved.shape[-1]), (radius, radius), mode="replicate")
        x = F.conv1d(flat, kernel.view(1, 1, -1)).view(moved.shape).movedim(-1, axis)
    return x

"""Shapes as radii, and the closed-form velocity field that carries one star-shaped body into another.

A body around a centre c is described by its radius R(w) in each direction w: of all bodies that fill their rays from c
outwards, the one with the same volume in every direction. The radial field

    v(c + rho w) = a(w) k(rho) w,    k(rho) = rho^2,    a = 1 / R_B - 1 / R_A

moves points along their rays alone, so its flow is one-dimensional and known: rho -> 1 / (1 / rho - a t), which takes
R_B to R_A at t = 1. Hence exp(v) pulls body A into the shape of body B, exp(-v) is its exact inverse, exp(t v) every
dose between, and being a flow it is monotone on every ray whatever the two radii are. The square k keeps the inside:
displacements fall like rho^2 towards the centre. Beyond max(R_A, R_B), where no radius is read, k fades to zero.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cfx.core import geometry
from cfx.core.broadcast import each
from cfx.core.distance import check_mask
from cfx.core.errors import InputError

_AZIMUTHS, _POLES = 128, 64  # directions: about one a voxel of the surface of a brain at 2 mm
_STEP = 1.0  # voxels between samples on a ray
_MOST = 1.5  # ratio of radii up to which a ray is followed: beyond, it grazes a jag of the surface
_FADE = 0.2  # reach of the field beyond the larger body, in radii


def centroid(mask: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n d"]:
    """Centre of mass of each mask in voxel coordinates."""
    m = mask.float()
    p = geometry.identity(tuple(mask.shape[2:]), m)
    return (m * p).flatten(2).sum(2) / m.flatten(2).sum(2)


def radii(mask: Bool[Tensor, "n 1 *space"], centre: Float[Tensor, "n d"]) -> Float[Tensor, "n poles azimuths"]:
    """Radius R of each mask in every direction around a centre: R^d / d = integral of rho^(d-1) on the ray.

    Args:
        mask: Masks.
        centre: Their centres in voxel coordinates, inside or near each mask.

    Returns:
        Radii in voxels on a grid of directions: azimuths from -pi to pi, both ends included, and in 3D polar angles
        from 0 to pi (one row in 2D). 0 where a ray meets nothing.

    Raises:
        InputError: see `check_mask`; or a `centre` that is not one point a mask.
    """
    check_mask(mask)
    space = tuple(mask.shape[2:])
    if centre.shape != (len(mask), len(space)):
        raise InputError(f"centre: expected shape {(len(mask), len(space))}, got {tuple(centre.shape)}")
    w = _directions(len(space), centre)
    rho = torch.arange(_STEP / 2, _reach(mask, centre) + 2 * _STEP, _STEP).to(centre)
    p = centre[:, None, None] + (rho[:, None, None, None] * w).flatten(0, 1)[None]  # (n, rho * poles, azimuths, d)
    met = _sample(mask.float(), p).unflatten(1, (len(rho), w.shape[0]))
    moment = (met * rho.view(1, -1, 1, 1) ** (len(space) - 1)).sum(1) * _STEP
    r: Tensor = (len(space) * moment) ** (1 / len(space))
    return r


def _reach(mask: Tensor, centre: Tensor) -> float:
    """Distance from the centres that no voxel of the masks exceeds: to the corners of their bounding boxes."""
    ends = []
    for axis in range(centre.shape[1]):
        others = [k for k in range(1, mask.ndim) if k != 2 + axis]
        on = mask.any(0, keepdim=True).sum(others).squeeze(0).nonzero()
        ends.append(torch.maximum((on.min() - centre[:, axis]).abs(), (on.max() - centre[:, axis]).abs()).max())
    return float(torch.stack(ends).square().sum().sqrt())


def _sample(x: Tensor, p: Tensor) -> Tensor:
    """One-channel images at the points `(n, i, j, d)`, 0 outside the grid: `(n, i, j)`."""
    size = torch.tensor(x.shape[2:]).to(p)
    grid = (p * (2 / (size - 1)) - 1).flip(-1)
    grid = grid if x.ndim == 4 else grid[:, None]
    out = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
    return out.reshape(p.shape[:-1])


def _directions(d: int, like: Tensor) -> Float[Tensor, "poles azimuths d"]:
    """Unit vectors of the grid of directions; in 2D one row."""
    azimuth = torch.linspace(-math.pi, math.pi, _AZIMUTHS + 1).to(like)
    circle = torch.stack([azimuth.cos(), azimuth.sin()], -1)[None]
    if d == 2:
        return circle
    polar = torch.linspace(0, math.pi, _POLES + 1).to(like)[:, None, None]
    return torch.cat([polar.sin() * circle, polar.cos().expand(-1, _AZIMUTHS + 1, 1)], -1)


def _look_up(maps: Float[Tensor, "n c poles azimuths"], p: Float[Tensor, "n d *space"]) -> Float[Tensor, "n c *space"]:
    """Maps over directions, read linearly in the direction of each point p from the centre."""
    azimuth = torch.atan2(p[:, 1], p[:, 0]) / math.pi
    rho = p.square().sum(1).sqrt()
    polar = torch.acos((p[:, 2] / rho.clamp_min(1e-6)).clamp(-1, 1)) * (2 / math.pi) - 1 if p.shape[1] == 3 else 0 * rho
    grid = torch.stack([azimuth, polar], -1).flatten(1, -2)[:, None]
    return F.grid_sample(maps, grid, mode="bilinear", align_corners=True).reshape(len(p), -1, *p.shape[2:])


def check_pair(mask_a: Tensor, mask_b: Tensor) -> None:
    """Refuse masks that do not go together.

    Raises:
        InputError: see `check_mask`; or masks of other shapes.
    """
    check_mask(mask_a, "mask_a")
    check_mask(mask_b, "mask_b")
    if mask_a.shape != mask_b.shape:
        raise InputError(f"mask_b: expected the shape of mask_a {tuple(mask_a.shape)}, got {tuple(mask_b.shape)}")


def transfer(mask_a: Bool[Tensor, "n 1 *space"], mask_b: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n d *space"]:
    """Velocity v in voxels, in closed form, whose exp(v) pulls each body A into the shape of body B.

    Both are seen from one centre, the mean of their centroids. Exact for bodies that are star-shaped around it and
    finely sampled; otherwise a start for `registration.match`.

    Args:
        mask_a: Bodies to reshape.
        mask_b: Shapes wanted, as many.

    Raises:
        InputError: see `check_mask`; masks of other shapes; or a pair so far apart that their common centre is outside.
    """
    check_pair(mask_a, mask_b)
    c = (centroid(mask_a) + centroid(mask_b)) / 2
    r_a, r_b = (radii(m, c).clamp_min(1.0) for m in (mask_a, mask_b))
    r_a = r_b * (r_a / r_b).clamp(1 / _MOST, _MOST)
    maps = torch.stack([1 / r_b - 1 / r_a, torch.maximum(r_a, r_b)], 1)
    p = geometry.identity(tuple(mask_a.shape[2:]), c) - each(c, mask_a)
    rate, reach = _look_up(maps, p).split(1, 1)
    rho = p.square().sum(1, keepdim=True).sqrt()
    beyond = (rho / reach - 1).clamp_min(0)
    k = torch.minimum(rho, reach).square() * torch.exp(-((beyond / _FADE) ** 2) / 2)
    v: Tensor = rate * k / rho.clamp_min(1e-6) * p
    return v

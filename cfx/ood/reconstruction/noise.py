"""Smooth noise of several scales, in any number of dimensions.

Gradient noise (Perlin 1985, 2002): a random unit vector g at every node of a lattice of side L, and at a point between

    n(p) = sum over the 2^d corners c of  w(f - c) g_c . (f - c),     w(u) = prod_a fade(1 - |u_a|)

with f the place in the cell and fade(u) = u^3 (6 u^2 - 15 u + 10). Octave k has side `period` / 2^k and amplitude
`persistence`^k; the sum is divided by its root mean square, so that it has the variance of white noise. This is not
OpenSimplex noise, whose lattice is of simplices and has no axes; spectrum and smoothness are alike.

References: Perlin (1985), "An image synthesizer"; Perlin (2002), "Improving noise".
"""

from itertools import product

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.broadcast import unit
from cfx.core.random import normal, uniform

_NODES = 0x51000  # first stream of an octave's nodes; the next one is of its place on the lattice


def octaves(
    shape: tuple[int, ...],
    *,
    seed: int,
    row: Int[Tensor, " n"],
    period: float = 64.0,
    count: int = 6,
    persistence: float = 0.8,
) -> Float[Tensor, "n c *space"]:
    """Noise of several octaves, of mean square 1.

    Args:
        shape: Shape `(c, *space)` of a draw; channels are independent.
        seed: Seed.
        row: Counter of each draw.
        period: Side of the coarsest lattice in voxels.
        count: Number of octaves; those of a side below one voxel are left out.
        persistence: Amplitude of an octave over that of the one before.
    """
    channels, space = shape[0], tuple(shape[1:])
    rows = (row[:, None] * channels + torch.arange(channels)).flatten()
    total = torch.zeros(len(rows), *space)
    for k in range(count):
        if (side := period / 2**k) >= 1:
            total = total + persistence**k * _octave(space, side, seed, rows, _NODES + 2 * k)
    return unit(total.unflatten(0, (len(row), channels)))


def _octave(space: tuple[int, ...], side: float, seed: int, row: Tensor, stream: int) -> Float[Tensor, "n *space"]:
    """Gradient noise of one side; the lattice lies somewhere by chance, for the noise is 0 at its nodes."""
    d = len(space)
    offset = uniform((d,), seed=seed, row=torch.zeros(1, dtype=torch.long), stream=stream + 1)[0]
    place = [torch.arange(n) / side + o for n, o in zip(space, offset, strict=True)]
    cell, inside = [p.long() for p in place], [p - p.floor() for p in place]
    lattice = [int(c[-1]) + 2 for c in cell]
    g = normal((d, *lattice), seed=seed, row=row, stream=stream)
    g = g / g.square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    total = torch.zeros(len(row), *space)
    for corner in product((0, 1), repeat=d):
        total = total + _corner(g, cell, inside, corner)
    return total


def _corner(g: Tensor, cell: list[Tensor], inside: list[Tensor], corner: tuple[int, ...]) -> Float[Tensor, "n *space"]:
    """What one corner of every cell adds."""
    d = len(corner)
    for axis, (c, at) in enumerate(zip(cell, corner, strict=True)):
        g = g.index_select(2 + axis, c + at)
    out, weight = torch.zeros_like(g[:, 0]), torch.ones(())
    for axis, (f, at) in enumerate(zip(inside, corner, strict=True)):
        u = (f - at).view([-1 if a == axis else 1 for a in range(d)])
        out, near = out + g[:, axis] * u, 1 - u.abs()
        weight = weight * near**3 * (6 * near**2 - 15 * near + 10)
    return weight * out

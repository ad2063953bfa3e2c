"""One shape into another: a stationary velocity field between two masks, and the image in its new shape.

`match` finds v with mask_A o exp(v) ~ mask_B. Everything else follows from v: exp(-v) goes back, exp(t v) is the dose
t. It starts from the closed form of `core.radial` and descends, coarse to fine, on

    E(v) = 1/2 sum (clip(S_A o exp(v)) - clip(S_B))^2

with S the signed distances, clipped to a band around the boundary: inside the band this is the distance between the
surfaces, and clipped it is, up to scale, the soft mask whose overlap Dice measures. A step is that of log-domain demons
(Vercauteren et al. 2008): the Gauss-Newton update on the right of exp(v), smoothed, added to v, and v smoothed.

Where the Jacobian of exp(v) leaves [1/`LIMIT`, `LIMIT`], v is smoothed more, there alone: parts that the other shape
does not have (a stump of the brain stem, a fissure) are given up instead of folded.

Large volumes are refined inside the box around both bodies, where all forces are, and with levels of their own that
leave a field more freedom; their field fades out beyond the box.

`reshape` then interpolates the image once, by a cubic spline.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from scipy import ndimage
from torch import Tensor

from cfx.core import geometry, radial
from cfx.core.broadcast import each
from cfx.core.distance import check_mask, signed_distance
from cfx.core.errors import InputError

LIMIT = 5.0
"""Volumes change by no more than this factor either way: beyond it tissue would be squeezed out of being or made up."""


EDGE = 2
"""Voxels around a mask over which the body may fade out: partial volume and blur."""


class _Level(NamedTuple):
    """One scale of the refinement; lengths in cells unless said otherwise.

    Attributes:
        cell: Voxels a cell.
        steps: How many.
        band: Of the distances, in voxels.
        sigma: Smoothing of a step.
        elastic: Smoothing of v itself at each step.
        wanted: Largest change of volume during the descent.
        relaxed: Smoothing where it is more.
        reach: Cells around a strained one that are smoothed with it.
        euler: Longest way in one step of the exponential.
    """

    cell: int
    steps: int
    band: float
    sigma: float = 1.0
    elastic: float = 0.4
    wanted: float = 3.0
    relaxed: float = 2.0
    reach: float = 1.5
    euler: float = 1.0


_LEVELS = (_Level(4, 8, 6.0), _Level(2, 10, 4.0), _Level(1, 5, 2.0))
_LARGE = 64**3
"""Voxels above which a volume has the levels below, which cost less and come nearer."""
_LARGE_LEVELS = (
    _Level(4, 8, 6.0, relaxed=1.0, reach=1.0),
    _Level(2, 10, 4.0, wanted=4.5, relaxed=1.0, reach=1.0),
    _Level(1, 4, 2.0, sigma=0.7, elastic=0.3, wanted=4.5, relaxed=1.0, reach=1.0, euler=2.0),
)
_COARSEST = 16  # cells: no level has fewer along an axis
_START = 2.0  # voxels by which the closed form, rough where rays graze the surface, is smoothed
_GAIN = 1.5  # smoothing weakens a step: it is made longer by this factor
_RELAXED = 2.0  # voxels of smoothing at the end where the field is strained
_REACH = 1.5  # voxels around a strained one that are smoothed with it; for large volumes 1
_MARGIN = 4  # voxels around the bodies of a large volume inside which it is refined
_MULTIPLE = 4  # voxels of which the sides of that box are a multiple where there is room: the coarsest cell
_DECAY = 6.0  # voxels over which the field fades out beyond
_INSIDE_LIMIT = 4.8  # stricter than the limit, for the box's exponential is a coarser one
_FADE = 5.0  # voxels from a rigid part to where the field is free again
_SPAN = 4  # voxels beyond a part that are continued from its rim: a spline's memory of them is 0.5 %
_KNOWN = 1e-3  # share of a part at a place from which its value there is known
_REPAIRS = 16  # most rounds of local smoothing at the end


def match(
    mask_a: Bool[Tensor, "n 1 *space"],
    mask_b: Bool[Tensor, "n 1 *space"],
    *,
    rigid: Bool[Tensor, "n 1 *space"] | None = None,
) -> Float[Tensor, "n d *space"]:
    """Velocity v in voxels such that u = exp(v) pulls each body A into the shape of body B.

    Rows do not depend on each other. u = `geometry.exponential(v)` has no fold and, but for pairs that no smooth map
    joins, a forward-difference Jacobian within [1/`LIMIT`, `LIMIT`]; check it with `geometry.jacobian_determinant`.

    Args:
        mask_a: Bodies to reshape: solid, one component (see `distance.solid`).
        mask_b: Shapes wanted, as many.
        rigid: Parts of A (lesions) that may move but not change: v is constant along the way of each component.

    Raises:
        InputError: see `radial.transfer`; or `rigid` of another shape.
    """
    if rigid is not None and rigid.shape != mask_a.shape:
        raise InputError(f"rigid: expected the shape of mask_a {tuple(mask_a.shape)}, got {tuple(rigid.shape)}")
    radial.check_pair(mask_a, mask_b)
    if mask_a.ndim == 5 and mask_a[0].numel() > _LARGE:
        held: Sequence[Tensor | None] = [None] * len(mask_a) if rigid is None else rigid.split(1)
        rows = zip(mask_a.split(1), mask_b.split(1), held, strict=True)  # each has its own box
        return torch.cat([_repair(_match_large(*row), reach=1.0) for row in rows])
    return _repair(_refined(mask_a, mask_b, rigid, _usable(_LEVELS, mask_a)))


def _match_large(a: Tensor, b: Tensor, rigid: Tensor | None) -> Float[Tensor, "1 d *space"]:
    """The velocity of one pair, found in the box around both."""
    box = _box(a | b if rigid is None else a | b | rigid)
    inner = (slice(None), slice(None), *box)
    v = _refined(a[inner], b[inner], None if rigid is None else rigid[inner], _usable(_LARGE_LEVELS, a))
    return _faded_out(_repair(v, _INSIDE_LIMIT, reach=1.0, euler=1.0), box, tuple(a.shape[2:]))


def _usable(levels: Sequence[_Level], mask: Tensor) -> list[_Level]:
    """The levels that are not too coarse for the grid."""
    return [level for level in levels if level.cell == 1 or min(mask.shape[2:]) // level.cell >= _COARSEST]


def _box(mask: Tensor) -> tuple[slice, ...]:
    """The smallest box around a mask with a margin, within the grid."""
    sides = []
    for axis in range(2, mask.ndim):
        on = mask.movedim(axis, 0).flatten(1).any(1).nonzero().flatten()
        start, stop = max(int(on[0]) - _MARGIN, 0), min(int(on[-1]) + 1 + _MARGIN, mask.shape[axis])
        start = max(start - (start - stop) % _MULTIPLE, 0)
        sides.append(slice(start, min(stop + (start - stop) % _MULTIPLE, mask.shape[axis])))
    return tuple(sides)


def _faded_out(v: Tensor, box: tuple[slice, ...], space: tuple[int, ...]) -> Float[Tensor, "1 d *space"]:
    """The field of a box on the whole grid: its border continued, and less and less so further out."""
    ends = [(side.start, n - side.stop) for side, n in zip(box, space, strict=True)]
    v = F.pad(v, [n for pair in reversed(ends) for n in pair], mode="replicate")
    for axis, side in enumerate(box, 2):
        p = torch.arange(v.shape[axis]).to(v)
        beyond = (side.start - p).clamp_min(0) + (p - side.stop + 1).clamp_min(0)
        v = v * torch.exp(-((beyond / _DECAY) ** 2) / 2).view(-1, *[1] * (v.ndim - 1 - axis))
    return v


def _refined(a: Tensor, b: Tensor, rigid: Tensor | None, levels: Sequence[_Level]) -> Float[Tensor, "n d *space"]:
    """The closed form, then one level after another."""
    v = geometry.smooth(radial.transfer(a, b), _START)
    s_a, s_b = signed_distance(a), signed_distance(b)
    space = tuple(a.shape[2:])
    for level in levels:
        grid = tuple(n // level.cell for n in space)
        v = _descend(_means(s_a, grid), _means(s_b, grid), _rescale(v, grid), level)
        v = _rescale(v, space)
        v = v if rigid is None else _hold(v, rigid)
    return v


def _descend(s_a: Tensor, s_b: Tensor, v: Tensor, level: _Level) -> Tensor:
    """All steps of one level, in its cells; distances stay in voxels."""
    goal = s_b.clamp(-level.band, level.band) / level.cell
    for _ in range(level.steps):
        u = geometry.exponential(v, largest_step=level.euler)
        moved = geometry.warp(s_a, u)
        miss = moved.clamp(-level.band, level.band) / level.cell - goal
        slope = geometry.gradient(moved) / level.cell
        force = -_GAIN * miss * slope / (slope.square().sum(1, keepdim=True) + miss.square() / 4 + 1e-3)
        v = _relax(v + geometry.smooth(force, level.sigma), _strained(u, level.wanted), level.reach, level.relaxed)
        v = geometry.smooth(v, level.elastic)
    return v


def _strained(u: Float[Tensor, "n d *space"], limit: float) -> Bool[Tensor, "n *cells"]:
    """Cells whose volume u changes by more than a factor."""
    j = geometry.jacobian_determinant(u)
    return (j > limit) | (j < 1 / limit)


def _relax(v: Tensor, where: Bool[Tensor, "n *cells"], reach: float, sigma: float) -> Tensor:
    """The field smoothed around some cells, unchanged away from them."""
    if not where.any():
        return v
    d = v.shape[1]
    spread = geometry.smooth(F.pad(where[:, None].to(v), [0, 1] * d), reach)
    near = (spread * (4 * reach) ** d).clamp(max=1)  # a single cell saturates to one and a half times the reach
    return torch.lerp(v, geometry.smooth(v, sigma), near)


def _repair(v: Tensor, limit: float = LIMIT, *, reach: float = _REACH, euler: float = 0.25) -> Tensor:
    """Relax, over wider and wider parts, until no cell of exp(v) is strained beyond the limit."""
    for k in range(_REPAIRS):
        strained = _strained(geometry.exponential(v, largest_step=euler), limit)
        if not strained.any():
            break
        v = _relax(v, strained, (1 + k / 4) * reach, (1 + k / 4) * _RELAXED)
    return v


def _hold(v: Tensor, rigid: Bool[Tensor, "n 1 *space"]) -> Tensor:
    """The field made constant on the way of every component, fading into v within `_FADE` voxels around it."""
    way = [geometry.warp(rigid.to(v), geometry.exponential(t * v)) >= 0.5 for t in (0.25, 0.5, 0.75, 1.0)]
    label, distance = _components(torch.stack([rigid, *way]).any(0))
    count = torch.zeros(int(label.max()) + 1).to(v).index_add_(0, label.flatten(), (distance == 0).flatten().to(v))
    held = torch.zeros_like(v)
    for k in range(v.shape[1]):
        total = torch.zeros_like(count).index_add_(0, label.flatten(), (v[:, k] * (distance == 0)).flatten())
        held[:, k] = (total / count.clamp_min(1))[label]
    weight = ((_FADE - distance) / (_FADE - 1)).clamp(0, 1) * (label > 0)
    return torch.lerp(v, held, weight[:, None])


def _components(mask: Bool[Tensor, "n 1 *space"]) -> tuple[Int[Tensor, "n *space"], Float[Tensor, "n *space"]]:
    """Number of the nearest component, unique in the batch, 0 in rows without any; and the distance to it."""
    labels, distances, used = np.zeros(mask[:, 0].shape, int), np.zeros(mask[:, 0].shape, np.float32), 0
    for k, m in enumerate(mask[:, 0].cpu().numpy()):
        if m.any():
            label, count = ndimage.label(m)
            distances[k], nearest = ndimage.distance_transform_edt(~m, return_indices=True)
            labels[k] = label[tuple(nearest)] + used
            used += count
    return torch.from_numpy(labels).to(mask.device), torch.from_numpy(distances).to(mask.device)


def _means(x: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Means over the cells of a coarser grid."""
    if tuple(x.shape[2:]) == grid:
        return x
    return F.interpolate(x, size=grid, mode="area")


def _rescale(v: Tensor, grid: tuple[int, ...]) -> Tensor:
    """A velocity field on another grid, in its cells."""
    space = tuple(v.shape[2:])
    if space == grid:
        return v
    mode = "bilinear" if len(grid) == 2 else "trilinear"
    out = _means(v, grid) if grid < space else F.interpolate(v, size=grid, mode=mode, align_corners=False)
    ratio = torch.tensor([n / m for n, m in zip(grid, space, strict=True)]).to(v)
    return out * ratio.view(1, -1, *[1] * len(grid))


def background(x: Float[Tensor, "n c *space"], mask: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n c"]:
    """Each image's own background: the median outside its mask, channel by channel.

    Raises:
        InputError: a mask that leaves no background.
    """
    full = mask.flatten(1).all(1).nonzero().flatten().tolist()
    if full:
        raise InputError(f"mask: expected pixels outside the body and its edge, got none in rows {full[:8]}")
    return x.masked_fill(mask, torch.nan).flatten(2).nanmedian(2).values


def fill(
    x: Float[Tensor, "n c *space"], known: Bool[Tensor, "n 1 *space"], wanted: Bool[Tensor, "n 1 *space"]
) -> Float[Tensor, "n c *space"]:
    """Images extrapolated from the known pixels over the wanted ones, one layer of neighbours after another.

    A new pixel is the mean of its known neighbours, so a rim continues what is beside it without streaks.

    Raises:
        InputError: a row of which nothing is known.
    """
    lost = (~known.flatten(1).any(1)).nonzero().flatten().tolist()
    if lost:
        raise InputError(f"known: expected known pixels in every row, got none in rows {lost[:8]}")
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    x = x * known
    while (wanted & ~known).any():
        weight = pool(known.to(x), 3, stride=1, padding=1)
        ring = ~known & (weight > 0)
        x = torch.where(ring, pool(x, 3, stride=1, padding=1) / weight.clamp_min(1e-6), x)
        known = known | ring
    return x


def reshape(
    x: Float[Tensor, "n c *space"],
    mask_a: Bool[Tensor, "n 1 *space"],
    mask_b: Bool[Tensor, "n 1 *space"],
    u: Float[Tensor, "n d *space"],
) -> Float[Tensor, "n c *space"]:
    """The images with the body A in the shape B, interpolated once.

    Inside `mask_b` the image at p + u(p), by the cubic spline through the body alone, continued outwards (`fill`), so
    no background bleeds in, and within the body's own range; the rim of `mask_b` that the warp leaves open is filled
    likewise. The `EDGE` voxels around `mask_b` are carried
    likewise from those around `mask_a`: left behind, the soft edge of the body would draw its old outline. What was
    body or edge takes the image's own background value. All other pixels are those of `x` bit for bit: tags and rulers
    live there.

    Args:
        x: Images, in any units.
        mask_a: The body in `x`.
        mask_b: Its support in the result, exactly.
        u: Displacement in voxels that pulls A into B, as from `match`: `geometry.exponential(v)`.

    Raises:
        InputError: masks that are empty or full, of other shapes than the images, or a u that carries nothing of
            `mask_a` into `mask_b`.
    """
    for name, mask in (("mask_a", mask_a), ("mask_b", mask_b)):
        check_mask(mask, name)
        if mask.shape != (len(x), 1, *x.shape[2:]):
            raise InputError(f"{name}: expected shape {(len(x), 1, *x.shape[2:])}, got {tuple(mask.shape)}")
    (body_a, edge_a), (body_b, edge_b) = ((m, _dilated(m, EDGE) & ~m) for m in (mask_a, mask_b))
    inside, edge = _carried(x, (body_a, edge_a), (body_b, edge_b), u)
    level = each(background(x, body_a | edge_a), x)
    rest = torch.where(body_a | edge_a, level, x)
    return torch.where(body_b, inside, torch.where(edge_b, edge, rest))


def _dilated(mask: Tensor, reach: int) -> Bool[Tensor, "n 1 *space"]:
    """The mask and all within `reach` voxels along the axes and diagonals."""
    pool = F.max_pool2d if mask.ndim == 4 else F.max_pool3d
    return pool(mask.float(), 2 * reach + 1, stride=1, padding=reach) > 0


def _carried(x: Tensor, parts_a: Sequence[Tensor], parts_b: Sequence[Tensor], u: Tensor) -> list[Tensor]:
    """Each part of A pulled back by u, interpolated between pixels of the part alone, continued over that of B."""
    share = geometry.warp(torch.cat([part.to(x) for part in parts_a], 1), u).split(1, 1)
    moved = geometry.spline(torch.cat([_continued(x, part) for part in parts_a], 1), u).split(x.shape[1], 1)
    return [
        fill(_within(image, x, a), b & (known > _KNOWN), b)
        for image, known, a, b in zip(moved, share, parts_a, parts_b, strict=True)
    ]


def _continued(x: Tensor, part: Tensor) -> Tensor:
    """The image as if the part went on beyond its outline: as far as a spline looks its rim, then its mean."""
    near = _dilated(part, _SPAN)
    count = part.flatten(1).sum(1).to(x)
    mean = each((x * part).flatten(2).sum(2) / count[:, None], x)
    return torch.where(near, fill(x, part, near), mean)


def _within(moved: Tensor, x: Tensor, part: Tensor) -> Tensor:
    """Clamped to the range that the part had: a spline overshoots at steps."""
    low = each(x.masked_fill(~part, torch.inf).flatten(2).amin(2), x)
    high = each(x.masked_fill(~part, -torch.inf).flatten(2).amax(2), x)
    return torch.minimum(torch.maximum(moved, low), high)

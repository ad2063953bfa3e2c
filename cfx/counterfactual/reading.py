"""Which part of an edit the classifier reads, and what the rest does by itself.

An edit e = x_cf - x shows what the generator knows of a class; the classifier may read some of it only. Integrated
gradients along the edit give each voxel its share of the change of margin,

    A = sum_c e mean_a grad margin(x + a e),    sum A = margin(x_cf) - margin(x),    a = (j + 1/2) / n, j = 0 .. n - 1.

**Read** are the voxels that hold 95 % of the positive part of A, in the order of A smoothed by one voxel; where
they do not bring 95 % of the change of margin by themselves, as many more as do. Then the **rest** is shown by
itself. That costs n gradients and some five evaluations of the classifier a row, none of the generator.

Not the least number of voxels that suffices: of a classifier with a steep logit that is a handful (18 of 1225 with the
shipped one), chosen as an attack chooses them; an oracle sees nothing in them (0.03), and the rest suffices as well.
Smoothing keeps a region together, and never reaches voxels whose own A is 0: what a classifier cannot see is not read.

Reference: Sundararajan, Taly, Yan (2017), "Axiomatic attribution for deep networks".
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.codes import Word
from cfx.core.geometry import smooth
from cfx.core.gradients import along

Margins = Callable[[Int[Tensor, " r"], Float[Tensor, "r c *space"]], Float[Tensor, " r"]]
"""`margin(rows, images)`: the margins of images of these rows."""
Gradients = Callable[[Int[Tensor, " r"], Float[Tensor, "r c *space"]], Float[Tensor, "r c *space"]]
"""`gradient(rows, images)`: the gradients of these margins."""

POINTS = 16
"""Points n of the path at which the gradient is taken."""
SHARE = 0.95
"""Share of the attribution, and of the change of margin, that the read part has to hold."""
MOSTLY = 2 / 3
"""Share of the edit's energy from which on the classifier reads it whole."""
IDLE = 0.2
"""Share of the change of margin up to which the rest does next to nothing by itself; a sum of parts leaves it 0.05."""
_LITTLE = 0.1  # of the way to the margin asked for
_WIDTH = 1.0  # voxels, standard deviation
_SEEN = 1e-3  # of the largest attribution: below, a voxel is not seen


class Reading(Word):
    """How a classifier reads an edit; `meaning` says it in a sentence."""

    WHOLE = "whole", "The classifier reads most of the change."
    REDUNDANT = "redundant", "The rest alone moves the classifier as well: more than one part of the change suffices."
    CARRIED = "carried", "The classifier reads a part; the rest does nothing by itself: the generator adds it."
    NONE = "", "Nothing was changed, or the change does not move the classifier towards the target."

    @classmethod
    def of(cls, share: float, rest: float) -> "Reading":
        """The reading of an edit.

        Args:
            share: Share of its energy in the read part; NaN where there is none.
            rest: Share of the change of margin that the rest brings by itself.
        """
        if not share >= 0:
            return cls.NONE
        return cls.REDUNDANT if rest > IDLE else cls.WHOLE if share >= MOSTLY else cls.CARRIED


@dataclass(frozen=True)
class Parts:
    """The read part of every edit, and what either part does alone; NaN in rows whose margin hardly rose.

    Attributes:
        read: Voxels of the edit that the classifier reads; none where the margin hardly rose.
        share: Share of the edit's energy, sum e^2, that they hold.
        alone: Share of the change of margin that they bring by themselves, at least `SHARE`.
        rest: The share that the rest of the edit brings by itself.
        error: abs(sum A - change) / change: how far integrated gradients are from complete.
    """

    read: Bool[Tensor, "b 1 *space"]
    share: Float[Tensor, " b"]
    alone: Float[Tensor, " b"]
    rest: Float[Tensor, " b"]
    error: Float[Tensor, " b"]


@torch.no_grad()
def parts_of(
    x: Float[Tensor, "b c *space"],
    x_cf: Float[Tensor, "b c *space"],
    before: Float[Tensor, " b"],
    after: Float[Tensor, " b"],
    margin: Margins,
    gradient: Gradients,
    asked: Float[Tensor, " b"],
    *,
    reach: bool = False,
) -> Parts:
    """Divide edits into what the classifier reads and the rest.

    An edit that brings less than a tenth of the way to the margin asked for has no reading: its parts would be compared
    with next to nothing.

    Args:
        x: Images before.
        x_cf: Images after.
        before: Their margins before.
        after: Their margins after.
        margin: The margin of other images of these rows.
        gradient: Its gradient.
        asked: The margins asked for.
        reach: Whether the read part has to reach the margin asked for where the edit does, be it more than `SHARE`.
    """
    e, change = x_cf - x, after - before
    known = (change > _LITTLE * (asked - before)) & (change > 0) & change.isfinite() & (e != 0).flatten(1).any(1)
    rows = known.nonzero().flatten()
    read = torch.zeros_like(x[:, :1], dtype=torch.bool)
    figures = torch.full((4, len(x)), torch.nan, device=x.device)
    if len(rows):
        enough = before + SHARE * change
        if reach:
            enough = torch.maximum(enough, torch.minimum(asked, after))
        a = attribution(rows, x[rows], e[rows], gradient)
        read[rows], brought = _least(rows, a, x[rows], x_cf[rows], margin, enough[rows], after[rows])
        rest = margin(rows, torch.where(read[rows], x[rows], x_cf[rows]))
        moved = torch.stack([brought - before[rows], rest - before[rows], (a.flatten(1).sum(1) - change[rows]).abs()])
        figures[:, rows] = torch.cat([_energy(e[rows], read[rows])[None], moved / change[rows]])
    return Parts(read, *figures)


def _energy(e: Float[Tensor, "r c *space"], read: Bool[Tensor, "r 1 *space"]) -> Float[Tensor, " r"]:
    """Share of the energy of edits in a part of them."""
    energy = e.square().sum(1, keepdim=True)
    return (energy * read).flatten(1).sum(1) / energy.flatten(1).sum(1)


def attribution(
    rows: Int[Tensor, " r"], x: Float[Tensor, "r c *space"], e: Float[Tensor, "r c *space"], gradient: Gradients
) -> Float[Tensor, "r 1 *space"]:
    """A: integrated gradients along the edits e of these rows, summed over channels, by the midpoint rule."""
    slope = along(lambda images: gradient(rows, images), x, e, POINTS)
    return (e * slope).sum(1, keepdim=True)


def ranked(a: Float[Tensor, "b 1 *space"]) -> tuple[Int[Tensor, "b 1 *space"], Int[Tensor, " b"]]:
    """Rank of every voxel in the order of the smoothed attribution, and how many hold `SHARE` of its positive part."""
    flat = a.flatten(1)
    least = _SEEN * flat.abs().amax(1, keepdim=True)
    seen = flat.abs() > least
    level = (smooth(a, _WIDTH).flatten(1) / least).round()  # what differs by a rounding only goes by its place
    order = level.masked_fill(~seen, -torch.inf).argsort(dim=1, descending=True, stable=True)
    held = flat.clamp_min(0).gather(1, order).cumsum(1)
    count = (held < SHARE * held[:, -1:]).sum(1) + 1
    place = torch.arange(order.shape[1], device=a.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place).view_as(a), count


def _least(
    rows: Int[Tensor, " r"],
    a: Float[Tensor, "r 1 *space"],
    x: Float[Tensor, "r c *space"],
    x_cf: Float[Tensor, "r c *space"],
    margin: Margins,
    enough: Float[Tensor, " r"],
    after: Float[Tensor, " r"],
) -> tuple[Bool[Tensor, "r 1 *space"], Float[Tensor, " r"]]:
    """The read part, and the margin that it brings.

    Where it brings too little, an eighth more voxels are added, then twice as many each time, up to the whole edit.
    """
    rank, count = ranked(a)
    brought, more, all_ = after.clone(), (count / 8).ceil().long(), rank[0].numel()
    short = torch.arange(len(rows), device=rows.device)
    while len(short):
        inside = rank[short] < each(count[short], rank)
        brought[short] = margin(rows[short], torch.where(inside, x_cf[short], x[short]))
        short = short[brought[short] < enough[short]]
        count[short] += more[short]
        short, more = short[count[short] < all_], 2 * more
    inside = (rank < each(count, rank)) & (x_cf != x).any(1, keepdim=True)
    return inside, after.where(count >= all_, brought)

"""What an edit must not touch, and how much of a successful edit can be taken back.

`paste` undoes small changes. `shrink` first raises that threshold, then scales the edit down, as far as the classifier
stays convinced; both are searched for all rows at once by bisection, with the classifier alone. Every peer enforces
minimality by the weight of a penalty; here the result is a certified local minimum: the next smaller edit was tried,
and the record holds its margin.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.broadcast import each
from cfx.counterfactual.method import Problem
from cfx.counterfactual.search import Found

GRID = 16
"""The edit is scaled in steps of 1 / GRID of itself."""
FINE_GRID = 4096
"""As `GRID`, with ordered classes, where a coarse step could jump over the target."""
_EROSIONS = 4  # bisections of the threshold


def paste(
    x: Float[Tensor, "b c *space"], edited: Float[Tensor, "b c *space"], threshold: float | Float[Tensor, "b ..."]
) -> Float[Tensor, "b c *space"]:
    """Keep only real changes: those whose local size exceeds `threshold`; elsewhere `x` bit for bit.

    The local size is the mean absolute change over 3 voxels a side. The weight rises from 0 at `threshold` to 1 at
    twice it, continuously, so a rounding difference between batches cannot switch a voxel on or off.
    """
    change = edited.clamp(-1, 1) - x
    size = change.abs().amax(1, keepdim=True)
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    local = pool(size, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    weight = (local / threshold - 1).clamp(0, 1)
    return torch.where(weight > 0, x + weight * change, x)


def pasted(
    problem: Problem,
    rows: Int[Tensor, " r"],
    edited: Float[Tensor, "r c *space"],
    threshold: float | Float[Tensor, "r ..."],
) -> Float[Tensor, "r c *space"]:
    """What counts of edits of these rows: real changes, and only where the problem allows any."""
    return problem.restrict(rows, paste(problem.x[rows], edited, threshold))


def settled(
    problem: Problem, found: Found, threshold: float
) -> tuple[Float[Tensor, "b c *space"], Float[Tensor, " b"]]:
    """What a search found, pasted, and shrunk unless it should stay whole.

    Args:
        problem: The batch.
        found: Edits before pasting, which reach the margin once pasted where their excess says so.
        threshold: Threshold of `paste`.

    Returns:
        The images, and the margin of the next smaller change, which was tried and failed (NaN where none was).
    """
    image = pasted(problem, problem.everyone, found.image, threshold)
    if problem.goal.whole and not problem.goal.two_sided:
        return image, found.failed + problem.margin
    return shrink(problem, found.image, image, found.excess >= 0, threshold)


def shrink(
    problem: Problem,
    edited: Float[Tensor, "b c *space"],
    image: Float[Tensor, "b c *space"],
    reached: Bool[Tensor, " b"],
    threshold: float,
) -> tuple[Float[Tensor, "b c *space"], Float[Tensor, " b"]]:
    """Take back as much of each successful edit as the classifier allows.

    At depth `boundary` the edit is eroded and scaled; at `typical`, where it should stay whole, it is only scaled (and
    only to come back from too far, with ordered classes).

    Args:
        problem: The batch.
        edited: Edits before pasting.
        image: The same pasted with threshold `threshold`, which reach the margin where `reached`.
        reached: Rows to shrink; the others stay as they are.
        threshold: Threshold of `paste`.

    Returns:
        The images, and the margin at the next smaller scale, which was tried and failed (NaN where not `reached`).
    """
    rows = reached.nonzero().flatten()
    out, smaller = image.clone(), torch.full((len(image),), torch.nan, device=image.device)
    if len(rows):
        image = image[rows] if problem.goal.whole else _erode(problem, rows, edited[rows], image[rows], threshold)
        out[rows], smaller[rows] = _scale(problem, rows, image, FINE_GRID if problem.goal.two_sided else GRID)
    return out, smaller


def _erode(problem: Problem, rows: Tensor, edited: Tensor, image: Tensor, threshold: float) -> Tensor:
    """Paste with the highest threshold that still convinces, bisected between `threshold` and the largest change."""
    x = problem.x[rows]
    top = (edited.clamp(-1, 1) - x).abs().flatten(1).amax(1).clamp_min(2 * threshold)
    low, high = torch.full_like(top, threshold).log(), top.log()
    for _ in range(_EROSIONS):
        middle = (low + high) / 2
        candidate = pasted(problem, rows, edited, each(middle.exp(), x))
        good = problem.excess(rows, candidate) >= 0
        image = torch.where(each(good, x), candidate, image)
        low, high = torch.where(good, middle, low), torch.where(good, high, middle)
    return image


def _scale(problem: Problem, rows: Tensor, image: Tensor, grid: int) -> tuple[Tensor, Tensor]:
    """The least multiple of 1 / grid of the edit that convinces, and the margin one step below it."""
    x = problem.x[rows]
    change = image - x
    low, high = torch.zeros(len(rows), device=x.device), torch.full((len(rows),), float(grid), device=x.device)
    failed = problem.before[rows].clone()
    while bool((high - low > 1).any()):
        middle = ((low + high) / 2).floor()
        excess = problem.excess(rows, _scaled(x, change, middle / grid))
        good, open_ = excess >= 0, high - low > 1
        high = torch.where(good & open_, middle, high)
        failed = torch.where(~good & open_, excess + problem.margin[rows], failed)
        low = torch.where(~good & open_, middle, low)
    return _scaled(x, change, high / grid).where(each(high < grid, x), image), failed


def _scaled(x: Tensor, change: Tensor, share: Tensor) -> Tensor:
    """The image with a share of the change; bit for bit itself where there is none."""
    return torch.where(change == 0, x, x + each(share, x) * change)

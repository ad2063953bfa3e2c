"""Touching up: edits that miss the margin by little are mended without another replay.

A trained classifier's logit is flat among images it is sure of, and not monotone there: a whole edit e can miss a
typical margin by a hair. Other versions of it are judged in turn, and the first that convinces takes its place:

    x + s e             with s = 0.95, 1.05, 0.9, 1.1, 0.8, 1.2, the nearest to the whole edit first
    x + e + s |e| g/|g| with s = 0.05, 0.1, 0.2, the least nudge along the gradient g of the margin at x + e

with |.| the root mean square. That costs classifier evaluations only; a larger strength would cost a replay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.broadcast import each, rms, unit
from cfx.counterfactual.search import Judging

SCALES = (0.95, 1.05, 0.9, 1.1, 0.8, 1.2)
"""Scales of an edit that are tried, nearest to the whole edit first."""
NUDGES = (0.05, 0.1, 0.2)
"""Steps along the gradient, in units of the edit."""


def touch_up(
    rows: Int[Tensor, " r"],
    x: Float[Tensor, "r c *space"],
    edited: Float[Tensor, "r c *space"],
    excess: Float[Tensor, " r"],
    *,
    judge: Judging,
    gradient: Callable[[Int[Tensor, " k"], Float[Tensor, "k c *space"]], Float[Tensor, "k c *space"]],
    tolerance: float,
) -> tuple[Float[Tensor, "r c *space"], Float[Tensor, " r"]]:
    """Mend the edits that miss the margin by little.

    Args:
        rows: Which rows of the batch these are.
        x: Their unedited images.
        edited: Their edited images.
        excess: By how much each exceeds the margin; negative where it misses it.
        judge: The same of other images of these rows.
        gradient: Gradient of the margin, `gradient(rows, images)`.
        tolerance: A miss by at most this is a near one; others are left alone.

    Returns:
        The edited images, and the excess of each.
    """
    misses = _NearMisses(rows, x, edited.clone(), excess.clone(), judge, tolerance)
    e, nudge = edited - x, torch.zeros_like(edited)
    for s in SCALES:
        misses.retry(s * e)
    near = misses.left
    if len(near):
        nudge[near] = each(rms(e[near]), e[near]) * unit(gradient(rows[near], edited[near]))
    for s in NUDGES:
        misses.retry(e + s * nudge)
    return misses.edited, misses.excess


@dataclass(frozen=True)
class _NearMisses:
    """Edited images of which some miss the margin by little; `retry` changes them in place."""

    rows: Tensor
    x: Tensor
    edited: Tensor
    excess: Tensor
    judge: Judging
    tolerance: float

    @property
    def left(self) -> Int[Tensor, " k"]:
        """Which still do."""
        return ((self.excess < 0) & (self.excess >= -self.tolerance)).nonzero().flatten()

    def retry(self, e: Tensor) -> None:
        """Put other edits in the place of those that are left, where they convince."""
        near = self.left
        if len(near) == 0:
            return
        again = self.x[near] + e[near]
        found = self.judge(self.rows[near], again)
        good = found >= 0
        self.edited[near[good]], self.excess[near[good]] = again[good], found[good]

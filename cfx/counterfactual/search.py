"""Least strength, searched for every row of a batch at once; rows that are done leave the batch.

The margin of an edited image is continuous in the strength. A row starts from what is known for free (strength 0),
tries the first guess, expands until it succeeds, then closes the bracket by false position after the Illinois variant
(Dowell and Jarratt 1971): the value at the end that stays is halved, here from the first time on, so that the next
trial tends to fall on the other side of the root. It keeps the bracket and needs few trials where the margin is smooth.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Trial = Callable[[Int[Tensor, " r"], Float[Tensor, " r"]], tuple[Float[Tensor, "r c *space"], Float[Tensor, " r"]]]
"""`trial(rows, strength)`: the edited images of these rows, and by how much each exceeds the margin asked for."""


@dataclass(frozen=True)
class Found:
    """Outcome of the search, one row an input.

    Attributes:
        image: Image at the least strength that succeeded, or the one closest to success.
        strength: Its strength.
        excess: Margin beyond the one asked for; negative where no trial succeeded.
        trials: Trials spent.
        failed: Excess at the largest strength below it that was tried and failed; NaN if none was.
        finite: False where the margin became non-finite; such a row stops at once.
    """

    image: Float[Tensor, "b c *space"]
    strength: Float[Tensor, " b"]
    excess: Float[Tensor, " b"]
    trials: Int[Tensor, " b"]
    failed: Float[Tensor, " b"]
    finite: Bool[Tensor, " b"]


def least_strength(
    trial: Trial,
    x: Float[Tensor, "b c *space"],
    excess: Float[Tensor, " b"],
    *,
    trials: int,
    tolerance: float,
    resolution: float = 0.02,
    first: float = 1.0,
    least: float = 0.0,
) -> Found:
    """The least strength at which each row succeeds.

    Args:
        trial: Edits rows at given strengths.
        x: Unedited images, the outcome at strength 0.
        excess: Their excess, negative.
        trials: Most trials a row may use.
        tolerance: A success that exceeds the margin by at most this ends the search of its row.
        resolution: So does a bracket this narrow, relative to its upper end.
        first: Strength tried first.
        least: Smallest strength worth trying, at most `first`; a success there ends the search as well.

    Returns:
        Best trial of every row. The order of rows and the batch they came in make no difference.
    """
    b = len(x)
    low, high = torch.full_like(excess, least), torch.full_like(excess, torch.inf)
    h_low, h_high = excess.clone(), torch.full_like(excess, torch.inf)
    image, best, strength = x.clone(), excess.clone(), torch.zeros_like(excess)
    failed = torch.full_like(excess, torch.nan)
    spent = torch.zeros(b, dtype=torch.long, device=x.device)
    finite = torch.ones(b, dtype=torch.bool, device=x.device)
    guess = torch.full_like(excess, first)
    open_rows = torch.arange(b, device=x.device)
    for _ in range(trials):
        if len(open_rows) == 0:
            break
        r, s = open_rows, guess[open_rows]
        candidate, h = trial(r, s)
        spent[r] += 1
        finite[r] = torch.isfinite(h)
        # a success replaces failures and larger successes; a failure only replaces a worse failure
        better = torch.isfinite(h) & torch.where(h >= 0, s < high[r], (h > best[r]) & (best[r] < 0))
        image[r[better]], strength[r[better]], best[r[better]] = candidate[better], s[better], h[better]
        failed[r] = torch.where((h < 0) & (s >= low[r]), h, failed[r])
        _narrow(r, s, h, (low, high, h_low, h_high))
        guess[r] = _next_guess(low[r], high[r], h_low[r], h_high[r], (excess[r] / (excess[r] - h)).nan_to_num(2.0))
        close = (best[r] <= tolerance) | (high[r] - low[r] <= resolution * high[r])
        done = ~finite[r] | ((best[r] >= 0) & close)
        open_rows = r[~done]
    return Found(image, strength, best, spent, failed, finite)


def _narrow(r: Tensor, s: Tensor, h: Tensor, bracket: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    """Move one end of each row's bracket in place; the other end has its value halved."""
    low, high, h_low, h_high = bracket
    hit, bounded = h >= 0, torch.isfinite(high[r])
    h_low[r] = torch.where(hit, torch.where(bounded, h_low[r] / 2, h_low[r]), h)
    h_high[r] = torch.where(hit, h, torch.where(bounded, h_high[r] / 2, h_high[r]))
    low[r] = torch.where(hit, low[r], s)
    high[r] = torch.where(hit, s, high[r])


def _next_guess(low: Tensor, high: Tensor, h_low: Tensor, h_high: Tensor, ratio: Tensor) -> Tensor:
    """Expand while unbounded, by 1.25 to 2 as linear extrapolation says; else false position, kept off the ends."""
    bounded = torch.isfinite(high)
    width = torch.where(bounded, high - low, torch.ones_like(low))
    share = (h_low / (h_low - h_high)).nan_to_num(0.5).clamp(0.1, 0.9)
    return torch.where(bounded, low + share * width, low * (1.25 * ratio).clamp(1.25, 2.0).where(ratio > 0, 2.0))

"""Least strength, searched for every row of a batch at once; rows that are done leave the batch.

The margin of an edited image is continuous in the strength. A row starts from what is known for free (strength 0),
tries the first guess, expands until it succeeds, then closes the bracket by false position after the Illinois variant
(Dowell and Jarratt 1971): the value at the end that stays is halved, here from the first time on, so that the next
trial tends to fall on the other side of the root. It keeps the bracket and needs few trials where the margin is smooth.

Where a trial is dear and judging an image is cheap, the margin along the straight line from the unedited image through
the trial's image says more than two values of a saturated margin do: the next guess is where that line crosses.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

Trial = Callable[[Int[Tensor, " r"], Float[Tensor, " r"]], tuple[Float[Tensor, "r c *space"], Float[Tensor, " r"]]]
"""`trial(rows, strength)`: the edited images of these rows, and by how much each exceeds the margin asked for."""
Judging = Callable[[Int[Tensor, " r"], Float[Tensor, "r c *space"]], Float[Tensor, " r"]]
"""`judge(rows, images)`: by how much images of these rows exceed the margin, whatever they were made by."""
_HALVINGS = 5  # of the line through a trial's image
_FARTHEST = 2  # so many times as strong as the last may a trial be
_BEYOND = 0.25  # so much further than extrapolated, relative to it, goes a trial where extrapolation falls short


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
    judge: Judging | None = None,
) -> Found:
    """The least strength at which each row succeeds.

    Args:
        trial: Edits rows at given strengths.
        x: Unedited images, the outcome at strength 0.
        excess: Their excess, negative.
        trials: Most trials a row may use.
        tolerance: A success that exceeds the margin by at most this ends the search of its row.
        resolution: So does a bracket this narrow, relative to its upper end, and a success this close to where `judge`
            expects the least one.
        first: Strength tried first.
        least: Smallest strength worth trying, at most `first`; a success there ends the search as well.
        judge: Judges images without editing; where it is given, the next guess is where the line from `x` through the
            image of the last trial crosses the margin, or a quarter beyond where that fell short.

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
    guess, aimed = torch.full_like(excess, first), torch.zeros(b, dtype=torch.bool, device=x.device)
    open_rows = torch.arange(b, device=x.device)
    for trials_left in reversed(range(trials)):
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
        k = (~done).nonzero().flatten()
        if judge is not None and trials_left and len(k):
            share = _crossing(judge, r[k], x[r[k]], candidate[k], h[k])
            root = s[k] * share
            short = aimed[r[k]] & torch.isinf(high[r[k]])  # the last trial went where a line crossed, and failed
            guess[r[k]] = _kept((1 + torch.where(short, _BEYOND, resolution / 2)) * root, low[r[k]], high[r[k]])
            aimed[r[k]] = share < _FARTHEST
            done[k] = (h[k] >= 0) & (s[k] <= (1 + resolution) * root)
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


def _crossing(judge: Judging, r: Tensor, x: Tensor, image: Tensor, h: Tensor) -> Float[Tensor, " r"]:
    """Which share of the change of an image convinces: of a success up to 1, of a failure from 1 to 2, by bisection."""
    low = (h < 0).to(h)
    high = low + 1
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        good = judge(r, x + middle.view(-1, *[1] * (x.ndim - 1)) * (image - x)) >= 0
        low, high = middle.where(~good, low), middle.where(good, high)
    return high


def _next_guess(low: Tensor, high: Tensor, h_low: Tensor, h_high: Tensor, ratio: Tensor) -> Float[Tensor, " r"]:
    """What the margins say: linear extrapolation, and a quarter more, while unbounded; else false position."""
    bounded = torch.isfinite(high)
    width = torch.where(bounded, high - low, torch.ones_like(low))
    share = (h_low / (h_low - h_high)).nan_to_num(0.5)
    further = (1 + _BEYOND) * low * ratio.where(ratio > 0, 2.0)
    return _kept(torch.where(bounded, low + share * width, further), low, high)


def _kept(guess: Tensor, low: Tensor, high: Tensor) -> Float[Tensor, " r"]:
    """A guess kept a tenth of the bracket away from its ends; while unbounded, 1.25 to 2 times the lower one."""
    bounded, edge = torch.isfinite(high), (high - low) / 10
    return guess.clamp(torch.where(bounded, low + edge, 1.25 * low), torch.where(bounded, high - edge, _FARTHEST * low))

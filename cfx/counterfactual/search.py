"""Least strength, searched for every row of a batch at once; rows that are done leave the batch.

The margin of an edited image is continuous in the strength. A row starts from what is known for free (strength 0),
tries the first guess, expands until it succeeds, then closes the bracket by false position after the Illinois variant
(Dowell and Jarratt 1971): the value at the end that stays is halved, here from the first time on, so that the next
trial tends to fall on the other side of the root. It keeps the bracket and needs few trials where the margin is smooth.

Where a trial is dear and judging an image is cheap, the margin along the straight line from the unedited image through
the trial's image says more than two values of a saturated margin do: the next guess is where that line crosses.

Below, h is an excess: the margin beyond the one asked for; a strength succeeds where h >= 0.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.broadcast import each

Trial = Callable[[Int[Tensor, " r"], Float[Tensor, " r"]], tuple[Float[Tensor, "r c *space"], Float[Tensor, " r"]]]
"""`trial(rows, strength)`: the edited images of these rows, and the excess of each."""
Judging = Callable[[Int[Tensor, " r"], Float[Tensor, "r c *space"]], Float[Tensor, " r"]]
"""`judge(rows, images)`: the excess of images of these rows, whatever they were made by."""
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

    @classmethod
    def untried(cls, x: Float[Tensor, "b c *space"], excess: Float[Tensor, " b"]) -> Self:
        """What is known for free: the unedited images at strength 0."""
        zero = torch.zeros_like(excess)
        return cls(x.clone(), zero, excess.clone(), zero.long(), torch.full_like(excess, torch.nan), zero == 0)

    def note(self, r: Int[Tensor, " r"], s: Float[Tensor, " r"], image: Tensor, h: Float[Tensor, " r"]) -> None:
        """Take in a trial of rows `r` at strengths `s`, in place.

        Until a row has succeeded whatever comes closer is better; then only a success at less strength is.
        """
        best = self.excess[r]
        better = h.isfinite() & torch.where(best < 0, h > best, (h >= 0) & (s < self.strength[r]))
        k = r[better]
        self.image[k], self.strength[k], self.excess[k] = image[better], s[better], h[better]
        self.trials[r] += 1
        self.failed[r] = h.where(h < 0, self.failed[r])
        self.finite[r] = h.isfinite()


@dataclass(frozen=True)
class Bracket:
    """Between which strengths the least one of each row lies.

    Attributes:
        low: The largest that failed, or the smallest worth trying.
        high: The least that succeeded, infinite while none has.
        h_low: Excess at `low`, as false position weighs it.
        h_high: Excess at `high`, as false position weighs it.
    """

    low: Float[Tensor, " r"]
    high: Float[Tensor, " r"]
    h_low: Float[Tensor, " r"]
    h_high: Float[Tensor, " r"]

    @classmethod
    def unbounded(cls, excess: Float[Tensor, " r"], least: float) -> Self:
        """Before the first trial."""
        infinite = torch.full_like(excess, torch.inf)
        return cls(torch.full_like(excess, least), infinite, excess, infinite)

    def __getitem__(self, rows: Tensor) -> "Bracket":
        """The brackets of these rows."""
        return Bracket(self.low[rows], self.high[rows], self.h_low[rows], self.h_high[rows])

    @property
    def bounded(self) -> Bool[Tensor, " r"]:
        """Rows that have succeeded."""
        return self.high.isfinite()

    def narrow(self, s: Float[Tensor, " r"], h: Float[Tensor, " r"]) -> "Bracket":
        """After a trial: it becomes one end, and the value at the other end is halved."""
        hit, halved = h >= 0, torch.where(self.bounded, 0.5, 1.0).to(h)
        return replace(
            self,
            low=self.low.where(hit, s),
            high=s.where(hit, self.high),
            h_low=torch.where(hit, halved * self.h_low, h),
            h_high=torch.where(hit, h, halved * self.h_high),
        )

    def close(self, resolution: float) -> Bool[Tensor, " r"]:
        """Rows whose bracket is this narrow, relative to its upper end (an infinite one is)."""
        return self.high - self.low <= resolution * self.high

    def guess(self, h_zero: Float[Tensor, " r"], h: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
        """What the margins say: false position where bounded.

        Else linear extrapolation from the excess at 0 through that of the last trial, `h` at `low`, and a quarter more.
        """
        width = torch.where(self.bounded, self.high - self.low, 1.0)
        share = (self.h_low / (self.h_low - self.h_high)).nan_to_num(0.5)
        ratio = (h_zero / (h_zero - h)).nan_to_num(2.0)
        further = (1 + _BEYOND) * self.low * ratio.where(ratio > 0, 2.0)
        return self.keep(torch.where(self.bounded, self.low + share * width, further))

    def keep(self, guess: Float[Tensor, " r"]) -> Float[Tensor, " r"]:
        """A guess kept a tenth of the bracket away from its ends; while unbounded, 1.25 to 2 times the lower one."""
        edge = (self.high - self.low) / 10
        bottom = torch.where(self.bounded, self.low + edge, (1 + _BEYOND) * self.low)
        return guess.clamp(bottom, torch.where(self.bounded, self.high - edge, _FARTHEST * self.low))


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
    found, bracket = Found.untried(x, excess), Bracket.unbounded(excess, least)
    r, s = torch.arange(len(x), device=x.device), torch.full_like(excess, first)
    aimed = torch.zeros_like(s, dtype=torch.bool)  # where a line crossed
    for left in reversed(range(trials)):
        if len(r) == 0:
            break
        image, h = trial(r, s)
        found.note(r, s, image, h)
        bracket = bracket.narrow(s, h)
        guess = bracket.guess(excess[r], h)
        best = found.excess[r]
        done = ~h.isfinite() | ((best >= 0) & ((best <= tolerance) | bracket.close(resolution)))
        k = (~done).nonzero().flatten()
        if judge is not None and left and len(k):
            share = _crossing(judge, r[k], x[r[k]], image[k], h[k])
            root, short = share * s[k], aimed[k] & ~bracket[k].bounded  # aimed at a crossing and failed all the same
            guess[k] = bracket[k].keep((1 + torch.where(short, _BEYOND, resolution / 2)) * root)
            aimed[k] = share < _FARTHEST
            done[k] = (h[k] >= 0) & (s[k] <= (1 + resolution) * root)
        r, s, aimed, bracket = r[~done], guess[~done], aimed[~done], bracket[~done]
    return found


def _crossing(judge: Judging, r: Tensor, x: Tensor, image: Tensor, h: Tensor) -> Float[Tensor, " r"]:
    """Which share of the change of an image convinces: of a success up to 1, of a failure from 1 to 2, by bisection."""
    low = (h < 0).to(h)
    high = low + 1
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        good = judge(r, x + each(middle, x) * (image - x)) >= 0
        low, high = middle.where(~good, low), middle.where(good, high)
    return high

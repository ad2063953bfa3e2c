"""What conformal methods return: sets, intervals, masks, each with its level, calibration size and assumption."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cfx.core.codes import Code
from cfx.core.conformal import coverage_band
from cfx.core.errors import InputError
from cfx.core.rows import Rows, about


class Certainty(Code):
    """How much a set of classes leaves open; `meaning` says it in a sentence."""

    ONE = 0, "One class is left."
    SEVERAL = 1, "Several classes are left, and some are excluded."
    ALL = 2, "No class could be excluded."
    NONE = 3, "No class is as likely as in the calibration rows; the row may be unlike them."


def certainty(size: Int[Tensor, " n"], k: int) -> Int[Tensor, " n"]:
    """The `Certainty` of sets of such sizes among k classes."""
    found = torch.full_like(size, int(Certainty.SEVERAL))
    for number, code in ((k, Certainty.ALL), (1, Certainty.ONE), (0, Certainty.NONE)):
        found[size == number] = int(code)
    return found


@dataclass(frozen=True)
class PredictionSets(Rows):
    """Sets of classes that hold the true one with probability `level`, one row an image.

    Attributes:
        sets: Which classes are in the set, `(n, k)`.
        size: How many.
        verdict: `Certainty` codes.
        threshold: Score up to which classes are in the set; infinite where none could be excluded.
        row: Index of the row in the user's input.
        method: Name of the method.
        level: Probability that the set of a new row holds its class, 1 - alpha.
        calibrated: Rows that the thresholds were made of; of weighted ones what they are worth.
        assumption: What the level rests on.
        classes: Names of the classes, as far as they are known.
        by_class: Calibration rows of every class, where each has a threshold of its own.
    """

    sets: Bool[Tensor, "n k"]
    size: Int[Tensor, " n"]
    verdict: Int[Tensor, " n"] = field(metadata=about(codes=Certainty))
    threshold: Float[Tensor, "n k"]
    row: Int[Tensor, " n"]
    method: str
    level: float
    calibrated: int
    assumption: str
    classes: Sequence[str] = ()
    by_class: Sequence[int] = ()

    def covered(self, y: Shaped[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether each set holds the class of its row."""
        if y.shape != (len(self),) or (len(y) and not 0 <= int(y.min()) <= int(y.max()) < self.sets.shape[1]):
            raise InputError(f"y: expected a class in 0 .. {self.sets.shape[1] - 1} for each of {len(self)} rows")
        return self.sets.gather(1, y.long().to(self.sets.device)[:, None])[:, 0]

    def coverage(self, y: Shaped[Tensor, " n"]) -> dict[str, float]:
        """Share of sets that hold the class, the band it is in 95 % of the time, and the mean size.

        The band is exact without ties and weights (`cfx.core.conformal.coverage_band`), else about right.

        Args:
            y: Classes.

        Returns:
            `coverage`, `coverage_band_low`, `coverage_band_high`, `set_size`.
        """
        new = y.cpu().bincount(minlength=len(self.by_class)).tolist() if self.by_class else len(self)
        low, high = coverage_band(self.by_class or self.calibrated, new, 1 - self.level)
        return {
            "coverage": float(self.covered(y).double().mean()), "coverage_band_low": low, "coverage_band_high": high,
            "set_size": float(self.size.double().mean()),
        }  # fmt: skip

    def sentence(self, row: int) -> str:
        """What the set of a row says, for who reads it: `of 100 images like these ...; this one could be A or B`."""
        names = dict(enumerate(self.classes))
        here = [names.get(k, f"class {k}") for k in self.sets[row].nonzero().flatten().tolist()]
        could = " or ".join(filter(None, [", ".join(here[:-1]), *here[-1:]])) if here else "unlike all of them"
        held = math.floor(100 * self.level + 1e-9)
        return f"Of 100 images like these, at least {held} sets hold the truth on average; this one could be {could}."


@dataclass(frozen=True)
class Intervals(Rows):
    """Intervals that hold a number with probability `level`, one row an image.

    Attributes:
        low: Lower end.
        high: Upper end; infinite where there are too few calibration rows.
        row: Index of the row in the user's input.
        method: Name of the method.
        level: Probability that the interval of a new row holds its number.
        calibrated: Rows that the margin was made of.
        assumption: What the level rests on.
    """

    low: Float[Tensor, " n"]
    high: Float[Tensor, " n"]
    row: Int[Tensor, " n"]
    method: str
    level: float
    calibrated: int
    assumption: str

    def covered(self, y: Shaped[Tensor, "n *reader"]) -> Bool[Tensor, "n *reader"]:
        """Whether each interval holds the number of its row, or each of several."""
        ends = (len(self), *[1] * (y.ndim - 1))
        return (self.low.view(ends) <= y) & (y <= self.high.view(ends))

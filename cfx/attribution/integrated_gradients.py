"""Integrated gradients: (x - b) times the mean gradient on the line from the baseline b to x.

    A = (x - b) mean_a grad f(b + a (x - b)),    sum A = f(x) - f(b)

The mean is taken over midpoints of the line. The sum is known, so each row says itself whether these were enough; rows
that do not sum to within half the tolerance are done again, with points where they are needed
(`cfx.core.gradients.refined`): a network of rectifiers has a kink at every turn, and one that normalises an image by
its own statistics changes at once where the baseline is constant.

Reference: Sundararajan, Taly, Yan (2017), "Axiomatic attribution for deep networks".
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cfx.attribution.completeness import scale_of
from cfx.attribution.method import Family, Found, Question, Whole
from cfx.attribution.result import TOLERANCE
from cfx.core.errors import InputError
from cfx.core.gradients import along, refined

_ENOUGH = TOLERANCE / 2


@dataclass(frozen=True)
class IntegratedGradients:
    """A = (x - b) mean_a grad f(b + a (x - b)).

    Attributes:
        steps: Points of the line that every row gets.
        most: Points beyond which no row is refined; 0 for none.
    """

    steps: int = 48
    most: int = 400

    name: ClassVar[str] = "integrated-gradients"
    whole: ClassVar[Whole] = "change"
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch.

        Raises:
            InputError: steps that are no whole number from 1.
        """
        if not (isinstance(self.steps, int) and self.steps >= 1):
            raise InputError(f"steps: expected a whole number from 1, got {self.steps}")
        q, e = question, question.x - question.baseline
        found = e * along(q.gradient, q.baseline, e, self.steps, max(1, q.batch_size // len(e)))
        scale = scale_of(q.at_x - q.at_baseline, q.at_x, q.at_baseline)
        rows = ((found.flatten(1).sum(1) - (q.at_x - q.at_baseline)).abs() > _ENOUGH * scale).nonzero().flatten()
        if self.most and len(rows):
            found[rows] = e[rows] * self._refined(q, e, rows, scale)
        return Found(found)

    def _refined(self, question: Question, e: Tensor, rows: Tensor, scale: Tensor) -> Tensor:
        """Mean gradients of some rows."""
        return refined(
            lambda k, images: question.value(images, rows[k]), lambda k, images: question.both(images, rows[k]),
            question.baseline[rows], e[rows], self.steps, _ENOUGH * scale[rows], self.most, question.batch_size,
        )  # fmt: skip

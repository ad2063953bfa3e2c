"""Integrated gradients: (x - b) times the mean gradient on the line from the baseline b to x.

    A = (x - b) mean_a grad f(b + a (x - b)),    sum A = f(x) - f(b)

The mean is taken over midpoints. The sum is known, so each row says itself whether it has enough of them: rows that do
not sum to within half the tolerance get three times as many, of which a third is known (`cfx.core.gradients`).

Reference: Sundararajan, Taly, Yan (2017), "Axiomatic attribution for deep networks".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.attribution.completeness import error
from cfx.attribution.method import Family, Found, Question, Whole
from cfx.attribution.result import TOLERANCE
from cfx.core.gradients import along, midpoints


@dataclass(frozen=True)
class IntegratedGradients:
    """A = (x - b) mean_a grad f(b + a (x - b)).

    Attributes:
        steps: Points of the line that every row gets.
        most: Points beyond which no row is refined; `steps` for none.
    """

    steps: int = 16
    most: int = 1296

    name: ClassVar[str] = "integrated-gradients"
    whole: ClassVar[Whole] = "change"
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        e, n = question.x - question.baseline, self.steps
        mean, rows = torch.zeros_like(e), torch.arange(len(e), device=e.device)
        mean += _sum(question, e, rows, midpoints(n)) / n
        while 3 * n <= self.most and len(rows := _short(question, e * mean)):
            n *= 3
            mean[rows] = mean[rows] / 3 + _sum(question, e, rows, midpoints(n, refining=True)) / n
        return Found(e * mean)


def _sum(question: Question, e: Tensor, rows: Tensor, points: Sequence[float]) -> Tensor:
    """Sum of the gradients at some points, as many images at once as the batch may hold."""
    at_once = max(1, question.batch_size // len(rows))

    def gradient(images: Tensor) -> Tensor:
        return question.gradient(images, rows.repeat_interleave(len(images) // len(rows)))

    return along(gradient, question.baseline[rows], e[rows], points, at_once)


def _short(question: Question, a: Tensor) -> Tensor:
    """Rows whose map does not sum to the change yet."""
    missing = error(a.flatten(1).sum(1), question.at_x - question.at_baseline, question.at_x, question.at_baseline)
    return (missing > TOLERANCE / 2).nonzero().flatten()

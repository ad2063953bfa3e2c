"""The difference map: how much a voxel changes on the way to the baseline, |x - b|. No evaluation.

With a counterfactual as the baseline it shows where the least realistic change is that changes the classifier's mind;
without one it says nothing, so a named baseline is refused. It is no attribution: what a generator changes along with
what the classifier reads is in it as well (`cfx.counterfactual.reading` tells the two apart).
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.attribution.method import Family, Found, Question, Whole


@dataclass(frozen=True)
class Difference:
    """|x - b|, a channel each; unsigned."""

    name: ClassVar[str] = "difference"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "engine"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        return Found((question.x - question.baseline).abs())

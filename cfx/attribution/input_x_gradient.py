"""Input times gradient: (x - b) grad f(x), the first term of Taylor's series at x. One gradient an image.

It sums to f(x) - f(b) for a network that is linear between the two, and only then. With a counterfactual as b it is
gradient times change.

Reference: Shrikumar, Greenside, Shcherbina, Kundaje (2016), "Not just a black box: learning important features through
propagating activation differences".
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.attribution.method import Family, Found, Question, Whole


@dataclass(frozen=True)
class InputXGradient:
    """(x - b) grad f(x)."""

    name: ClassVar[str] = "input-x-gradient"
    whole: ClassVar[Whole] = "change"
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        return Found((question.x - question.baseline) * question.gradient(question.x))

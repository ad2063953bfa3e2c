"""Saliency: the size of the gradient, |grad f(x)|. One gradient an image.

Reference: Simonyan, Vedaldi, Zisserman (2014), "Deep inside convolutional networks: visualising image classification
models and saliency maps".
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.attribution.method import Family, Found, Question, Whole


@dataclass(frozen=True)
class Saliency:
    """|grad f(x)|, a channel each; unsigned."""

    name: ClassVar[str] = "saliency"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        return Found(question.gradient(question.x).abs())

"""Guided backpropagation: the gradient that was positive on its whole way back through the activations.

Every activation hands on its slope times the positive part of the gradient that arrives. It sums to nothing, and on
many networks it is the image's edges, whatever the classifier (Adebayo et al. 2018): see the row `edges` beside it.
Where the network's activations cannot be seen (a script, an autograd function), it is refused: it would be the plain
gradient under another name.

Reference: Springenberg, Dosovitskiy, Brox, Riedmiller (2015), "Striving for simplicity: the all convolutional net".
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cfx.attribution.completeness import error
from cfx.attribution.deeplift import secants
from cfx.attribution.method import Family, Found, Question, Whole
from cfx.attribution.override import Guided, Override
from cfx.attribution.result import TOLERANCE

_UNSEEN = "an operation hides its nonlinearity (a script, a compiled graph, an autograd function), so no rule applies"


@dataclass(frozen=True)
class GuidedBackprop:
    """The gradient that was positive all the way back."""

    name: ClassVar[str] = "guided-backprop"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        return Found(guided(question), refused=unseen(question))


def guided(question: Question) -> Tensor:
    """The guided gradient."""
    with Override(Guided()):
        return question.gradient(question.x)


def unseen(question: Question) -> str:
    """Why the activations of the network cannot be overridden, told by the first image; empty where they can.

    Its secants sum to the change of its output only if all of its activations were met.
    """
    x, b = question.x[:1], question.baseline[:1]
    slope, foreign = secants(question, x, b)
    at_x, at_b = question.at_x[:1], question.at_baseline[:1]
    wrong = error(((x - b) * slope).flatten(1).sum(1), at_x - at_b, at_x, at_b)
    return _UNSEEN if not foreign and bool(wrong > 100 * TOLERANCE) else ""

"""How unsure a classifier is of the class it names: 1 - max_k p_k(x), with p the softmax of its logits.

Cost: 1 classifier evaluation.

Reference: Hendrycks and Gimpel (2017), arXiv 1610.02136 (maximum class probability, also maximum softmax probability).
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from cfx.ood.detector import Ask, Learn, Scored


def doubt(p: Float[Tensor, "b k"]) -> Float[Tensor, " b"]:
    """1 - max_k p_k, as the sum of the others: so images are told apart however sure the classifier is of them."""
    return p.scatter(1, p.argmax(1, keepdim=True), 0.0).sum(1)


@dataclass(frozen=True)
class Mcp:
    """The detector, which has no settings."""

    name: ClassVar[str] = "mcp"
    needs: ClassVar[tuple[str, ...]] = ("classifier",)

    def fit(self, learn: Learn) -> "Mcp":
        """Itself: there is nothing to fit."""
        return self

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        return Scored(doubt(ask.logits(ask.x).double().softmax(1)))

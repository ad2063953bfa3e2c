"""How far an image is from every class centroid of a network trained for that: -max_k log K_k(x) (DUQ).

K_k = exp(-|W_k z - e_k|^2 / 2 n sigma^2) is the kernel of class k (`cfx.models.heads`), learnt by objective `duq`. The
published score is 1 - max_k K_k; the logarithm has the same order, and does not end at 1 far away. Cost: 1 classifier
evaluation.

Reference: van Amersfoort, Smith, Teh, Gal (2020), arXiv 2003.02037.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from cfx.core.errors import InputError
from cfx.models.features import last_layer
from cfx.models.heads import Rbf
from cfx.ood.detector import Ask, Learn, Scored


@dataclass(frozen=True)
class Duq:
    """The detector, which has no settings."""

    name: ClassVar[str] = "duq"
    needs: ClassVar[tuple[str, ...]] = ("classifier",)

    def fit(self, learn: Learn) -> "Duq":
        """Itself: what there is to fit, training has.

        Raises:
            InputError: the classifier has no centroids.
        """
        assert learn.tools.classifier is not None
        network = learn.tools.classifier.classifier
        if not isinstance(network, nn.Module) or not isinstance(last_layer(network), Rbf):
            raise InputError(
                "classifier: expected one trained with centroids (objective duq, network.head rbf), got "
                f"{type(network).__name__} without"
            )
        return self

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        return Scored(-ask.logits(ask.x).double().amax(1))

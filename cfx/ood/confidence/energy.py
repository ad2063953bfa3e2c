"""The free energy of an image under a classifier: E(x) = -T log sum_k exp(l_k(x) / T), with l its logits.

-E is, up to a constant, the logarithm of a density that the classifier's logits stand for; at T -> 0 it is the largest
logit. Cost: 1 classifier evaluation.

Reference: Liu, Wang, Owens, Li (2020), arXiv 2010.03759.
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored


@dataclass(frozen=True)
class Energy:
    """Settings of the detector.

    Attributes:
        temperature: T.
    """

    name: ClassVar[str] = "energy"
    needs: ClassVar[tuple[str, ...]] = ("classifier",)
    temperature: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a temperature that is not positive."""
        check_temperature(self.temperature)

    def fit(self, learn: Learn) -> "Energy":
        """Itself: there is nothing to fit."""
        return self

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        t = self.temperature
        return Scored(-t * (ask.logits(ask.x).double() / t).logsumexp(1))


def check_temperature(temperature: float) -> None:
    """Refuse a temperature that is not positive.

    Raises:
        InputError: that is so.
    """
    if not temperature > 0:
        raise InputError(f"temperature: expected a positive number, got {temperature}")

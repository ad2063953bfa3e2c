"""Confidence at a high temperature, after a small step towards it (ODIN).

With S(x) = max_k softmax(l(x) / T)_k and x' = x + eps sign(grad_x log S(x)) the score is 1 / K - S(x'), for K classes:
0 for an image that says nothing, lower for one of the distribution. Published with T = 1000 and eps tuned on images out
of distribution; here eps is chosen on those of the distribution (`cfx.ood.confidence.perturbation`). Cost: 2 classifier
evaluations, one of them with a gradient.

Reference: Liang, Li, Srikant (2018), arXiv 1706.02690.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from cfx.ood.confidence.energy import check_temperature
from cfx.ood.confidence.perturbation import check_step, choose, stepped
from cfx.ood.detector import Ask, Learn, Scored


@dataclass(frozen=True)
class Odin:
    """Settings of the detector.

    Attributes:
        temperature: T.
        eps: Length of the step in every pixel, on the scale of images in [-1, 1]; None to choose it.
    """

    name: ClassVar[str] = "odin"
    needs: ClassVar[tuple[str, ...]] = ("classifier",)
    temperature: float = 1000.0
    eps: float | None = None

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_temperature(self.temperature)
        check_step(self.eps)

    def fit(self, learn: Learn) -> "Odin":
        """The detector with its step."""
        return self if self.eps is not None else replace(self, eps=choose(learn, self._slope, self._confidence))

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        assert self.eps is not None
        return Scored(-self._confidence(ask, stepped(ask, self._slope, self.eps)))

    def _slope(self, ask: Ask) -> Float[Tensor, "b c *space"]:
        """Gradient of log S."""
        return ask.slope(ask.x, lambda logits: (logits / self.temperature).log_softmax(1).amax(1))

    def _confidence(self, ask: Ask, x: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
        """S less that of equal logits, float64: at a high temperature both are nearly the same."""
        p = (ask.logits(x).double() / self.temperature).softmax(1)
        return p.amax(1) - 1 / p.shape[1]

"""The numerator of a classifier that learnt to divide by the probability of being in distribution (generalised ODIN).

Such a network has logits h_k(z) / g(z) (`cfx.models.heads`). With S(x) = max_k h_k(x) and x' = x + eps sign(grad S(x))
the score is -S(x'); eps is chosen on in-distribution images alone (`cfx.ood.confidence.perturbation`), and there is no
temperature, as g has taken its place. Cost: 2 classifier evaluations, one of them with a gradient.

Reference: Hsu, Shen, Jin, Kira (2020), arXiv 2002.11297 (DeConf-I, -E and -C for inner products, distances, cosines).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.models.heads import QUOTIENTS, Quotient
from cfx.models.judge import Judge
from cfx.models.running import here
from cfx.ood.confidence.perturbation import check_step, choose, stepped
from cfx.ood.detector import Ask, Learn, Scored


@dataclass(frozen=True)
class Godin:
    """Settings of the detector.

    Attributes:
        eps: Length of the step in every pixel, on the scale of images in [-1, 1]; None to choose it.
    """

    name: ClassVar[str] = "godin"
    needs: ClassVar[tuple[str, ...]] = ("classifier",)
    eps: float | None = None

    def __post_init__(self) -> None:
        """Refuse a negative step."""
        check_step(self.eps)

    def fit(self, learn: Learn) -> "Godin":
        """The detector with its step.

        Raises:
            InputError: the classifier has no such head, or one logit alone.
        """
        if quotient(learn.tools.classifier).out_features < 2:
            raise InputError(
                "classifier: expected two or more logits for godin, got one; train it with one_logit: false"
            )
        return self if self.eps is not None else replace(self, eps=choose(learn, self._slope, self._confidence))

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        assert self.eps is not None
        return Scored(-self._confidence(ask, stepped(ask, self._slope, self.eps)))

    def _slope(self, ask: Ask) -> Float[Tensor, "b c *space"]:
        """Gradient of S."""
        with _numerators(ask) as h:
            return ask.slope(ask.x, lambda _: h[0].amax(1))

    def _confidence(self, ask: Ask, x: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
        """S."""
        with _numerators(ask) as h:
            ask.logits(x)
        return h[0].amax(1)


def quotient(judge: Judge | None) -> Quotient:
    """The head of a classifier that is a quotient.

    Raises:
        InputError: there is none.
    """
    network = None if judge is None else judge.classifier
    parts = network.modules() if isinstance(network, nn.Module) else ()
    found = next((m for m in parts if isinstance(m, Quotient)), None)
    if found is None:
        raise InputError(
            f"classifier: expected one trained with a head of generalised ODIN (network.head: one of "
            f"{list(QUOTIENTS)}), got {type(network).__name__} without"
        )
    return found


@contextmanager
def _numerators(ask: Ask) -> Iterator[list[Float[Tensor, "b k"]]]:
    """Catch h of every pass inside, on its way to the logits."""
    found: list[Tensor] = []
    head = quotient(ask.tools.classifier)
    handle = head.register_forward_hook(here(lambda _, z, __: found.append(head.h(z[0]))))
    try:
        yield found
    finally:
        handle.remove()

"""How unsure the sub-networks that dropout trains are together: 1 - max_k p_k(x), p the mean of their softmax.

The T sub-networks are patterns of dropout drawn once from the seed, the same for every image (`cfx.models.dropout`).
Cost: T classifier evaluations.

References: Gal and Ghahramani (2016), arXiv 1506.02142; Hendrycks and Gimpel (2017), arXiv 1610.02136.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from cfx.core.errors import InputError
from cfx.models.dropout import dropouts, dropped
from cfx.ood.confidence.mcp import doubt
from cfx.ood.detector import Ask, Learn, Scored


@dataclass(frozen=True)
class McDropout:
    """Settings of the detector.

    Attributes:
        patterns: T.
    """

    name: ClassVar[str] = "mc-dropout"
    needs: ClassVar[tuple[str, ...]] = ("classifier",)
    patterns: int = 16

    def __post_init__(self) -> None:
        """Refuse to ask nobody."""
        if self.patterns < 1:
            raise InputError(f"patterns: expected at least 1 pattern of dropout, got {self.patterns}")

    def fit(self, learn: Learn) -> "McDropoutScorer":
        """The detector with the seed of its patterns.

        Raises:
            InputError: the classifier has no dropout.
        """
        assert learn.tools.classifier is not None
        dropouts(learn.tools.classifier.classifier)
        return McDropoutScorer(self.patterns, learn.seed)


@dataclass(frozen=True)
class McDropoutScorer:
    """The detector, fitted.

    Attributes:
        patterns: T.
        seed: Seed of the patterns.
    """

    patterns: int
    seed: int

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        assert ask.tools.classifier is not None
        members = []
        for t in range(self.patterns):
            with dropped(ask.tools.classifier.classifier, self.seed, t):
                members.append(ask.logits(ask.x).double().softmax(1))
        return Scored(doubt(torch.stack(members).mean(0)))

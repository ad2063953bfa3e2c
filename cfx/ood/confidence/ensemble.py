"""How unsure several classifiers, trained alike from other seeds, are together: 1 - max_k p_k(x), p their mean softmax.

Cost: 1 evaluation of each.

Reference: Lakshminarayanan, Pritzel, Blundell (2017), arXiv 1612.01474.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from cfx.core.errors import InputError
from cfx.ood.confidence.mcp import doubt
from cfx.ood.detector import Ask, Learn, Scored


@dataclass(frozen=True)
class Ensemble:
    """The detector, which has no settings."""

    name: ClassVar[str] = "ensemble"
    needs: ClassVar[tuple[str, ...]] = ("ensemble",)

    def fit(self, learn: Learn) -> "Ensemble":
        """Itself: there is nothing to fit."""
        return self

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch.

        Raises:
            InputError: members of other numbers of classes.
        """
        members = [ask.member(k, ask.x).double().softmax(1) for k in range(len(ask.tools.ensemble))]
        if len(classes := sorted({p.shape[1] for p in members})) > 1:
            raise InputError(f"ensemble: expected classifiers of the same classes, got some of {classes} classes")
        return Scored(doubt(torch.stack(members).mean(0)))

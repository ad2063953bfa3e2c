"""Counting what networks were asked for each row, so that every result can say what it cost."""

from typing import ClassVar

import torch
from jaxtyping import Int
from torch import Tensor


class Meter:
    """Evaluations spent on each of `n` rows.

    Attributes:
        unet_forward: Generator evaluations.
        unet_backward: Back-propagations through the generator.
        classifier: Classifier evaluations, those of gradients included.
        classifier_backward: Classifier gradients.
    """

    KINDS: ClassVar[tuple[str, ...]] = ("unet_forward", "unet_backward", "classifier", "classifier_backward")

    unet_forward: Int[Tensor, " n"]
    unet_backward: Int[Tensor, " n"]
    classifier: Int[Tensor, " n"]
    classifier_backward: Int[Tensor, " n"]

    def __init__(self, n: int, device: torch.device | None = None) -> None:
        """Start at zero."""
        for kind in self.KINDS:
            setattr(self, kind, torch.zeros(n, dtype=torch.long, device=device))

    def count(self, kind: str, rows: Int[Tensor, " m"]) -> None:
        """Add one evaluation of a kind for every entry of `rows` (a row may occur several times)."""
        getattr(self, kind).index_add_(0, rows, torch.ones_like(rows))

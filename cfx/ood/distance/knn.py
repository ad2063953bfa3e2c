"""Distance to the k-th nearest of the images it is fitted to, in features of length 1.

With z normalised to |z| = 1 the score is |z - z_(k)|, z_(k) the k-th nearest. Of several layers the normalised vectors
are joined. No shape of the distribution is assumed, and features of contrastive training (objective `features`) tell
more apart than those of a classifier, which keeps what its classes need. Cost: 1 evaluation of the features.

Reference: Sun, Ming, Zhu, Li (2022), arXiv 2204.06507 (k = 50 of 50,000 images).
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.distance.vectors import collected, vectors


@dataclass(frozen=True)
class Knn:
    """Settings of the detector.

    Attributes:
        k: Which neighbour.
    """

    name: ClassVar[str] = "knn"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    k: int = 5

    def __post_init__(self) -> None:
        """Refuse neighbours before the first."""
        if self.k < 1:
            raise InputError(f"k: expected the number of a neighbour, 1 or more, got {self.k}")

    def fit(self, learn: Learn) -> "KnnScorer":
        """The features that are searched.

        Raises:
            InputError: fewer images than neighbours.
        """
        if self.k > len(learn.cohort):
            raise InputError(f"k: expected at most the {len(learn.cohort)} images it is fitted to, got {self.k}")
        return KnnScorer(self.k, _unit(collected(learn)))


def _unit(layers: list[Float[Tensor, "n _"]]) -> Float[Tensor, "n d"]:
    """Each layer's vectors with length 1, joined to vectors of length 1."""
    joined = torch.cat([functional.normalize(v, dim=1) for v in layers], 1)
    return joined / math.sqrt(len(layers))


@dataclass(frozen=True)
class KnnScorer:
    """The detector, fitted.

    Attributes:
        k: Which neighbour.
        bank: Normalised features of the images it was fitted to.
    """

    k: int
    bank: Float[Tensor, "n d"]

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch; distances are not made of products, whose rounding would depend on the batch."""
        apart = torch.cdist(_unit(vectors(ask)), self.bank, compute_mode="donot_use_mm_for_euclid_dist")
        return Scored(apart.kthvalue(self.k, dim=1).values)

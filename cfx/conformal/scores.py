"""How badly a class fits probabilities: the scores of three kinds of prediction sets, of every class of every row.

    LAC     1 - p_y                                                  smallest sets on average
    APS     sum_{j : p_j > p_y} p_j + u p_y                          sets adapt to how hard a row is
    RAPS    APS + lambda max(0, rank_y - k_reg)                      and have no long tails

with rank 1 for the most probable class, and u = 1, or uniform in [0, 1) where sets are randomised, which makes them
smaller and their coverage exact. Calibration rows and new rows are scored in one and the same way: thresholds of
randomised scores for sets of others cover too little or too much. The sign of the sum matters: with 1 minus it, the
level is kept by sets of nearly all classes. A row's u is a function of the seed and of the row's number, so batches
change nothing, and it differs between calibration and new rows of one number.

References: Sadinle, Lei, Wasserman (2019), "Least ambiguous set-valued classifiers with bounded error levels"; Romano,
Sesia, Candes (2020), "Classification with valid and adaptive coverage"; Angelopoulos, Bates, Jordan, Malik (2021),
"Uncertainty sets for image classifiers using conformal prediction".
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.probabilities import entries
from cfx.core.random import uniform
from cfx.core.risk import check_alpha

CALIBRATION, NEW = 0xC0, 0xC1
"""Streams of u, of calibration rows and of new ones."""


@runtime_checkable
class Score(Protocol):
    """A score: a name, a level, and a number of every class, higher where it fits less."""

    @property
    def alpha(self) -> float:
        """Largest probability of missing the true class."""

    @property
    def name(self) -> str:
        """Name of the method."""

    def of(self, p: Float[Tensor, "n k *space"], row: Int[Tensor, " n"], stream: int) -> Float[Tensor, "n k *space"]:
        """Scores of all classes, given the numbers of the rows and the stream of their random numbers."""


@dataclass(frozen=True)
class LacScore:
    """See the module.

    Attributes:
        alpha: Largest probability of missing the true class.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no level."""
        check_alpha(self.alpha)

    @property
    def name(self) -> str:
        """Name of the method."""
        return "lac"

    def of(self, p: Float[Tensor, "n k *space"], row: Int[Tensor, " n"], stream: int) -> Float[Tensor, "n k *space"]:
        """1 - p."""
        return 1 - p


@dataclass(frozen=True)
class ApsScore:
    """See the module.

    Attributes:
        alpha: Largest probability of missing the true class.
        randomised: Whether the class itself counts by a random share u, else whole.
        seed: Seed of u.
    """

    alpha: float = 0.1
    randomised: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no level."""
        check_alpha(self.alpha)

    @property
    def name(self) -> str:
        """Name of the method."""
        return "aps" if self.randomised else "aps-deterministic"

    def of(self, p: Float[Tensor, "n k *space"], row: Int[Tensor, " n"], stream: int) -> Float[Tensor, "n k *space"]:
        """Probability that is passed before a class is reached, and a part of its own."""
        step = entries(4 * p[0].numel())
        parts = [self._some(q, at, stream) for q, at in zip(p.split(step), row.split(step), strict=True)]
        return torch.cat(parts)

    def _some(self, p: Tensor, row: Tensor, stream: int) -> Tensor:
        falling, order = p.sort(dim=1, descending=True, stable=True)
        before = falling.cumsum(1) - falling
        own = falling
        if self.randomised:
            u = uniform(p.shape[2:], seed=self.seed, row=row.to(p.device), stream=stream)
            own = falling * u.view(len(p), *p.shape[2:])[:, None].to(p)
        return torch.empty_like(p).scatter_(1, order, before + own + self._penalty(p.shape[1], p))

    def _penalty(self, k: int, like: Tensor) -> Tensor | float:
        """What ranks 1 .. k cost, along axis 1."""
        return 0.0


@dataclass(frozen=True)
class RapsScore(ApsScore):
    """See the module.

    Attributes:
        alpha: Largest probability of missing the true class.
        randomised: As in APS.
        seed: As in APS.
        weight: lambda, the penalty of a rank beyond the last free one; 0 is APS.
        free: k_reg, ranks without a penalty.
    """

    weight: float = 0.01
    free: int = 1

    def __post_init__(self) -> None:
        """Refuse negative penalties."""
        super().__post_init__()
        if self.weight < 0 or self.free < 0:
            raise InputError(f"weight, free: expected numbers >= 0, got {self.weight} and {self.free}")

    @property
    def name(self) -> str:
        """Name of the method."""
        return "raps" if self.randomised else "raps-deterministic"

    def _penalty(self, k: int, like: Tensor) -> Tensor:
        rank = torch.arange(1, k + 1, device=like.device)
        return (self.weight * (rank - self.free).clamp_min(0)).to(like).view(1, -1, *[1] * (like.ndim - 2))

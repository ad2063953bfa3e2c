"""Intervals that hold a number with probability 1 - alpha: conformalised quantile regression, and volumes of masks.

With lower and upper ends l(x), u(x) that some model says, the score of a row is how far y is outside, negative inside:

    s = max(l(x) - y, y - u(x)),     interval [l(x) - q, u(x) + q],     q the conformal quantile of the scores.

One margin serves both sides; the level holds for both together. (MAPIE's default is a margin a side.) Ends that are too
wide are brought in, since q may be negative.

Volumes come from a sampler's masks: the ends are quantiles of the volumes of its draws, and scores are taken of log(1 +
voxels), since volumes err by factors. Where several readers drew a mask, their rows count together: on average a share
1 - alpha of the readers' volumes of a new image (of a new patient, with `groups`) lies inside.

References: Romano, Patterson, Candes (2019), "Conformalized quantile regression"; `cfx.core.risk`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cfx.conformal.classification import EXCHANGEABLE
from cfx.conformal.result import Intervals
from cfx.core.arrays import as_tensor
from cfx.core.disjoint import People, check_disjoint, people
from cfx.core.errors import InputError
from cfx.core.groups import numbered
from cfx.core.risk import check_alpha, risk_threshold

Numbers = Shaped[Tensor, "n *reader"] | Sequence[float] | Any
"""One number a row, or one a reader of it: a tensor, an array or a list."""


@dataclass(frozen=True)
class Margin:
    """How far intervals are widened, and what that was made of.

    Attributes:
        alpha: Largest probability of missing.
        margin: The quantile q; infinite where there are too few rows.
        rows: Rows, or groups of them, that it was made of.
        ids: Their subjects, where they were named.
        method: Name of the method.
    """

    alpha: float
    margin: float
    rows: int
    ids: tuple[str, ...] = field(default=(), repr=False)
    method: str = "cqr"

    def intervals(self, low: Numbers, high: Numbers, *, ids: People = ()) -> Intervals:
        """The intervals of new rows.

        Args:
            low: Lower ends that the model says.
            high: Upper ends.
            ids: The subject of every row, or their cohort, which must not be among the calibration rows.

        Raises:
            InputError: ends that are none, or subjects of the calibration rows.
        """
        l, u = _ends(low, high)  # noqa: E741
        if own := people(ids, len(l)):
            check_disjoint(own, [self.ids])
        middle = (l + u) / 2  # a margin below minus half of the width leaves nothing but the middle
        return Intervals(
            low=torch.minimum(l - self.margin, middle), high=torch.maximum(u + self.margin, middle),
            row=torch.arange(len(l)), method=self.method, level=1 - self.alpha, calibrated=self.rows,
            assumption=EXCHANGEABLE,
        )  # fmt: skip


@dataclass(frozen=True)
class CQR:
    """Conformalised quantile regression.

    Attributes:
        alpha: Largest probability of missing.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no level."""
        check_alpha(self.alpha)

    def fit(
        self,
        low: Numbers,
        high: Numbers,
        y: Numbers,
        *,
        groups: Int[Tensor, " n"] | None = None,
        ids: People = (),
        apart_from: Sequence[People] = (),
    ) -> Margin:
        """Make the margin of calibration rows.

        Args:
            low: Lower ends that the model says, one a row.
            high: Upper ends.
            y: The numbers `(n,)`, or several of each row `(n, readers)`.
            groups: Patient of every row, whose rows then count together.
            ids: The subject of every row, or their cohort.
            apart_from: Who must not be among them.

        Raises:
            InputError: numbers that are none or of other lengths, or subjects in common.
        """
        l, u = _ends(low, high)  # noqa: E741
        truth = _finite(y, "y")
        if truth.ndim not in (1, 2) or len(truth) != len(l):
            raise InputError(f"y: expected one number, or some, for each of {len(l)} rows, got {tuple(truth.shape)}")
        known = people(ids, len(l))
        check_disjoint(known, apart_from)
        truth = truth.view(len(l), -1)
        scores = torch.maximum(l[:, None] - truth, truth - u[:, None])
        of = torch.arange(len(l)) if groups is None else numbered(groups, len(l), "groups")
        weight = (1 / (of.bincount()[of] * truth.shape[1]).double())[:, None].expand(scores.shape)
        n = int(of.max()) + 1 if len(of) else 0
        return Margin(self.alpha, risk_threshold(scores.flatten(), weight.flatten(), n, self.alpha), n, known)


def _finite(value: Numbers, name: str) -> Float[Tensor, "n *reader"]:
    found = as_tensor(value, name, "a number a row").double().cpu()
    if not bool(found.isfinite().all()):
        raise InputError(f"{name}: expected finite numbers, got NaN or infinity")
    return found


def _ends(low: Numbers, high: Numbers) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    l, u = _finite(low, "low"), _finite(high, "high")  # noqa: E741
    if l.ndim != 1 or l.shape != u.shape:
        raise InputError(f"low, high: expected one of each a row, got {tuple(l.shape)} and {tuple(u.shape)}")
    if bool((l > u).any()):
        raise InputError(f"low, high: expected low <= high, got {int((l > u).sum())} rows the other way round")
    return l, u


@dataclass(frozen=True)
class Volumes:
    """Intervals of the volume of a mask, from a sampler's draws.

    Attributes:
        alpha: Largest share of the readers' volumes that is missed.
        inner: Probability between the quantiles of the draws that the intervals start from.
    """

    alpha: float = 0.1
    inner: float = 0.8

    def __post_init__(self) -> None:
        """Refuse what is no level."""
        check_alpha(self.alpha)
        check_alpha(self.inner, "inner")

    def fit(
        self,
        drawn: Shaped[Tensor, "n s"],
        volume: Numbers,
        *,
        groups: Int[Tensor, " n"] | None = None,
        ids: People = (),
        apart_from: Sequence[People] = (),
    ) -> Margin:
        """Make the margin of calibration images.

        Args:
            drawn: Volumes of a sampler's draws `(n, s)`: see `volumes_of`.
            volume: Volumes `(n,)`, or those of several readers `(n, readers)`, in the same unit.
            groups: Patient of every image, whose images then count together.
            ids: The subject of every image, or their cohort.
            apart_from: Who must not be among them.

        Raises:
            InputError: negative volumes, or as `CQR.fit`.
        """
        low, high = self._ends(drawn)
        found = _finite(volume, "volume")
        if bool((found < 0).any()):
            raise InputError("volume: expected volumes >= 0, got some below")
        fitted = CQR(self.alpha).fit(low, high, found.log1p(), groups=groups, ids=ids, apart_from=apart_from)
        return Margin(fitted.alpha, fitted.margin, fitted.rows, fitted.ids, "volumes")

    def intervals(self, drawn: Shaped[Tensor, "n s"], margin: Margin, *, ids: People = ()) -> Intervals:
        """Intervals of the volumes of new images; arguments and errors as `fit` and `Margin.intervals`."""
        found = margin.intervals(*self._ends(drawn), ids=ids)
        return found.replace(low=found.low.expm1().clamp_min(0), high=found.high.expm1())

    def _ends(self, drawn: Tensor) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Quantiles of the logarithms of the drawn volumes."""
        if drawn.ndim != 2 or not drawn.numel() or bool((drawn < 0).any()):
            raise InputError(f"drawn: expected volumes >= 0 of draws (n, s), got {tuple(drawn.shape)}")
        tails = torch.tensor([(1 - self.inner) / 2, (1 + self.inner) / 2], dtype=torch.float64)
        low, high = drawn.double().cpu().log1p().quantile(tails, dim=1)
        return low, high


def volumes_of(masks: Shaped[Tensor, "n s *space"], label: int = 1) -> Int[Tensor, "n s"]:
    """Voxels of a label in every drawn mask, or in every reader's.

    Args:
        masks: Masks or labels, `(n, s, *space)`.
        label: Which label is counted.
    """
    return (masks == label).flatten(2).sum(2)

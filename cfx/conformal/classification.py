"""Sets of classes that hold the true one with probability 1 - alpha, whatever the classifier, if rows are exchangeable.

    fitted = LAC(alpha=0.1).fit(p, y, ids=cohort, apart_from=[temperature])
    found = fitted.sets(p_new)          # PredictionSets: .sets (n, k), .size, .verdict, .coverage(y), .sentence(0)

A class is in the set where its score is **at most** the ceil((n + 1)(1 - alpha))-th smallest of the calibration rows'
true classes. That quantile is infinite, and every set holds all classes, where n < (1 - alpha) / alpha. `Mondrian`
makes a threshold for every class, or for every group of rows, from its own rows: so each class, the rare ones too, is
covered. Of a class with too few rows, or none, nothing is known and it stays in every set.

Probabilities of voxels `(n, k, *space)` are calibrated by images, since those are exchangeable and voxels of one are
not: on average over images, a share 1 - alpha of an image's voxels (`Mondrian`: of those of a class, over images that
have it) is in the sets. That is risk control (`cfx.core.risk`) of the missed share.

What is promised is an average over calibration and new rows. Given the calibration rows at hand the coverage is
Beta(k, n + 1 - k) distributed, which `coverage` draws its band from. Nothing is promised for a single row, for another
distribution (see `Weighted`) or for classes and groups that were not asked for.

References: as `cfx.core.conformal` and `cfx.conformal.scores`; Vovk (2012), "Conditional validity of inductive
conformal predictors", for Mondrian.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cfx.conformal.result import PredictionSets, certainty
from cfx.conformal.scores import CALIBRATION, NEW, ApsScore, LacScore, RapsScore, Score
from cfx.core.arrays import as_tensor, whole_numbers
from cfx.core.conformal import conformal_p_values
from cfx.core.disjoint import People, check_disjoint, people
from cfx.core.errors import InputError
from cfx.core.probabilities import Classes, Probabilities, classes, probabilities
from cfx.core.risk import risk_threshold

EXCHANGEABLE = "new rows and calibration rows are exchangeable"
_VOXELS = "new images and calibration images are exchangeable; the level is the mean share of an image's voxels"


@dataclass(frozen=True)
class Calibrated:
    """Thresholds, and what they were made of.

    Attributes:
        score: The score and its level.
        threshold: Score up to which a class is in the set, one a group and class; infinite of too few rows.
        calibration: Scores of the true class of every calibration row, `(n, *space)`.
        y: Classes of the calibration rows.
        group: Group of every calibration row.
        by_class: Whether every class has a threshold of its own.
        method: Name of the method.
        assumption: What the level rests on.
        ids: Subjects of the calibration rows, where they were named.
        names: Names of the classes.
    """

    score: Score
    threshold: Float[Tensor, "groups k"]
    calibration: Float[Tensor, "n *space"]
    y: Int[Tensor, "n *space"]
    group: Int[Tensor, " n"]
    by_class: bool
    method: str
    assumption: str
    ids: tuple[str, ...] = field(default=(), repr=False)
    names: Sequence[str] = ()

    def sets(
        self,
        p: Probabilities,
        *,
        group: Shaped[Tensor, " n"] | Sequence[int] | None = None,
        row: Int[Tensor, " n"] | None = None,
        ids: People = (),
    ) -> PredictionSets:
        """The sets of new rows.

        Args:
            p: Probabilities `(n, k)`.
            group: Group of each row, where thresholds are by group.
            row: Number of each row among all new ones, by default from 0: what random numbers hang on, so pass it with
                batches of a larger cohort.
            ids: The subject of every row, or their cohort, which must not be among the calibration rows.

        Raises:
            InputError: no probabilities of as many classes, of voxels (see `voxel_sets`), groups that are lacking, or
                subjects of the calibration rows.
        """
        found, at = self._given(p, row, ids)
        if found.ndim != 2:
            raise InputError(f"p: expected probabilities (n, k), got {tuple(found.shape)}; of voxels ask voxel_sets")
        inside, threshold = self._inside(found, at, group)
        size = inside.sum(1)
        return PredictionSets(
            sets=inside, size=size, verdict=certainty(size, inside.shape[1]), threshold=threshold, row=at,
            method=self.method, level=1 - self.score.alpha, calibrated=len(self.calibration),
            assumption=self.assumption, classes=self.names,
            by_class=tuple(self.y.bincount(minlength=inside.shape[1]).tolist()) if self.by_class else (),
        )  # fmt: skip

    def voxel_sets(
        self, p: Probabilities, *, row: Int[Tensor, " n"] | None = None, ids: People = ()
    ) -> Bool[Tensor, "n k *space"]:
        """Which classes are in the set of every voxel; arguments and errors as `sets`, of `(n, k, *space)`."""
        found, at = self._given(p, row, ids)
        return self._inside(found, at, None)[0]

    def p_values(self, p: Probabilities, *, row: Int[Tensor, " n"] | None = None) -> Float[Tensor, "n k"]:
        """Of every class the p-value of being the true one, (1 + rows of at least this score) / (1 + rows), float64.

        Where thresholds are by class, its own rows alone count. A class is in the set where its p-value is above alpha.

        Args:
            p: Probabilities `(n, k)`.
            row: As in `sets`.

        Raises:
            InputError: as `sets`; also calibration by groups, or on voxels.
        """
        found, at = self._given(p, row, ())
        if found.ndim != 2 or self.calibration.ndim != 1 or len(self.threshold) > 1:
            raise InputError("p: p-values are made of rows (n, k) without groups, calibrated on such")
        scores = self.score.of(found, at, NEW).double()
        known = [self.calibration[self.y == k] if self.by_class else self.calibration for k in range(found.shape[1])]
        return torch.stack([conformal_p_values(own, scores[:, k]) for k, own in enumerate(known)], 1)

    def _given(self, p: Probabilities, row: Tensor | None, ids: People) -> tuple[Tensor, Tensor]:
        found = probabilities(p)
        if found.shape[1] != self.threshold.shape[1]:
            raise InputError(f"p: expected {self.threshold.shape[1]} classes, got {found.shape[1]}")
        if own := people(ids, len(found)):
            check_disjoint(own, [self.ids])
        at = torch.arange(len(found)) if row is None else row
        if at.shape != (len(found),):
            raise InputError(f"row: expected one number a row, {len(found)}, got {tuple(at.shape)}")
        return found, at

    def _inside(self, p: Tensor, row: Tensor, group: Any) -> tuple[Tensor, Tensor]:  # noqa: ANN401
        """Which classes are in, and up to which score."""
        of = groups_of(group, len(p))
        if len(self.threshold) > 1 and group is None:
            raise InputError("group: expected the group of each row, since thresholds are by group, got none")
        bounds = torch.cat([self.threshold, torch.full((1, p.shape[1]), torch.inf).to(self.threshold)])
        own = bounds[of.clamp_max(len(self.threshold))].to(p.device)  # of groups never seen nothing is excluded
        scores = self.score.of(p, row, NEW)
        return scores.double() <= own.view(*own.shape, *[1] * (p.ndim - 2)), own


def groups_of(group: Any, n: int) -> Int[Tensor, " n"]:  # noqa: ANN401
    """Groups of n rows, numbered from 0; all 0 where there are none.

    Raises:
        InputError: another number of them, or negative ones.
    """
    if group is None:
        return torch.zeros(n, dtype=torch.long)
    found = whole_numbers(as_tensor(group, "group", "group numbers"), "group")
    if found.shape != (n,) or (n and int(found.min()) < 0):
        raise InputError(f"group: expected a number >= 0 for each of {n} rows, got {tuple(found.shape)}")
    return found.cpu()


def calibrate(
    score: Score,
    p: Probabilities,
    y: Classes,
    *,
    by_class: bool = False,
    least: int = 0,
    group: Any = None,  # noqa: ANN401
    ids: People = (),
    apart_from: Sequence[People] = (),
    names: Sequence[str] = (),
    method: str = "",
) -> Calibrated:
    """Thresholds of a score; arguments as the `fit` of the classes below, `least` as in `Mondrian`."""
    found = probabilities(p)
    truth, of = classes(y, found), groups_of(group, len(found))
    known = people(ids, len(found))
    check_disjoint(known, apart_from)
    row = torch.arange(len(found))
    own = score.of(found, row, CALIBRATION).gather(1, truth[:, None])[:, 0]
    cells = [(g, k) for g in range(int(of.max()) + 1) for k in range(found.shape[1] if by_class else 1)]
    each = [_threshold(own[of == g], truth[of == g], k if by_class else None, score.alpha, least) for g, k in cells]
    threshold = torch.tensor(each, dtype=torch.float64).view(int(of.max()) + 1, -1)
    return Calibrated(
        score, threshold.expand(-1, found.shape[1]).clone(), own, truth, of, by_class, method or score.name,
        EXCHANGEABLE if found.ndim == 2 else _VOXELS, known, tuple(names),
    )  # fmt: skip


def _threshold(
    scores: Float[Tensor, "n *space"], y: Int[Tensor, "n *space"], label: int | None, alpha: float, least: int
) -> float:
    """Threshold of all rows, or of the rows and voxels of one class."""
    chosen = torch.ones_like(y, dtype=torch.bool) if label is None else y == label
    per_row = chosen.flatten(1).sum(1) if y.ndim > 1 else chosen.long()
    n = int((per_row > 0).sum())
    if n < max(1, least):
        return torch.inf
    weight = (1 / per_row.double()).view(-1, *[1] * (y.ndim - 1)).expand(y.shape)
    return risk_threshold(scores[chosen].double(), weight[chosen], n, alpha)


class Conformal:
    """Base of scores that are calibrated as they are: `LAC`, `APS`, `RAPS`."""

    def fit(
        self: Any,  # a score
        p: Probabilities,
        y: Classes,
        *,
        ids: People = (),
        apart_from: Sequence[People] = (),
        names: Sequence[str] = (),
    ) -> Calibrated:
        """Make the threshold of calibration rows.

        Args:
            p: Probabilities `(n, k)`, or of voxels `(n, k, *space)`, of rows that neither the network nor a temperature
                was fitted to.
            y: Their classes.
            ids: The subject of every row, or their cohort; remembered, so that no new row is one of them.
            apart_from: Cohorts, or what was fitted to some (a `Temperature`), that must not have these subjects.
            names: Names of the classes.

        Raises:
            InputError: probabilities or classes that are none, or subjects in common.
        """
        return calibrate(self, p, y, ids=ids, apart_from=apart_from, names=names)


@dataclass(frozen=True)
class LAC(LacScore, Conformal):
    """Least ambiguous sets: all classes whose probability is high enough (score 1 - p). Attributes as `LacScore`."""


@dataclass(frozen=True)
class APS(ApsScore, Conformal):
    """Adaptive sets: the most probable classes up to a total (score `ApsScore`). Attributes as there."""


@dataclass(frozen=True)
class RAPS(RapsScore, Conformal):
    """Adaptive sets without long tails (score `RapsScore`). Attributes as there."""


@dataclass(frozen=True)
class Mondrian:
    """A threshold for every class, or for every group of rows, of its own rows.

    Attributes:
        score: The score and the level.
        by: `class`: every class is covered with probability 1 - alpha; `group`: every group of rows, a site, say.
        least: The guard: a class or group with fewer calibration rows than this excludes nothing. With fewer than
            (1 - alpha) / alpha none can be, whatever it is.
    """

    score: Score = field(default_factory=LacScore)
    by: str = "class"
    least: int = 0

    def __post_init__(self) -> None:
        """Refuse what is neither by class nor by group."""
        if self.by not in ("class", "group") or self.least < 0:
            raise InputError(f"by, least: expected class or group and a number >= 0, got {self.by!r}, {self.least}")

    def fit(
        self,
        p: Probabilities,
        y: Classes,
        *,
        group: Shaped[Tensor, " n"] | Sequence[int] | None = None,
        ids: People = (),
        apart_from: Sequence[People] = (),
        names: Sequence[str] = (),
    ) -> Calibrated:
        """Make the thresholds of calibration rows; arguments as `Conformal.fit`.

        Args:
            p: Probabilities.
            y: Classes.
            group: Group of each row, numbered from 0, where thresholds are by group.
            ids: Subjects.
            apart_from: Who must not be among them.
            names: Names of the classes.

        Raises:
            InputError: as there; also groups that are lacking, or not asked for.
        """
        if (group is None) == (self.by == "group"):
            raise InputError(f"group: expected groups with by='group' and none else, got by={self.by!r}")
        return calibrate(
            self.score, p, y, by_class=self.by == "class", least=self.least, group=group, ids=ids,
            apart_from=apart_from, names=names, method=f"mondrian-{self.score.name}",
        )  # fmt: skip

"""Sets of classes under a shift whose density ratio is known or estimated: coverage returns where plain sets lose it.

**Covariates** shift, p(y | x) stays: with w(x) = dP_new(x) / dP_old(x) the threshold of a new row is the 1 - alpha
quantile of the calibration scores weighted by w, the row's own weight at infinity. **Labels** shift, p(x | y) stays:
w(y) = P_new(y) / P_old(y), and a class is tried with its own weight. With w = 1 both are the plain sets, score for
score. A new row whose weight is large among those of all calibration rows excludes nothing: it is where too little is
known.

With true weights the level holds in finite samples; with estimated ones up to their error. `label_ratios` solves for
the new class frequencies from what the classifier decides on unlabelled new rows, `covariate_ratios` asks a logistic
regression which cohort a feature vector is from. Both need the supports to overlap, and neither can tell that p(y | x)
or p(x | y) changed as well.

References: Tibshirani, Barber, Candes, Ramdas (2019), "Conformal prediction under covariate shift"; Podkopaev, Ramdas
(2021), "Distribution-free uncertainty quantification for classification under label shift"; Lipton, Wang, Smola (2018),
"Detecting and correcting for label shift with black box predictors".
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy.optimize import nnls
from torch import Tensor
from torch.nn import functional

from cfx.conformal.result import PredictionSets, certainty
from cfx.conformal.scores import CALIBRATION, NEW, LacScore, Score
from cfx.core.arrays import as_tensor
from cfx.core.disjoint import People, check_disjoint, people
from cfx.core.errors import InputError
from cfx.core.probabilities import Classes, Probabilities, classes, probabilities
from cfx.core.risk import weighted_thresholds

_ASSUMPTIONS = {
    "covariate": "the chance of each class given the image is unchanged, and images differ by the weights given",
    "label": "images of each class are unchanged, and classes differ in frequency by the weights given",
}
_STEPS = 200


@dataclass(frozen=True)
class Weighted:
    """Sets under a shift.

    Attributes:
        score: The score and the level.
        shift: `covariate` or `label`: what the weights are of.
    """

    score: Score = field(default_factory=LacScore)
    shift: str = "covariate"

    def __post_init__(self) -> None:
        """Refuse another shift."""
        if self.shift not in _ASSUMPTIONS:
            raise InputError(f"shift: expected covariate or label, got {self.shift!r}")

    def fit(
        self,
        p: Probabilities,
        y: Classes,
        weight: Any,  # noqa: ANN401
        *,
        ids: People = (),
        apart_from: Sequence[People] = (),
        names: Sequence[str] = (),
    ) -> "WeightedScores":
        """Score calibration rows.

        Args:
            p: Probabilities `(n, k)` of rows of the old distribution.
            y: Their classes.
            weight: Density ratio, new over old: of covariates one a row `(n,)`, of labels one a class `(k,)`.
            ids: The subject of every row, or their cohort.
            apart_from: Who must not be among them.
            names: Names of the classes.

        Raises:
            InputError: probabilities, classes or weights that are none, or subjects in common.
        """
        found = probabilities(p)
        if found.ndim != 2:
            raise InputError(f"p: expected probabilities (n, k), got {tuple(found.shape)}")
        truth = classes(y, found)
        known = people(ids, len(found))
        check_disjoint(known, apart_from)
        w = _weights(weight, len(found) if self.shift == "covariate" else found.shape[1])
        row = torch.arange(len(found))
        own = self.score.of(found, row, CALIBRATION).gather(1, truth[:, None])[:, 0].double().cpu()
        each = w if self.shift == "covariate" else w[truth.cpu()]
        ratios = None if self.shift == "covariate" else w
        return WeightedScores(self.score, own, each, ratios, _ASSUMPTIONS[self.shift], known, tuple(names))


@dataclass(frozen=True)
class WeightedScores:
    """Scores of calibration rows with their weights.

    Attributes:
        score: The score and its level.
        calibration: Scores of the true classes.
        weight: Density ratio of every calibration row.
        ratios: Density ratio of every class under label shift, else None.
        assumption: What the level rests on.
        ids: Subjects of the rows, where they were named.
        names: Names of the classes.
    """

    score: Score
    calibration: Float[Tensor, " n"]
    weight: Float[Tensor, " n"]
    ratios: Float[Tensor, " k"] | None
    assumption: str
    ids: tuple[str, ...] = field(default=(), repr=False)
    names: Sequence[str] = ()

    @property
    def worth(self) -> int:
        """Equally weighted rows that these are worth, (sum w)^2 / sum w^2 (Kish 1965)."""
        return int(self.weight.sum().square() / self.weight.square().sum())

    def sets(
        self,
        p: Probabilities,
        weight: Any = None,  # noqa: ANN401
        *,
        row: Int[Tensor, " n"] | None = None,
        ids: People = (),
    ) -> PredictionSets:
        """The sets of new rows, of the new distribution.

        Args:
            p: Probabilities `(n, k)`.
            weight: Density ratio of each row, under a shift of covariates; up to the same factor as in `fit`.
            row: Number of each row among all new ones, by default from 0.
            ids: The subject of every row, or their cohort, which must not be among the calibration rows.

        Raises:
            InputError: probabilities or weights that are none, or subjects of the calibration rows.
        """
        found = probabilities(p)
        if own := people(ids, len(found)):
            check_disjoint(own, [self.ids])
        if (weight is None) == (self.ratios is None):
            raise InputError("weight: expected one a row under a shift of covariates, none under one of labels")
        new = _weights(weight, len(found))[:, None] if self.ratios is None else self.ratios[None]
        if self.ratios is not None and len(self.ratios) != found.shape[1]:
            raise InputError(f"p: expected {len(self.ratios)} classes, got {found.shape[1]}")
        threshold = weighted_thresholds(self.calibration, self.weight, new, self.score.alpha).expand(found.shape)
        at = torch.arange(len(found)) if row is None else row
        inside = self.score.of(found, at, NEW).double() <= threshold.to(found.device)
        size = inside.sum(1)
        return PredictionSets(
            sets=inside, size=size, verdict=certainty(size, inside.shape[1]), threshold=threshold, row=at,
            method=f"weighted-{self.score.name}", level=1 - self.score.alpha, calibrated=self.worth,
            assumption=self.assumption, classes=self.names,
        )  # fmt: skip


def _weights(value: Any, n: int) -> Float[Tensor, " n"]:  # noqa: ANN401
    found = as_tensor(value, "weight", "density ratios").double().cpu()
    if found.shape != (n,):
        raise InputError(f"weight: expected {n} density ratios, got {tuple(found.shape)}")
    return found


def label_ratios(p: Probabilities, y: Classes, new: Probabilities) -> Float[Tensor, " k"]:
    """P_new(y) / P_old(y) of every class, from unlabelled new rows.

    With C the frequencies of (decided, true) among old rows and m those of decided among new ones, the w >= 0 that
    minimises |C w - m|^2.

    Args:
        p: Probabilities `(n, k)` of labelled rows of the old distribution.
        y: Their classes.
        new: Probabilities `(m, k)` of rows of the new distribution.

    Raises:
        InputError: probabilities or classes that are none, or a class of which no old row is.
    """
    old, other = probabilities(p), probabilities(new, "new")
    truth, k = classes(y, old), old.shape[1]
    if lacking := sorted(set(range(k)) - set(truth.unique().tolist())):
        raise InputError(f"y: expected rows of every class, got none of {lacking[:8]}; nothing is known of their ratio")
    decided = old.argmax(1).cpu()
    joint = (decided * k + truth.cpu()).bincount(minlength=k * k).view(k, k).double() / len(old)
    now = other.argmax(1).cpu().bincount(minlength=k).double() / len(other)
    return torch.from_numpy(nnls(joint.numpy(), now.numpy())[0])


def covariate_ratios(
    old: Float[Tensor, "n d"], new: Float[Tensor, "m d"], at: Float[Tensor, "r d"]
) -> Float[Tensor, " r"]:
    """P_new(x) / P_old(x) at some rows, by logistic regression of which cohort a row is from.

    Args:
        old: Features of rows of the old distribution, other ones than those of the calibration if there are enough.
        new: Features of rows of the new distribution.
        at: Features of the rows that are asked about.

    Raises:
        InputError: features of different lengths, or no rows.
    """
    if not len(old) or not len(new) or len({v.shape[1] for v in (old, new, at)}) > 1:
        raise InputError("old, new, at: expected features of equal lengths, of at least one row of either cohort")
    x = torch.cat([old, new]).double()
    mean, spread = x.mean(0), x.std(0).clamp_min(1e-12)
    x, target = (x - mean) / spread, torch.cat([torch.zeros(len(old)), torch.ones(len(new))]).double()
    w = torch.zeros(x.shape[1] + 1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([w], max_iter=_STEPS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(x @ w[1:] + w[0], target) + 0.5 * w[1:].square().sum() / len(
            x
        )
        loss.backward()
        return loss

    optimizer.step(closure)
    logit = ((at.double() - mean) / spread) @ w.detach()[1:] + w.detach()[0]
    return logit.exp() * len(old) / len(new)

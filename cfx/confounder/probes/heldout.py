"""How good predictions on held-out subjects are, with intervals: rates, area under the curve, bits.

A score is a function of weights of subjects, so that a bootstrap resample, which counts how often each cell of subjects
was drawn, is one row of a matrix. Cells rather than subjects are drawn: matched pairs stay together, and both values
of the target keep their share. Scores are means over repeats of the cross-validation; every resample is scored in one
repeat, so that the interval is that of one cross-validation, its folds included. Models are not fitted again: that
they would differ with other training subjects is not in the interval, which for a view that knows nothing covers
chance in about nine cases of ten where the nominal level is 95 % (docs/devdocs/probe.md).

References: Xu et al. (2020), "A theory of usable information under computational constraints", for the bits: the
log-loss without the view less that with it, on held-out rows; Hanley and McNeil (1982) for the area under the curve.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.confounder.probes.readers import loss
from cfx.core.errors import InputError
from cfx.core.scores import auroc
from cfx.core.statistics import Estimate, percentile_interval

_CHANCE = 0.5

Score = Callable[[Float[Tensor, "w g"]], Float[Tensor, " w"]]
"""Weights of subjects, one row a resample, to a score of each."""


@dataclass(frozen=True)
class HeldOut:
    """Predictions of held-out subjects.

    Attributes:
        target: What was to be predicted `(g,)`: 0 and 1, or numbers.
        binary: Which of the two.
        base: Prediction without the view, in every repeat of the cross-validation `(r, g)`: the mean of the training
            rows; for a binary target 0, the log-odds of values that are equally many.
        prediction: What the view adds to it `(r, g)`. Log-odds of 0 are no decision, and count as half right.
        cell: Cell of every subject.
    """

    target: Float[Tensor, " g"]
    binary: bool
    base: Float[Tensor, "*r g"]
    prediction: Float[Tensor, "*r g"]
    cell: Int[Tensor, " g"]

    def repeats(self) -> list["HeldOut"]:
        """The predictions of each cross-validation."""
        return [replace(self, base=b, prediction=p) for b, p in zip(self.base, self.prediction, strict=True)]

    def estimate(self, name: str, *, level: float = 0.95, seed: int = 0) -> Estimate:
        """A score with its bootstrap interval over cells.

        Args:
            name: Of a binary target `tnr`, `tpr`, `ba`, `auc` or `bits`, of numbers `r2`, `correlation` or `bits`.
            level: Coverage.
            seed: Seed of the resampling.

        Raises:
            InputError: not a score of this kind of target, or a level outside (0, 1).
        """
        return estimate([partial(score_of(name, self.binary), one) for one in self.repeats()], self.cell, level, seed)


def tnr(p: HeldOut, w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    """Share of the negatives decided right."""
    return _mean(right(p.prediction, p.target), w * (1 - p.target))


def tpr(p: HeldOut, w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    """Share of the positives decided right."""
    return _mean(right(p.prediction, p.target), w * p.target)


def ba(p: HeldOut, w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    """Balanced accuracy, (TNR + TPR) / 2."""
    return (tnr(p, w) + tpr(p, w)) / 2


def auc(p: HeldOut, w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    """Share of the pairs of a positive and a negative that are in the right order, ties half."""
    found = auroc(p.prediction, p.target == 1, w)
    return found.where(~found.isnan(), _CHANCE)


def bits(p: HeldOut, w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    """Usable information in bits a subject; below 0 where the predictions are worse than none.

    Of a binary target as if both values were equally frequent, so that all there is to know is 1 bit. Of numbers that
    of normal errors: half the logarithm of the ratio of mean squared errors.
    """
    without, with_ = _losses(p, w)
    return (without - with_) / math.log(2) if p.binary else (without / with_).log2() / 2


def r2(p: HeldOut, w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    """Share of the squared error of the training mean that the view takes away; below 0 where it adds to it."""
    without, with_ = _losses(p, w)
    return 1 - with_ / without


def correlation(p: HeldOut, w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    """Correlation of target and prediction; 0 where that never varies."""
    w = w / w.sum(1, keepdim=True)
    a, b = (v - (w @ v)[:, None] for v in (p.target, p.prediction))
    spread = ((w * a.square()).sum(1) * (w * b.square()).sum(1)).sqrt()
    return (w * a * b).sum(1) / spread.clamp_min(1e-300)


BINARY = {"tnr": tnr, "tpr": tpr, "ba": ba, "auc": auc, "bits": bits}
"""Scores of a binary target by name."""
CONTINUOUS = {"r2": r2, "correlation": correlation, "bits": bits}
"""Scores of numbers by name."""


def score_of(name: str, binary: bool) -> Callable[[HeldOut, Tensor], Tensor]:
    """The score of that name.

    Raises:
        InputError: not a score of this kind of target.
    """
    known = BINARY if binary else CONTINUOUS
    if name not in known:
        raise InputError(f"score: expected one of {list(known)} for this target, got {name!r}")
    return known[name]


def _losses(p: HeldOut, w: Tensor) -> tuple[Float[Tensor, " w"], Float[Tensor, " w"]]:
    """Mean loss without and with the view; of a binary target the mean of both values' means."""
    of = [w * p.target, w * (1 - p.target)] if p.binary else [w]
    each = [loss(p.target, q, binary=p.binary) for q in (p.base, p.base + p.prediction)]
    without, with_ = (torch.stack([_mean(values, v) for v in of]).mean(0) for values in each)
    return without, with_


def right(prediction: Float[Tensor, "*m g"], target: Float[Tensor, "*m g"]) -> Float[Tensor, "*m g"]:
    """1 where the decision is right, 0 where it is wrong, a half where there is none."""
    return (prediction.sign() * (2 * target - 1) + 1) / 2


def estimate(scores: Sequence[Score], cell: Int[Tensor, " g"], level: float = 0.95, seed: int = 0) -> Estimate:
    """Mean of a function of weights of subjects over repeats, with its percentile bootstrap interval over cells."""
    cells = int(cell.max()) + 1

    def drawn(which: Tensor) -> Tensor:
        counts = torch.zeros(len(which), cells, dtype=torch.float64)
        counts.scatter_add_(1, which, torch.ones_like(which, dtype=torch.float64))
        return torch.cat([score(w) for score, w in zip(scores, counts[:, cell].tensor_split(len(scores)), strict=True)])

    low, high = percentile_interval(cells, drawn, level=level, seed=seed)
    all_ = torch.ones(1, len(cell), dtype=torch.float64)
    return Estimate(float(torch.cat([score(all_) for score in scores]).mean()), low, high)


def _mean(values: Float[Tensor, " g"], w: Float[Tensor, "w g"]) -> Float[Tensor, " w"]:
    return _ratio(w @ values, w.sum(1))


def _ratio(a: Float[Tensor, " w"], b: Float[Tensor, " w"]) -> Float[Tensor, " w"]:
    """The ratio a / b; chance where a resample has no subject to count."""
    return torch.where(b > 0, a / b.clamp_min(1e-300), _CHANCE)

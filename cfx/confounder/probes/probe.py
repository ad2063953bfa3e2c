"""Can a variable be read from a view of the image that should not know it, such as the brain mask alone?

Nested cross-validation by subject; a permutation test in which every permuted target goes through all that the observed
one went through, p = (1 + b) / (1 + m); and a ladder of views of a mask, whose differences say what leaks.

A probe that finds nothing is no proof that there is nothing: `equivalent` says whether the accuracy is near enough to
chance.

References: Phipson and Smyth (2010), "Permutation p-values should never be zero"; Schuirmann (1987) for equivalence;
Winkler et al. (2015), "Multi-level block permutation", for whole groups inside blocks.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product
from itertools import pairwise as pairs

import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats
from torch import Tensor

from cfx.confounder.probes.features import RUNGS, Features, features
from cfx.confounder.probes.features import view as as_view
from cfx.confounder.probes.heldout import BINARY, CONTINUOUS, HeldOut, estimate, right, score_of
from cfx.confounder.probes.readers import Linear, Reader
from cfx.core.errors import InputError
from cfx.core.groups import Subjects
from cfx.core.scores import balanced_accuracy
from cfx.core.statistics import Estimate

_TIE = 1e-9  # statistics this near count as equal


@dataclass(frozen=True)
class ProbeResult:
    """What a view knows of a variable.

    Attributes:
        name: What was read.
        held_out: Predictions of held-out subjects.
        scores: With 95 % bootstrap intervals over subjects: `tnr`, `tpr`, `ba`, `auc` and `bits` of a binary variable,
            `r2`, `correlation` and `bits` of a continuous one.
        statistic: Name of the score that is tested: `ba` or `r2`.
        p_value: (1 + b) / (1 + m), b the permutations with a statistic as high as the observed one.
        null: Statistic of each permutation.
        n: Rows.
    """

    name: str
    held_out: HeldOut
    scores: Mapping[str, Estimate]
    statistic: str
    p_value: float
    null: Float[Tensor, " m"]
    n: int

    @property
    def groups(self) -> int:
        """Number of subjects."""
        return len(self.held_out.target)

    @property
    def permutations(self) -> int:
        """Number of permutations m."""
        return len(self.null)


def probe(
    view: Features | Reader | Shaped[Tensor, "n ..."],
    target: Shaped[Tensor, "_"],
    *,
    groups: Int[Tensor, "_"] | None = None,
    blocks: Int[Tensor, "_"] | None = None,
    folds: int = 5,
    repeats: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> ProbeResult:
    """Predict a variable from a view, by linear models of its principal components or by a reader of the caller's.

    Args:
        view: Columns; or any tensor with one entry a row, whose numbers are the columns; or a `Reader`.
        target: Booleans or integers of two values (the higher counts as positive); or floating-point numbers.
        groups: Subject of every row: a subject's rows have one target, share a fold, are permuted together, and count
            as one with their mean prediction.
        blocks: Inside what the target is exchangeable if it is independent of the view: matched pairs, age bins, sites.
        folds: Folds of the cross-validation.
        repeats: Cross-validations with other folds, over which the scores are averaged.
        permutations: m.
        seed: Seed of folds and permutations.

    Raises:
        InputError: other numbers of rows, a target or groups that cannot be used (see `Subjects`), too few groups for
            the folds, or no repeats or permutations.
    """
    if repeats < 1 or permutations < 1:
        raise InputError(f"repeats, permutations: expected numbers >= 1, got {repeats} and {permutations}")
    reader = _reader(view)
    subjects = Subjects.of(target, groups, blocks, seed=seed)
    if len(reader) != len(target):
        raise InputError(f"target: expected {len(reader)} values, one a row of the view, got {len(target)}")
    y = torch.cat([subjects.target[None], subjects.permuted(permutations, seed)])
    statistics, observed = [], []
    for repeat in range(repeats):
        fold = subjects.folds(folds, seed=seed, repeat=repeat)
        prediction = subjects.mean(reader(y[:, subjects.of_row], fold[subjects.of_row], binary=subjects.binary))
        known = _base(y, subjects, fold)
        statistics.append((_balanced if subjects.binary else _r2)(y, known, prediction))
        observed.append((known[0], prediction[0]))
    known, prediction = (torch.stack(part) for part in zip(*observed, strict=True))
    held_out = HeldOut(subjects.target, subjects.binary, known, prediction, subjects.cell)
    null = torch.stack(statistics).mean(0)
    return ProbeResult(
        name=reader.name,
        held_out=held_out,
        scores={name: held_out.estimate(name) for name in (BINARY if subjects.binary else CONTINUOUS)},
        statistic="ba" if subjects.binary else "r2",
        p_value=(1 + int((null[1:] >= null[0] - _TIE).sum())) / len(null),
        null=null[1:],
        n=len(target),
    )


def _reader(view: Features | Reader | Tensor) -> Reader:
    if isinstance(view, Tensor):
        view = as_view(view)
    return Linear.of(view) if isinstance(view, Features) else view


def _base(y: Float[Tensor, "m g"], subjects: Subjects, fold: Int[Tensor, " g"]) -> Float[Tensor, "m g"]:
    """What is predicted of each group without the view: log-odds 0, or the mean of the training rows."""
    out = torch.zeros_like(y)
    if not subjects.binary:
        for a in range(int(fold.max()) + 1):
            out[:, fold == a] = y[:, subjects.of_row][:, (fold != a)[subjects.of_row]].mean(1, keepdim=True)
    return out


def _balanced(y: Float[Tensor, "m g"], known: Float[Tensor, "m g"], prediction: Tensor) -> Float[Tensor, " m"]:
    """Balanced accuracy of every target."""
    return balanced_accuracy(right(prediction, y), y)


def _r2(y: Float[Tensor, "m g"], known: Float[Tensor, "m g"], prediction: Tensor) -> Float[Tensor, " m"]:
    """Share of the squared error that goes away, of every target."""
    return 1 - (y - known - prediction).square().sum(1) / (y - known).square().sum(1)


def equivalent(result: ProbeResult, margin: float = 0.05, *, alpha: float = 0.05) -> bool:
    """Whether the balanced accuracy may be called chance: within 0.5 +- margin by two one-sided tests at level alpha.

    Twice: its 1 - 2 alpha bootstrap interval lies inside, and so does the normal one with the standard deviation that
    the permutations show, which knows how much cross-validated models differ where there is nothing to find.

    Args:
        result: Probe of a binary variable.
        margin: Largest distance from 0.5 that counts as none, fixed before looking.
        alpha: Level.

    Raises:
        InputError: a continuous variable, a margin outside (0, 0.5), or alpha outside (0, 0.5).
    """
    if not 0 < margin < 0.5 or not 0 < alpha < 0.5:
        raise InputError(f"margin, alpha: expected numbers in (0, 0.5), got {margin} and {alpha}")
    ba = result.held_out.estimate("ba", level=1 - 2 * alpha)
    half = float(stats.norm.ppf(1 - alpha)) * float(result.null.std(correction=0))
    return 0.5 - margin < min(ba.low, ba.value - half) and max(ba.high, ba.value + half) < 0.5 + margin


def gain(upper: ProbeResult, lower: ProbeResult) -> Estimate:
    """What one view knows more than another: difference of the tested score, its interval paired by subject.

    Raises:
        InputError: probes of other subjects or with other cells.
    """
    a, b = upper.held_out, lower.held_out
    if not torch.equal(a.target, b.target) or not torch.equal(a.cell, b.cell):
        raise InputError("upper, lower: expected probes of one target in the same rows, groups, blocks and seed")
    if len(a.prediction) == len(b.prediction):
        repeats = list(zip(a.repeats(), b.repeats(), strict=True))
    else:
        repeats = list(product(a.repeats(), b.repeats()))
    score = score_of(upper.statistic, a.binary)
    return estimate([partial(_difference, score, one, other) for one, other in repeats], a.cell)


def _difference(score: Callable[[HeldOut, Tensor], Tensor], one: HeldOut, other: HeldOut, w: Tensor) -> Tensor:
    return score(one, w) - score(other, w)


@dataclass(frozen=True)
class Ladder:
    """Probes of one mask, from the view that knows least to the one that knows most.

    Attributes:
        rungs: The probes.
        gains: How much the tested score of each rung is above the rung before; one fewer.
    """

    rungs: Sequence[ProbeResult]
    gains: Sequence[Estimate]


def ladder(
    mask: Bool[Tensor, "n 1 *space"],
    target: Shaped[Tensor, "_"],
    *,
    groups: Int[Tensor, "_"] | None = None,
    blocks: Int[Tensor, "_"] | None = None,
    network: Reader | None = None,
    folds: int = 5,
    repeats: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> Ladder:
    """Probe a mask rung by rung (`cfx.confounder.probes.features`); arguments and errors as `probe`.

    Args:
        mask: Masks with an inside and an outside.
        target: As in `probe`.
        groups: As in `probe`.
        blocks: As in `probe`.
        network: A last rung, `views.network.Network` say. It is trained anew for every permutation, so it gets
            one cross-validation and 19 permutations: its least p is 0.05.
        folds: As in `probe`.
        repeats: As in `probe`.
        permutations: As in `probe`.
        seed: As in `probe`.
    """

    def read(view: Features | Reader, r: int, m: int) -> ProbeResult:
        return probe(view, target, groups=groups, blocks=blocks, folds=folds, repeats=r, permutations=m, seed=seed)

    rungs = [read(features(mask, rung), repeats, permutations) for rung in RUNGS]
    if network is not None:
        rungs.append(read(network, 1, 19))
    return Ladder(rungs, [gain(b, a) for a, b in pairs(rungs)])


def pairwise(
    view: Features | Shaped[Tensor, "n ..."],
    source: Int[Tensor, "_"],
    *,
    groups: Int[Tensor, "_"] | None = None,
    folds: int = 5,
    repeats: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> dict[tuple[int, int], ProbeResult]:
    """Tell every two of several sources apart; the higher number counts as positive. Arguments as `probe`.

    Raises:
        InputError: see `probe`; other numbers of rows.
    """
    columns = as_view(view) if isinstance(view, Tensor) else view
    if len(source) != len(columns.values):
        raise InputError(f"source: expected {len(columns.values)} values, one a row, got {len(source)}")
    out = {}
    for a, b in combinations(source.unique().tolist(), 2):
        rows = ((source == a) | (source == b)).nonzero().flatten()
        own = None if groups is None else groups[rows]
        out[a, b] = probe(
            columns[rows], source[rows], groups=own, folds=folds, repeats=repeats, permutations=permutations, seed=seed
        )
    return out

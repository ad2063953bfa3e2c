"""Which counterfactuals may be shown: a threshold above which an independent oracle would confirm nearly all.

An edit may flip the classifier and nothing else. Given pairs (input, counterfactual) for which an independent oracle
was asked, with a score s that is known without it, find a threshold t such that for a new pair

    P( the oracle flips | s > t ) >= 1 - alpha       with probability 1 - delta over the calibration pairs.

**What is promised**: that; a high-probability statement about the conditional rate, not an average, for pairs that are
independent draws of one distribution: inputs of the same population, and counterfactuals of the same method, depth and
generator. (A counterfactual is not exchangeable with inputs; the pair is, with other pairs.) Nothing is promised about
a single pair, or for pairs picked by anything else.

**How**: sort the n pairs by s. Given the (m + 1)-th largest score, the m pairs above it are independent draws from
above it, so that k failures among them have P(Bin(m, r) <= k) at the true rate r, exactly. Sizes m = m_0, 1.25 m_0, ...
n are tried, m_0 the least at which no failure suffices, each at delta over their number; the largest that passes is
taken. Where none passes nothing is accepted, which is said: `share` is 0 and `why` tells what stood in the way.

The score may be anything that does not look at the oracle; power hangs on it, validity does not. By default it is the
size of the edit, |x_cf - x|: what is too small to see convinces no oracle. Rows that do not reach the target by the
classifier itself are never accepted. A score that was learnt must have been learnt on other subjects.

References: Geifman, El-Yaniv (2017), "Selective classification for deep neural networks"; Angelopoulos, Bates, Candes,
Jordan, Lei (2021), "Learn then test"; Clopper, Pearson (1934).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.codes import Code
from cfx.core.disjoint import People, check_disjoint, people
from cfx.core.errors import InputError
from cfx.core.risk import check_alpha, fewer_failures_p
from cfx.core.rows import Rows, about
from cfx.counterfactual.result import Counterfactuals, Verdict

PairScore = Callable[[Counterfactuals], Float[Tensor, " n"]]
"""A score of every counterfactual, higher where an oracle should rather agree."""

_GROWTH = 1.25


class Acceptance(Code):
    """Whether a counterfactual may be shown; `meaning` says it in a sentence."""

    ACCEPTED = 0, "Its score is above the threshold that the promise holds for."
    BELOW = 1, "Its score is not above the threshold."
    MISSED = 2, "The classifier itself does not give it to the target."
    NOTHING = 3, "No threshold keeps the promise on the calibration pairs, so nothing is accepted."


@dataclass(frozen=True)
class Accepted(Rows):
    """Which new counterfactuals are accepted, one row each.

    Attributes:
        accepted: Whether it is.
        verdict: `Acceptance` codes.
        score: Its score.
        row: Index of the row.
        threshold: Scores above it are accepted; infinite where none are.
        alpha: Largest rate of accepted counterfactuals that the oracle does not confirm.
        delta: Probability, over the calibration pairs, that the promise fails.
        calibrated: Calibration pairs.
        share: Share of the calibration pairs that is accepted.
        failed: Share of these that the oracle did not confirm.
        why: Why nothing is accepted; empty where something is.
        assumption: What the promise rests on.
    """

    accepted: Bool[Tensor, " n"]
    verdict: Int[Tensor, " n"] = field(metadata=about(codes=Acceptance))
    score: Float[Tensor, " n"]
    row: Int[Tensor, " n"]
    threshold: float
    alpha: float
    delta: float
    calibrated: int
    share: float
    failed: float
    why: str
    assumption: str

    @property
    def sentence(self) -> str:
        """What was accepted and what is promised, for who reads it."""
        n, took = len(self), int(self.accepted.sum())
        if self.why:
            return f"0 of {n} counterfactuals are accepted: {self.why}."
        return (
            f"{took} of {n} counterfactuals are accepted; an independent oracle confirms at least "
            f"{1 - self.alpha:.0%} of such ones, unless the {self.calibrated} calibration pairs were unlucky "
            f"(probability {self.delta:g})."
        )


@dataclass(frozen=True)
class Threshold:
    """A threshold on scores, and how it was found.

    Attributes:
        value: Scores above it are accepted; infinite where none are.
        share: Share of the calibration pairs above it.
        failed: Share of these that failed.
        why: Why none are; empty where some are.
    """

    value: float
    share: float
    failed: float
    why: str


def edit_size(cf: Counterfactuals) -> Float[Tensor, " n"]:
    """|x_cf - x|, the root of the sum of squares."""
    size: Tensor = (cf.x_cf - cf.x).double().flatten(1).norm(dim=1)
    return size


def oracle_flips(cf: Counterfactuals) -> Bool[Tensor, " n"]:
    """Whether the oracle gives the counterfactual to the target, and did not give the input to it already.

    Raises:
        InputError: no oracle was asked.
    """
    before, after = cf.oracle_probs_before, cf.oracle_probs_after
    if before is None or after is None:
        raise InputError("calibration: expected answers of an oracle, got none; pass oracle= to explain")
    return (after.argmax(1) == cf.target) & (before.argmax(1) != cf.target)


def acceptance_threshold(
    score: Float[Tensor, " n"], flips: Bool[Tensor, " n"], alpha: float = 0.1, delta: float = 0.1
) -> Threshold:
    """The lowest threshold that keeps the promise of the module.

    Args:
        score: Score of every calibration pair, -infinity for those that are never accepted.
        flips: Whether the oracle flips.
        alpha: Largest rate of failures among accepted pairs.
        delta: Probability, over calibration pairs, that the promise fails.

    Raises:
        InputError: `alpha` or `delta` outside (0, 1), other numbers of scores than of flips, or NaN.
    """
    check_alpha(alpha)
    check_alpha(delta, "delta")
    if score.shape != flips.shape or score.ndim != 1 or bool(score.isnan().any()):
        raise InputError(
            f"score, flips: expected one of each a pair, no NaN, got {tuple(score.shape)}, {tuple(flips.shape)}"
        )
    falling, order = score.double().sort(descending=True, stable=True)
    failures = (~flips)[order].long().cumsum(0)
    sizes = _sizes(len(score), alpha, delta)
    best, tried = None, int((falling > -torch.inf).sum())
    for m in sizes:
        bound = float(falling[m]) if m < len(falling) else -torch.inf
        above = int((falling > bound).sum())  # fewer than m where scores are tied: those above are as independent
        if above and fewer_failures_p(int(failures[above - 1]), above, alpha) <= delta / len(sizes):
            best = (bound, above)
    if best is None:
        return Threshold(torch.inf, 0.0, math.nan, _why(sizes, failures, tried, alpha, delta))
    bound, above = best
    return Threshold(bound, above / len(score), int(failures[above - 1]) / above, "")


def _sizes(n: int, alpha: float, delta: float) -> list[int]:
    """Numbers of top pairs to try; m_0 grows with how many there are, since they share delta."""
    tests = 1
    while True:
        least = math.ceil(math.log(delta / tests) / math.log1p(-alpha) - 1e-9)
        found = [m for k in range(200) if (m := math.ceil(least * _GROWTH**k)) < n]
        found = sorted({*found, *([n] if n >= least else [])})
        if not found and n >= math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9):
            return [n]  # too few to share delta, enough for one test
        if len(found) <= tests:
            return found
        tests = len(found)


def _why(sizes: Sequence[int], failures: Int[Tensor, " n"], reached: int, alpha: float, delta: float) -> str:
    """Why no threshold keeps the promise."""
    if not sizes:
        least = math.ceil(math.log(delta) / math.log1p(-alpha) - 1e-9)
        return f"{len(failures)} calibration pairs are too few, at least {least} are needed even if none fails"
    if not reached:
        return "the classifier gives none of the calibration pairs to its target"
    m = sizes[0]
    wrong, rate = int(failures[m - 1]), float(failures[-1]) / len(failures)
    return (
        f"the oracle does not confirm {wrong} of the {m} pairs of the highest scores, nor {rate:.0%} of all "
        f"{len(failures)}; at most {alpha:.0%} may fail"
    )


def accept_counterfactuals(
    calibration: Counterfactuals | Float[Tensor, " m"],
    new: Counterfactuals | Float[Tensor, " n"],
    *,
    flips: Bool[Tensor, " m"] | None = None,
    score: PairScore = edit_size,
    alpha: float = 0.1,
    delta: float = 0.1,
    ids: People = (),
    new_ids: People = (),
) -> Accepted:
    """Accept new counterfactuals of which an independent oracle would confirm at least 1 - alpha (see the module).

    Args:
        calibration: Counterfactuals that an oracle was asked of, one a subject; or their scores.
        new: Others, of the same method, depth and generator, whose oracle is not looked at; or their scores.
        flips: Whether the oracle flips, where scores were given.
        score: From counterfactuals to a score each; unused where scores were given.
        alpha: Largest rate of failures among accepted ones.
        delta: Probability, over the calibration pairs, that the promise fails.
        ids: Subjects of the calibration pairs; by default those of their cohort.
        new_ids: Subjects of the new ones; by default those of their cohort.

    Raises:
        InputError: no oracle, pairs of another method or depth, a subject on both sides or more than once in the
            calibration (pairs must be independent), scores that are NaN, or levels outside (0, 1).
    """
    old, oracle = _scored(calibration, score), flips
    if isinstance(calibration, Counterfactuals):
        oracle = oracle_flips(calibration) if flips is None else flips
    if oracle is None:
        raise InputError("flips: expected whether the oracle flips, beside scores of the calibration pairs, got none")
    _check_alike(calibration, new)
    _check_people(calibration, new, ids, new_ids, len(old))
    found, own = acceptance_threshold(old, oracle, alpha, delta), _scored(new, score)
    if bool(own.isnan().any()):
        raise InputError(f"new: expected scores that are numbers, got NaN in {int(own.isnan().sum())} rows")
    took = own > found.value
    verdict = torch.full((len(own),), int(Acceptance.BELOW))
    verdict[own == -torch.inf] = int(Acceptance.MISSED)
    verdict[took] = int(Acceptance.ACCEPTED)
    return Accepted(
        accepted=took, verdict=torch.full_like(verdict, int(Acceptance.NOTHING)) if found.why else verdict, score=own,
        row=torch.arange(len(own)), threshold=found.value, alpha=alpha, delta=delta, calibrated=len(old),
        share=found.share, failed=found.failed, why=found.why,
        assumption="pairs are independent draws of one distribution: same population, method, depth and generator",
    )  # fmt: skip


def _scored(of: Counterfactuals | Tensor, score: PairScore) -> Float[Tensor, " n"]:
    """Scores, -infinity where the classifier itself is not convinced."""
    if not isinstance(of, Counterfactuals):
        return of.double().cpu()
    reached = of.flipped & (of.verdict != int(Verdict.REFUSED)) & (of.verdict != int(Verdict.ALREADY))
    return score(of).double().cpu().masked_fill(~reached.cpu(), -torch.inf)


def _check_alike(a: object, b: object) -> None:
    """Refuse counterfactuals that were not made alike."""
    if not (isinstance(a, Counterfactuals) and isinstance(b, Counterfactuals)):
        return
    for name in ("method", "depth"):
        if getattr(a, name) != getattr(b, name):
            raise InputError(
                f"new: expected counterfactuals of {name} {getattr(a, name)!r}, as the calibration has, got "
                f"{getattr(b, name)!r}; the promise is about pairs that were made alike"
            )


def _check_people(a: object, b: object, ids: People, new_ids: People, n: int) -> None:
    """Refuse a subject on both sides, or twice in the calibration."""
    old, new = (_named(of, given) for of, given in ((a, ids), (b, new_ids)))
    if len(set(old)) < len(old):
        raise InputError(
            f"calibration: expected one pair a subject, since pairs must be independent, got {len(old)} pairs of "
            f"{len(set(old))} subjects; take the first of each"
        )
    if old and new:
        people(old, n)
        check_disjoint(old, [new], "calibration")


def _named(of: object, given: People) -> tuple[str, ...]:
    if given != ():
        return people(given)
    return people(of.cohort) if isinstance(of, Counterfactuals) and of.cohort is not None else ()

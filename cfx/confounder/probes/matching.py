"""Cases and controls that are alike in what explains a difference away: age, sex, site.

One-to-one matching: as many pairs as the calipers allow, and of all such matchings the one that is nearest, by linear
assignment. There is never only one good matching, and what a probe finds depends on which was taken; so many are drawn,
each nearest for distances with a random part, and a probe is averaged over them.

Permutations flip the labels within pairs, which takes cases and controls of a pair to be alike but for what is tested,
as matching does. The p-values of several matchings of the same subjects depend on each other, and no permutation
serves all matchings at once, so they are combined by a rule that holds under any dependence: twice their median. If
each p_i is valid, P(2 median <= a) = P(at least half of the p_i are <= a/2), by Markov's inequality at most
E[share of p_i <= a/2] / (1/2) <= a.

References: Rosenbaum (1989), "Optimal matching for observational studies"; Rubin (1987), "Multiple imputation for
nonresponse in surveys", for the interval; Meinshausen, Meier and Buehlmann (2009), "p-values for high-dimensional
regression", for quantiles of p-values.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Shaped
from scipy import stats
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cfx.confounder.probes.features import Features
from cfx.confounder.probes.features import view as as_view
from cfx.confounder.probes.probe import ProbeResult, probe
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.core.statistics import Estimate

_TRIES = 5  # draws a matching asked for


def matchings(
    case: Bool[Tensor, " n"],
    covariates: Mapping[str, Shaped[Tensor, "_"]],
    calipers: Mapping[str, float],
    *,
    n: int = 20,
    slack: float = 0.5,
    seed: int = 0,
) -> tuple[Int[Tensor, "pairs 2"], ...]:
    """Different one-to-one matchings of cases with controls, all of as many pairs as there can be.

    The distance of a pair is the sum over covariates of their difference, in calipers. Every matching but the first,
    which is nearest, minimises distances to each of which a uniform number in [0, slack) was added: its mean distance
    exceeds the least one by less than `slack`.

    Args:
        case: Cases; all others are controls. One row a subject: two scans of one would be matched as two people.
        covariates: What to match on, one number a row (categories as numbers).
        calipers: Largest difference within a pair of each covariate; 0 asks for equal values.
        n: Matchings to draw.
        slack: How much further a pair may be apart than need be, in calipers.
        seed: Seed of the draws.

    Returns:
        Pairs of rows (case, control), ordered by case; fewer matchings than n where there are not as many.

    Raises:
        InputError: names or rows that do not fit each other, NaN, a negative caliper or slack, no case or no control,
            or no pair within the calipers.
    """
    distance = _distance(case, covariates, calipers)
    if n < 1 or slack < 0:
        raise InputError(f"n, slack: expected a number >= 1 and one >= 0, got {n} and {slack}")
    found: dict[tuple[int, ...], Tensor] = {}
    for draw in range(_TRIES * n):
        u = uniform(distance.shape, seed=seed, row=torch.tensor([draw]), stream=0)[0].double()
        pairs = _assign(distance + (slack * u if draw else 0))
        found.setdefault(tuple(pairs.flatten().tolist()), pairs)
        if len(found) == n:
            break
    rows = torch.stack([_indices(case)[:, None].expand(distance.shape), _indices(~case).expand(distance.shape)])
    return tuple(rows[:, pairs[:, 0], pairs[:, 1]].T for pairs in found.values())


def _indices(of: Tensor) -> Int[Tensor, " k"]:
    return of.nonzero().flatten()


def _distance(
    case: Tensor, covariates: Mapping[str, Tensor], calipers: Mapping[str, float]
) -> Float[Tensor, "cases controls"]:
    """Distance of every case to every control in calipers; infinite outside them."""
    if set(calipers) - set(covariates) or not calipers:
        raise InputError(f"calipers: expected some of the covariates {sorted(covariates)}, got {sorted(calipers)}")
    if case.all() or not case.any():
        raise InputError("case: expected cases and controls, got only one of them")
    total = torch.zeros(int(case.sum()), int((~case).sum()), dtype=torch.float64)
    for name, caliper in calipers.items():
        x = covariates[name].double()
        if x.shape != case.shape or not bool(torch.isfinite(x).all()):
            raise InputError(f"covariates[{name!r}]: expected {len(case)} finite numbers, got shape {tuple(x.shape)}")
        if not caliper >= 0:
            raise InputError(f"calipers[{name!r}]: expected a number >= 0, got {caliper}")
        gap = (x[case][:, None] - x[~case]).abs()
        total = (total + gap / (caliper or 1)).where(gap <= caliper, torch.inf)
    if not bool(torch.isfinite(total).any()):
        raise InputError(f"calipers: expected at least one control within {dict(calipers)} of a case, got none")
    return total


def _assign(distance: Float[Tensor, "cases controls"]) -> Int[Tensor, "pairs 2"]:
    """Most pairs, of those the nearest: a pair outside the calipers costs more than all inside them together."""
    allowed = torch.isfinite(distance)
    forbidden = float(distance[allowed].max()) * (min(distance.shape) + 1) + 1
    rows, columns = linear_sum_assignment(distance.where(allowed, forbidden).numpy())
    pairs = torch.stack([torch.from_numpy(rows), torch.from_numpy(columns)], 1)
    return pairs[allowed[pairs[:, 0], pairs[:, 1]]]


def standardised_difference(x: Shaped[Tensor, " n"], case: Bool[Tensor, " n"]) -> float:
    """Difference of the means of cases and controls over their root mean variance; 0 where nothing varies.

    Raises:
        InputError: fewer than two cases or two controls.
    """
    if min(int(case.sum()), int((~case).sum())) < 2:
        raise InputError(f"case: expected two cases and two controls at least, got {int(case.sum())} of {len(case)}")
    a, b = x.double()[case], x.double()[~case]
    spread = float(((a.var() + b.var()) / 2).sqrt())
    gap = float(a.mean() - b.mean())
    return gap / spread if spread > 0 else (0.0 if gap == 0 else float("inf"))


@dataclass(frozen=True)
class Matched:
    """Probes of several matchings of the same subjects.

    Attributes:
        results: One probe a matching, its permutations flips within pairs.
        scores: Means over matchings of what each probe found. The interval is Rubin's, for a matching that might have
            been another: mean of the squared errors + (1 + 1/k) times the variance between matchings, and Student's t.
        p_value: Twice the median of the p-values, at most 1.
        pairs: Pairs in each matching.
        before: Standardised difference of every covariate between all cases and all controls.
        after: The same within the pairs, the largest |difference| of any matching, with its sign.
    """

    results: Sequence[ProbeResult]
    scores: Mapping[str, Estimate]
    p_value: float
    pairs: int
    before: Mapping[str, float]
    after: Mapping[str, float]


def matched_probe(
    view: Features | Shaped[Tensor, "n ..."],
    case: Bool[Tensor, "_"],
    covariates: Mapping[str, Shaped[Tensor, "_"]],
    found: Sequence[Int[Tensor, "pairs 2"]],
    *,
    folds: int = 5,
    permutations: int = 999,
    seed: int = 0,
) -> Matched:
    """Tell cases from controls in every matching, one cross-validation each, pairs held out together.

    Args:
        view: As in `cfx.confounder.probes.probe.probe`.
        case: Cases, one row a subject.
        covariates: Whose balance is to be reported.
        found: What `matchings` returned.
        folds: Folds of the cross-validation.
        permutations: Random flips within pairs, of every matching.
        seed: Seed; matching i has seed + i.

    Raises:
        InputError: no matching, other numbers of rows, or see `probe`.
    """
    columns = as_view(view) if isinstance(view, Tensor) else view
    if not found:
        raise InputError("found: expected at least one matching, got none")
    if len(columns.values) != len(case):
        raise InputError(f"case: expected {len(columns.values)} values, one a row of the view, got {len(case)}")
    results = []
    for i, pairs in enumerate(found):
        rows, block = pairs.flatten(), torch.arange(len(pairs)).repeat_interleave(2)
        results.append(
            probe(
                columns[rows], case[rows], blocks=block,
                folds=folds, repeats=1, permutations=permutations, seed=seed + i,
            )
        )  # fmt: skip
    return Matched(
        results=results,
        scores={name: pooled([r.scores[name] for r in results]) for name in results[0].scores},
        p_value=twice_the_median([r.p_value for r in results]),
        pairs=len(found[0]),
        before={name: standardised_difference(x, case) for name, x in covariates.items()},
        after={name: _worst(x, case, found) for name, x in covariates.items()},
    )


def _worst(x: Tensor, case: Tensor, found: Sequence[Tensor]) -> float:
    """The standardised difference furthest from 0 of any matching."""
    return max((standardised_difference(x[p.flatten()], case[p.flatten()]) for p in found), key=abs)


def twice_the_median(p: Sequence[float]) -> float:
    """One p-value of several of the same hypothesis, valid however they depend on each other; see the module.

    Raises:
        InputError: none, or one outside (0, 1].
    """
    if not p or not all(0 < each <= 1 for each in p):
        raise InputError(f"p: expected p-values in (0, 1], got {list(p)[:8]}")
    lower = sorted(p)[(len(p) - 1) // 2]  # half of the values are at most this
    return min(1.0, 2 * lower)


def pooled(estimates: Sequence[Estimate]) -> Estimate:
    """Rubin's combination of estimates with 95 % intervals: their mean, and an interval by Student's t.

    The squared error of each is taken from the width of its interval.

    Raises:
        InputError: no estimate.
    """
    if not estimates:
        raise InputError("estimates: expected at least one, got none")
    value, low, high = (torch.tensor(part, dtype=torch.float64) for part in zip(*estimates, strict=True))
    k, within = len(estimates), float(((high - low) / (2 * stats.norm.ppf(0.975))).square().mean())
    between = (1 + 1 / k) * float(value.var()) if k > 1 else 0.0
    df = (k - 1) * (1 + within / between) ** 2 if between > 0 else float("inf")
    half = float(stats.t.ppf(0.975, df)) * (within + between) ** 0.5
    return Estimate(float(value.mean()), float(value.mean()) - half, float(value.mean()) + half)

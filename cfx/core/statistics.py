"""Small statistics on per-row values: bootstrap intervals, paired comparisons, Holm's adjustment.

What is resampled is what was sampled: rows, or subjects with all their rows where a subject has several. Rows of one
subject are alike, so that resampling rows takes them for more evidence than they are: with m rows a subject and a
correlation r between them, the variance of a mean is 1 + (m - 1) r times that of independent rows. The estimate stays
the mean over rows; a resample of subjects has as many rows as its subjects have, so its mean is a ratio of sums.

References: Efron (1979) for the bootstrap; Wilson (1927), J. Am. Stat. Assoc. 22, for shares; Kish (1965), "Survey
sampling", for the design effect; Davison and Hinkley (1997), section 3.8, for resampling whole groups.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from statistics import NormalDist
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.groups import numbered, sums
from cfx.core.random import uniform

_ENTRIES = 1 << 22  # of resamples worked on at a time


class Estimate(NamedTuple):
    """A number with its interval.

    Attributes:
        value: The estimate.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def percentile_interval(
    n: int,
    statistic: Callable[[Int[Tensor, "draws n"]], Float[Tensor, " draws"]],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of a statistic of n independent units (Efron 1979).

    Args:
        n: Number of units: rows, or groups of rows.
        statistic: Units drawn with replacement, some resamples at a time, to the statistic of each.
        draws: Resamples.
        level: Coverage.
        seed: Seed of the resampling.

    Raises:
        InputError: no units, or `level` outside (0, 1).
    """
    if n < 1:
        raise InputError("values: expected at least one row, got none")
    if not 0 < level < 1:
        raise InputError(f"level: expected a number in (0, 1), got {level}")
    parts = _resamples(n, draws, seed).split(max(1, _ENTRIES // n))
    found = torch.cat([statistic(part.long()) for part in parts]).double()
    low, high = found.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high


@lru_cache(maxsize=1)  # a table asks for the same resamples once a column
def _resamples(n: int, draws: int, seed: int) -> Int[Tensor, "draws n"]:
    """Units drawn with replacement."""
    u = (uniform((n,), seed=seed, row=part, stream=0) for part in torch.arange(draws).split(max(1, _ENTRIES // n)))
    return torch.cat([(part.double() * n).int().clamp(max=n - 1) for part in u])


def bootstrap_interval(
    values: Shaped[Tensor, " n"],
    *,
    groups: Int[Tensor, " _"] | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean over rows.

    Args:
        values: One value a row.
        groups: Subject of every row: whole subjects are drawn, with all their rows. None where every row is one.
        draws: Resamples.
        level: Coverage.
        seed: Seed of the resampling.

    Raises:
        InputError: no rows, another number of groups than rows, or `level` outside (0, 1).
    """
    return _interval_of_ratio(values.double(), None, groups, draws, level, seed)


def wilson_interval(share: float, n: int, *, level: float = 0.95) -> tuple[float, float]:
    """Interval of a share of n independent units, honest also where all or none of them have the property.

    With z the normal quantile, the shares q for which |share - q| <= z sqrt(q (1 - q) / n) (Wilson 1927). A bootstrap
    of 12 out of 12 says 1 to 1; this says 0.76 to 1.

    Args:
        share: The share, in [0, 1].
        n: Number of units.
        level: Coverage.

    Raises:
        InputError: no units, a share outside [0, 1], or `level` outside (0, 1).
    """
    if n < 1 or not 0 <= share <= 1 or not 0 < level < 1:
        raise InputError(f"share, n, level: expected a share in [0, 1] of units, got {share}, {n}, {level}")
    z = NormalDist().inv_cdf((1 + level) / 2)
    middle, scale = share + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(share * (1 - share) / n + (z / (2 * n)) ** 2)
    # Rounding must not take the share itself out of its interval.
    return max(0.0, min(share, (middle - half) / scale)), min(1.0, max(share, (middle + half) / scale))


def paired_difference(
    a: Shaped[Tensor, " n"],
    b: Shaped[Tensor, " m"],
    *,
    groups: Int[Tensor, " _"] | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean of a - b over rows with its percentile bootstrap interval; a row's two values stay together.

    Args:
        a: One value a row.
        b: Another value of the same rows. A row that has no value (NaN) in both is left out.
        groups: As in `bootstrap_interval`.
        draws: Resamples.
        level: Coverage.
        seed: Seed of the resampling.

    Raises:
        InputError: other numbers of rows, no row, or a row with a value on one side only.
    """
    a, b, groups = _paired(a, b, groups)
    return Estimate(float((a - b).mean()), *_interval_of_ratio(a - b, None, groups, draws, level, seed))


def paired_ratio(
    a: Shaped[Tensor, " n"],
    b: Shaped[Tensor, " m"],
    *,
    groups: Int[Tensor, " _"] | None = None,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean of a over mean of b with its percentile bootstrap interval; arguments as `paired_difference`.

    Raises:
        InputError: as `paired_difference`; also a negative `b`, or none above zero.
    """
    a, b, groups = _paired(a, b, groups)
    if bool((b < 0).any()) or not bool((b > 0).any()):
        raise InputError(f"b: expected values >= 0, some of them above, got [{b.min():.4g}, {b.max():.4g}]")
    return Estimate(float(a.mean() / b.mean()), *_interval_of_ratio(a, b, groups, draws, level, seed))


def _interval_of_ratio(
    a: Float[Tensor, " n"],
    b: Float[Tensor, " n"] | None,
    groups: Int[Tensor, " _"] | None,
    draws: int,
    level: float,
    seed: int,
) -> tuple[float, float]:
    """Interval of mean(a) / mean(b), b None for ones: of sums over groups where there are some."""
    if groups is not None:
        of = numbered(groups, len(a))
        a, b = sums(a, of), sums(torch.ones_like(a) if b is None else b, of)

    def statistic(rows: Tensor) -> Tensor:
        return a[rows].mean(1) if b is None else a[rows].mean(1) / b[rows].mean(1)

    return percentile_interval(len(a), statistic, draws=draws, level=level, seed=seed)


def _paired(a: Tensor, b: Tensor, groups: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
    """Both in float64 and their groups, without the rows that have no value."""
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"a, b: expected one value of each a row, got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.double(), b.double()
    one = (a.isnan() != b.isnan()).nonzero().flatten().tolist()
    if one:
        raise InputError(f"a, b: expected a value on both sides or on neither, got one of two in rows {one[:8]}")
    some = ~a.isnan()
    if not bool(some.any()):
        raise InputError("a, b: expected at least one row with values, got none")
    return a[some], b[some], None if groups is None else numbered(groups, len(a))[some]


def row_weights(n: int, *, draws: int, seed: int) -> Float[Tensor, "draws n"]:
    """Random weights of rows, n times Dirichlet(1, ..., 1), float64: the Bayesian bootstrap (Rubin 1981).

    For statistics of pairs or of covariances, which drawing rows with replacement would bias by repeating some.
    """
    w = -torch.log1p(-uniform((n,), seed=seed, row=torch.arange(draws), stream=1).double())
    return n * w / w.sum(1, keepdim=True)


def holm(p: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Adjusted p-values of a family of tests, whatever their dependence: Holm (1979).

    The k-th smallest becomes max over j <= k of (n - j + 1) p_(j), at most 1. Rejecting where it is at most alpha keeps
    the probability of any false rejection at alpha.

    Args:
        p: p-values in [0, 1], in any order.

    Raises:
        InputError: a value outside [0, 1] or NaN.
    """
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise InputError(f"p: expected p-values in [0, 1], got {p.tolist()[:8]}")
    rising, order = p.sort()
    adjusted = (rising * torch.arange(len(p), 0, -1)).clamp(max=1)
    return torch.empty_like(p).index_copy_(0, order, adjusted.cummax(0).values)

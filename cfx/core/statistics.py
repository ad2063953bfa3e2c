"""Small statistics on per-row values: bootstrap intervals, paired comparisons, Holm's adjustment."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.random import uniform


@lru_cache(maxsize=1)  # a table asks for the same resamples once a column
def _resamples(n: int, draws: int, seed: int) -> Int[Tensor, "draws n"]:
    """Rows drawn with replacement."""
    u = uniform((n,), seed=seed, row=torch.arange(draws), stream=0)
    return (u.double() * n).long().clamp(max=n - 1)


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


def bootstrap_interval(
    values: Shaped[Tensor, "n ..."],
    statistic: Callable[[Tensor], Tensor] = lambda v: v.double().mean(1),
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval over rows (Efron 1979).

    Args:
        values: One entry a row; columns of a row stay together, so a statistic of several columns is paired.
        statistic: Resampled values `(draws, n, ...)` to `(draws,)`; the mean by default.
        draws: Resamples.
        level: Coverage.
        seed: Seed of the resampling.

    Raises:
        InputError: no rows, or `level` outside (0, 1).
    """
    if len(values) == 0:
        raise InputError("values: expected at least one row, got none")
    if not 0 < level < 1:
        raise InputError(f"level: expected a number in (0, 1), got {level}")
    n = len(values)
    found = statistic(values[_resamples(n, draws, seed)]).double()
    low, high = found.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high


def paired_difference(
    a: Shaped[Tensor, " n"], b: Shaped[Tensor, " m"], *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Mean of a - b over rows with its percentile bootstrap interval; a row's two values stay together.

    Args:
        a: One value a row.
        b: Another value of the same rows. A row that has no value (NaN) in both is left out.
        draws: Resamples.
        level: Coverage.
        seed: Seed of the resampling.

    Raises:
        InputError: other numbers of rows, no row, or a row with a value on one side only.
    """
    a, b = _paired(a, b)
    low, high = bootstrap_interval(a - b, draws=draws, level=level, seed=seed)
    return Estimate(float((a - b).mean()), low, high)


def paired_ratio(
    a: Shaped[Tensor, " n"], b: Shaped[Tensor, " m"], *, draws: int = 2000, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Mean of a over mean of b with its percentile bootstrap interval; arguments as `paired_difference`.

    Raises:
        InputError: as `paired_difference`; also a negative `b`, or none above zero.
    """
    a, b = _paired(a, b)
    if bool((b < 0).any()) or not bool((b > 0).any()):
        raise InputError(f"b: expected values >= 0, some of them above, got [{b.min():.4g}, {b.max():.4g}]")
    pairs = torch.stack([a, b], 1)
    ratio = bootstrap_interval(
        pairs, lambda p: p[..., 0].mean(1) / p[..., 1].mean(1), draws=draws, level=level, seed=seed
    )
    return Estimate(float(a.mean() / b.mean()), *ratio)


def _paired(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64, without the rows that have no value."""
    if a.shape != b.shape or a.ndim != 1:
        raise InputError(f"a, b: expected one value of each a row, got shapes {tuple(a.shape)} and {tuple(b.shape)}")
    a, b = a.double(), b.double()
    one = (a.isnan() != b.isnan()).nonzero().flatten().tolist()
    if one:
        raise InputError(f"a, b: expected a value on both sides or on neither, got one of two in rows {one[:8]}")
    some = ~a.isnan()
    if not bool(some.any()):
        raise InputError("a, b: expected at least one row with values, got none")
    return a[some], b[some]


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

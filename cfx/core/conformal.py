"""Conformal prediction: quantiles and p-values that hold for any model, in finite samples, if rows are exchangeable.

With scores s_1 .. s_n of calibration rows and s of a new row, all exchangeable, the rank of s among the n + 1 is
uniform (or higher up among ties). Hence, with k = ceil((n + 1)(1 - alpha)) and q the k-th smallest of s_1 .. s_n
(infinite if k > n),

    P(s <= q) >= 1 - alpha,    and < 1 - alpha + 1 / (n + 1) without ties;
    p = (1 + #{i : s_i >= s}) / (n + 1)    has    P(p <= u) <= u for every u.

Both speak of new calibration rows as well. For the calibration rows at hand the coverage P(s <= q | s_1 .. s_n) of
independent rows is Beta(k, n + 1 - k) distributed without ties: with n = 100 and alpha = 0.1 it is between 0.85 and
0.94 nine times out of ten.

Many p-values that share their calibration rows depend on each other, but positively, and the step-up procedure of
Benjamini and Hochberg keeps its promise: of all rejections at most the share alpha is false on average.

References: Vovk, Gammerman, Shafer (2005), "Algorithmic learning in a random world"; Vovk (2012), "Conditional validity
of inductive conformal predictors", for the Beta law; Benjamini and Hochberg (1995); Bates, Candes, Lei, Romano, Sesia
(2023), "Testing for outliers with conformal p-values".
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor

from cfx.core.errors import InputError


def conformal_rank(n: int, alpha: float) -> int:
    """K = ceil((n + 1)(1 - alpha)), n + 1 where n scores are too few for alpha.

    Raises:
        InputError: fewer than no scores, or `alpha` outside (0, 1).
    """
    if n < 0 or not 0 < alpha < 1:
        raise InputError(f"n, alpha: expected n >= 0 and alpha in (0, 1), got {n} and {alpha}")
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)  # 1 - 0.7 is a little more than 0.3


def conformal_quantile(scores: Float[Tensor, "*m n"], alpha: float) -> Float[Tensor, "*m"]:
    """The k-th smallest calibration score; a new score is at most that with probability 1 - alpha or more.

    Args:
        scores: Scores of calibration rows, higher for rows that fit less.
        alpha: Largest probability of missing, in (0, 1).

    Returns:
        The quantile, infinite where n < (1 - alpha) / alpha.

    Raises:
        InputError: NaN among the scores, or `alpha` outside (0, 1).
    """
    _check(scores)
    k = conformal_rank(scores.shape[-1], alpha)
    if k > scores.shape[-1]:
        return scores.new_full(scores.shape[:-1], torch.inf)
    return scores.kthvalue(k, dim=-1).values


def conformal_p_values(scores: Float[Tensor, " n"], new: Float[Tensor, "*m"]) -> Float[Tensor, "*m"]:
    """p-value of every new score, (1 + #{i : s_i >= s}) / (n + 1), float64: small for scores beyond the calibration.

    Args:
        scores: Scores of calibration rows.
        new: Scores of other rows.

    Raises:
        InputError: NaN among the scores.
    """
    _check(scores)
    _check(new)
    below = torch.searchsorted(scores.sort().values, new.contiguous().to(scores))  # scores that are less
    return (1 + len(scores) - below).double() / (len(scores) + 1)


def coverage_band(
    n: int | Sequence[int], new: int | Sequence[int], alpha: float, *, level: float = 0.95
) -> tuple[float, float]:
    """Exact band of the share of new rows that is covered, over calibration and new rows together, without ties.

    The number of covered among `new` independent rows is beta-binomial with k and n + 1 - k, k the conformal rank; of
    scores with ties more may be covered, never fewer on average. Where several thresholds were made of rows of their
    own, of each class say, the numbers of covered are independent and add up.

    Args:
        n: Number of calibration rows, of each threshold.
        new: Number of new rows, likewise.
        alpha: Largest probability of missing.
        level: Probability of the band, shared evenly between its sides.

    Returns:
        Lowest and highest share; (1, 1) where every n is too small for alpha, so that every set holds all.

    Raises:
        InputError: no new rows, or as `conformal_rank`.
    """
    cells = list(zip([n] if isinstance(n, int) else n, [new] if isinstance(new, int) else new, strict=True))
    rows = sum(m for _, m in cells)
    if rows < 1:
        raise InputError(f"new: expected at least one row, got {rows}")
    chance = np.ones(1)  # of every number of covered rows so far
    for calibrated, m in cells:
        chance = np.convolve(chance, _covered(calibrated, m, conformal_rank(calibrated, alpha)))
    below = chance.cumsum()
    low, high = (int(np.searchsorted(below, q)) for q in ((1 - level) / 2, (1 + level) / 2))
    return low / rows, min(high, rows) / rows


def _covered(n: int, m: int, k: int) -> NDArray[np.float64]:
    """Chances of 0 .. m covered rows among m."""
    if k > n:
        return np.concatenate([np.zeros(m), np.ones(1)])
    found: NDArray[np.float64] = stats.betabinom(m, k, n + 1 - k).pmf(np.arange(m + 1))
    return found


def chance_of_so_many(out: int, new: int, calibrated: int, alpha: float) -> float:
    """Probability that at least `out` of `new` rows have p <= alpha, if all of them are like the calibration rows.

    With n calibration rows and k as above, P(p <= alpha | s_1 .. s_n) is Beta(n + 1 - k, k) distributed without ties,
    so that the number of such rows is beta-binomial.

    Args:
        out: Rows with p <= alpha.
        new: Rows.
        calibrated: Number of calibration rows.
        alpha: The level, in (0, 1).
    """
    k = conformal_rank(calibrated, alpha)
    if k > calibrated:  # no p is as small as that
        return float(out == 0)
    return float(stats.betabinom(new, calibrated + 1 - k, k).sf(out - 1))


def benjamini_hochberg(p: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Adjusted p-values; rejecting where one is at most alpha keeps the false discovery rate at alpha.

    The k-th smallest becomes the least of n p_(j) / j over j >= k. Holds for independent and for positively dependent
    p-values, such as conformal ones.

    Args:
        p: p-values in [0, 1], in any order.

    Raises:
        InputError: a value outside [0, 1] or NaN.
    """
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise InputError(f"p: expected p-values in [0, 1], got {p.tolist()[:8]}")
    falling, order = p.sort(descending=True)
    adjusted = falling * (len(p) / torch.arange(len(p), 0, -1, dtype=torch.float64)).to(p)
    return torch.empty_like(p).index_copy_(0, order, adjusted.cummin(0).values)


def discoveries(p: Float[Tensor, " n"], alpha: float) -> Bool[Tensor, " n"]:
    """Which hypotheses are rejected at the false discovery rate alpha; arguments and errors as `benjamini_hochberg`."""
    return benjamini_hochberg(p) <= alpha


def _check(scores: Tensor) -> None:
    if bool(scores.isnan().any()):
        raise InputError("scores: expected numbers, got NaN")

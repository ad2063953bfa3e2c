"""Risk control: thresholds that keep the mean of a monotone loss, or the share of failures, below a level.

**On average.** Let every row i have scores s_ij with weights w_ij >= 0 that add up to 1 in each row, so that at the
threshold q its loss L_i(q) = sum_j w_ij [s_ij > q] lies in [0, 1] and does not rise with q. With n rows, the smallest q
with

    n / (n + 1) mean_i L_i(q) + 1 / (n + 1) <= alpha      has      alpha - 2 / (n + 1) <= E L(q) <= alpha

on exchangeable rows (the left side where the loss has no large jumps). With one score a row this is the conformal
quantile of `cfx.core.conformal`: L is then the event of missing. With several, voxels of an image say, they may depend
on each other in any way: the row is what is exchangeable. Where n < (1 - alpha) / alpha no q suffices, and it is
infinite.

**With confidence.** If k of m independent rows fail, the failure rate r has P(at most k fail) = Binomial(m, r), so that
{k : P(Bin(m, alpha) <= k) <= delta} is met with probability delta at most where r > alpha. Rows that were sorted by
something else are as good: given the j-th largest score, the j - 1 rows above it are independent draws from above it.

**Under a known shift of covariates**, with w = dP_new / dP_old of every row, the quantile of the scores weighted by w,
the new row's weight at infinity, covers a new row with probability 1 - alpha.

References: Angelopoulos, Bates, Fisch, Lei, Schuster (2024), "Conformal risk control"; Angelopoulos, Bates, Candes,
Jordan, Lei (2021), "Learn then test"; Bentkus (2004) and Bates, Angelopoulos, Lei, Malik, Jordan (2021),
"Distribution-free, risk-controlling prediction sets"; Tibshirani, Barber, Candes, Ramdas (2019), "Conformal prediction
under covariate shift".
"""

import numpy as np
import torch
from jaxtyping import Float
from scipy import stats
from torch import Tensor

from cfx.core.errors import InputError

_TINY = 1e-9  # sums of weights are compared up to this


def check_alpha(alpha: float, name: str = "alpha") -> None:
    """Refuse what is no level.

    Raises:
        InputError: outside (0, 1).
    """
    if not 0 < alpha < 1:
        raise InputError(f"{name}: expected a number in (0, 1), got {alpha}")


def allowed_risk(n: int, alpha: float) -> float:
    """Largest mean loss of n calibration rows, losses in [0, 1], for a mean of alpha on new ones; negative for none."""
    return ((n + 1) * alpha - 1) / n if n else -1.0


def risk_threshold(scores: Float[Tensor, " m"], weights: Float[Tensor, " m"], n: int, alpha: float) -> float:
    """The smallest q of the module, first part.

    Args:
        scores: Scores of all rows, in any order; higher is missed sooner.
        weights: Their weights, which add up to 1 in every row that can lose anything.
        n: Number of rows.
        alpha: Largest mean loss, in (0, 1).

    Returns:
        The threshold: what scores at most that is kept; infinite where n is too small for alpha.

    Raises:
        InputError: `alpha` outside (0, 1), or NaN among the scores.
    """
    check_alpha(alpha)
    if bool(scores.isnan().any()):
        raise InputError("scores: expected numbers, got NaN")
    most = allowed_risk(n, alpha) * n + _TINY
    if most < 0:
        return torch.inf
    falling, order = scores.sort(descending=True)
    lost = weights.double()[order].cumsum(0)  # by leaving out the first of them
    k = int(torch.searchsorted(lost, torch.tensor(most).to(lost), right=True))
    return -torch.inf if k == len(falling) else float(falling[k])


def weighted_thresholds(
    scores: Float[Tensor, " n"], weights: Float[Tensor, " n"], new: Float[Tensor, "*m"], alpha: float
) -> Float[Tensor, "*m"]:
    """Quantile of weighted scores for new rows of these weights.

    The smallest score q with sum_i w_i [s_i <= q] >= (1 - alpha) (sum_i w_i + w); infinite where there is none.

    Args:
        scores: Scores of calibration rows.
        weights: Their density ratios, up to a common factor.
        new: Density ratios of the new rows, up to the same factor.
        alpha: Largest probability of missing.

    Raises:
        InputError: `alpha` outside (0, 1), or weights that are negative, not finite or all zero.
    """
    check_alpha(alpha)
    for name, w in (("weights", weights), ("new", new)):
        if not bool(((w >= 0) & (w < torch.inf)).all()):
            raise InputError(f"{name}: expected density ratios, finite and >= 0, got {w.flatten()[:4].tolist()}")
    if not float(weights.sum()) > 0:
        raise InputError("weights: expected some above zero; the cohorts seem to have nothing in common")
    rising, order = scores.double().sort()
    reached = weights.double()[order].cumsum(0)
    wanted = (1 - alpha) * (reached[-1] + new.double()) * (1 - _TINY)
    at = torch.searchsorted(reached, wanted.contiguous())
    return torch.cat([rising, rising.new_full((1,), torch.inf)])[at]


def fewer_failures_p(failures: int, rows: int, alpha: float) -> float:
    """P(Bin(rows, alpha) <= failures): how likely so few failures are where their rate is alpha."""
    return float(stats.binom.cdf(failures, rows, alpha)) if rows else 1.0


def smaller_mean_p(mean: float, rows: int, alpha: float) -> float:
    """P-value of the hypothesis that losses in [0, 1] have a mean above alpha, from the mean of independent rows.

    The smaller of the bounds of Hoeffding, exp(-n KL(mean || alpha)), and Bentkus, e P(Bin(n, alpha) <= ceil(n mean)).
    """
    if not rows or mean >= alpha:
        return 1.0
    inside = np.array([mean, 1 - mean])
    with np.errstate(divide="ignore", invalid="ignore"):
        kl = float(np.nansum(inside * np.log(inside / np.array([alpha, 1 - alpha]))))
    bentkus = float(np.e * stats.binom.cdf(np.ceil(rows * mean - _TINY), rows, alpha))
    return min(1.0, float(np.exp(-rows * kl)), bentkus)

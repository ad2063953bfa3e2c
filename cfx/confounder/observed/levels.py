"""Do the levels of a category tell two classes apart? One test of all levels, however many there are.

With c_jk rows of class j at level k, n_j of class j in all, p_jk = c_jk / n_j and p_k the share of level k in all rows,

    D^2 = sum_k (p_1k - p_0k)^2 / p_k,    X^2 = D^2 n_0 n_1 / (n_0 + n_1)

X^2 is Pearson's. Its permutation p is exact where levels have a handful of rows each, of which no share of a single
level would be significant. D is the standardised difference of a category (2 where every level is of one class and the
classes are of one size). Less what chance adds it is sqrt(max(0, X^2 - K + 1) (n_0 + n_1) / (n_0 n_1)) for K levels;
its interval, and the test that it is below a margin, are those of a noncentral X^2.

References: Yang and Dalton (2012), "A unified approach to measuring the effect size between two groups"; Cohen (1988),
chapter 7; Steiger (2004), "Beyond the F test", for intervals by inversion.
"""

import math
from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from scipy import optimize, stats
from torch import Tensor

from cfx.confounder.observed.conditional import one_hot
from cfx.confounder.observed.independence import permutation_p
from cfx.confounder.observed.two_sample import relabelled
from cfx.core.errors import InputError


@dataclass(frozen=True)
class Levels:
    """How far apart two classes are in a category.

    Attributes:
        difference: D, less what chance adds; never below 0.
        low: Lower end of its 1 - alpha interval.
        high: Upper end.
        p_value: Permutation p, (1 + b) / (1 + m), of X^2.
        p_equivalence: p of the test that D is below the margin.
        share: Share of the second class at the level of every row.
    """

    difference: float
    low: float
    high: float
    p_value: float
    p_equivalence: float
    share: Float[Tensor, " n"]


def levels_test(
    code: Int[Tensor, " n"],
    group: Bool[Tensor, " n"],
    *,
    alpha: float = 0.05,
    margin: float = 0.2,
    permutations: int = 1999,
    seed: int = 0,
) -> Levels:
    """Test H0: both groups have the same shares of all levels.

    Args:
        code: Level of every row, 0 .. K - 1, each at least once; rows are independent.
        group: The second group; the others are the first.
        alpha: Level of the interval.
        margin: D below which the groups are called alike.
        permutations: m.
        seed: Seed of the permutations.

    Raises:
        InputError: fewer than two levels, or an empty group.
    """
    hot, n, b = one_hot(code), len(code), int(group.sum())
    if hot.shape[1] < 2 or not 0 < b < n:
        raise InputError(
            f"code, group: expected two levels and two groups, got {hot.shape[1]}, {b} of {n} in the group"
        )
    count = relabelled(group, permutations, seed) @ hot
    x = (count - b * hot.mean(0)).square() @ (1 / hot.mean(0)) * n / (b * (n - b))
    observed, df, unit = float(x[0]), hot.shape[1] - 1, n / (b * (n - b))
    low, high = _noncentrality(observed, df, alpha)
    return Levels(
        difference=math.sqrt(max(0.0, observed - df) * unit),
        low=math.sqrt(low * unit),
        high=math.sqrt(high * unit),
        p_value=permutation_p(observed, x[1:]),
        p_equivalence=float(stats.ncx2.cdf(observed, df, margin**2 / unit)),
        share=(count[0] / hot.sum(0))[code],
    )


def _noncentrality(x: float, df: int, alpha: float) -> tuple[float, float]:
    """The interval of the noncentrality of a chi-squared value."""
    most = 4 * (x + df + 25)
    ends = []
    for p in (1 - alpha / 2, alpha / 2):

        def excess(nc: float, p: float = p) -> float:
            return float(stats.ncx2.cdf(x, df, nc)) - p if nc else float(stats.chi2.cdf(x, df)) - p

        ends.append(0.0 if excess(0.0) <= 0 else float(optimize.brentq(excess, 0.0, most)))
    return ends[0], ends[1]

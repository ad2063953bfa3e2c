"""Can a classifier tell two groups apart by their variables? The classifier two-sample test.

If the groups are samples of one distribution no classifier does better than chance on rows that it has not seen. The
statistic is the area under the curve of out-of-fold scores of a ridge logistic regression, which is fitted anew to
every permuted grouping: folds do not look at the groups, so p is exact in finite samples.

References: Lopez-Paz and Oquab (2017), "Revisiting classifier two-sample tests"; Boehning and Lindsay (1988),
"Monotonicity of quadratic-approximation algorithms", for the fit.
"""

from dataclasses import dataclass
from functools import lru_cache

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.confounder.observed.independence import permutation_p, shuffles
from cfx.core.errors import InputError
from cfx.core.random import permutation
from cfx.core.scores import auroc, balanced_accuracy

_FOLDS = 5
_STEPS = 50  # of the logistic fit
_PENALTY = 1.0  # on each standardised column, half its square
_ROUNDING = 1e-9  # spread this small, relative to the values, is none


@dataclass(frozen=True)
class TwoSample:
    """Can all variables together tell the classes apart?

    Attributes:
        auc: Area under the curve of out-of-fold scores, the statistic; about 0.5 for classes that match.
        balanced_accuracy: Mean of the classes' shares decided right, at the odds of the training rows.
        p_value: One-sided permutation p, (1 + b) / (1 + m).
        permutations: m.
    """

    auc: float
    balanced_accuracy: float
    p_value: float
    permutations: int


def two_sample(
    columns: Float[Tensor, "n v"], group: Bool[Tensor, " n"], *, permutations: int = 999, seed: int = 0
) -> TwoSample:
    """Test H0: the rows of both groups come from one distribution.

    Args:
        columns: Variables, of any scale. A missing value (NaN) counts as the mean; say in a column of its own that it
            is missing.
        group: The second group; the others are the first.
        permutations: m.
        seed: Seed of permutations and folds.

    Raises:
        InputError: other numbers of rows, an empty group, infinite values, or no permutations.
    """
    if len(columns) != len(group) or not 0 < int(group.sum()) < len(group) or permutations < 1:
        got = f"{len(columns)} rows, {int(group.sum())} of {len(group)} in the group, {permutations} permutations"
        raise InputError(f"columns, group, permutations: expected the same rows, two groups, at least one, got {got}")
    if bool(columns.isinf().any()):
        raise InputError("columns: expected finite values or NaN, got infinite ones")
    x, groups = _standardised(columns), relabelled(group, permutations, seed)
    score = torch.empty_like(groups)
    fold = permutation(len(x), seed=seed, stream=1) % _FOLDS
    for k in range(_FOLDS):
        here = fold == k
        score[:, here] = _logit(x[~here], groups[:, ~here], x[here])
    auc = auroc(score, groups > 0)
    accuracy = float(balanced_accuracy((score[0] > 0) == group, group))
    return TwoSample(float(auc[0]), accuracy, permutation_p(float(auc[0]), auc[1:]), permutations)


@lru_cache(maxsize=2)  # most variables have all rows
def _orders(n: int, draws: int, seed: int) -> Int[Tensor, "draws n"]:
    return shuffles(torch.zeros(n, dtype=torch.long), draws=draws, seed=seed)


def relabelled(group: Bool[Tensor, " n"], draws: int, seed: int) -> Float[Tensor, "m n"]:
    """The observed grouping and its permutations, as 0 and 1."""
    return torch.cat([group[None], group[_orders(len(group), draws, seed)]]).double()


def _standardised(columns: Float[Tensor, "n v"]) -> Float[Tensor, "n v"]:
    """Columns of mean 0 and variance 1 with 0 for what is missing; those that never vary are 0."""
    known = ~columns.isnan()
    centred = (columns - columns.nanmean(0)).double().where(known, 0.0)
    spread = centred.square().mean(0).sqrt()
    return centred / spread.where(spread > _ROUNDING * columns.nan_to_num().abs().amax(0), torch.inf)


def _logit(x: Float[Tensor, "n v"], groups: Float[Tensor, "m n"], new: Float[Tensor, "k v"]) -> Float[Tensor, "m k"]:
    """Logit of the second class on new rows, over that of its share in training, for every grouping.

    Ridge logistic regression by steps with the bound X'X / 4 on the curvature, one matrix for all groupings.
    """
    share = groups.mean(1, keepdim=True)
    offset = (share / (1 - share)).log().clamp(-20, 20)
    curvature = x.T @ x / 4 + _PENALTY * torch.eye(x.shape[1], dtype=x.dtype)
    gain = torch.linalg.solve(curvature, x.T).T
    shrink = _PENALTY * torch.linalg.inv(curvature)
    beta = torch.zeros(len(groups), x.shape[1], dtype=x.dtype)
    for _ in range(_STEPS):
        beta = beta + (groups - (beta @ x.T + offset).sigmoid()) @ gain - beta @ shrink
    return beta @ new.T

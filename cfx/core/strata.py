"""Two groups compared within strata, by permutation of who is in which.

If membership is exchangeable within every stratum, a statistic of it has the same distribution for every permutation,
and p = (1 + b) / (1 + m) is exact in finite samples.

Reference: van Elteren (1960), "On the combination of independent two sample tests of Wilcoxon", for ranks.
"""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.random import uniform

_ENTRIES = 1 << 22  # of permutations worked on at a time
_STREAM = 0x51


def permuted_p(
    statistic: Callable[[Float[Tensor, "d g"]], Float[Tensor, " d"]],
    group: Bool[Tensor, " g"],
    strata: Int[Tensor, " g"] | None = None,
    *,
    draws: int = 999,
    seed: int = 0,
) -> float:
    """P-value of a statistic of who is in the group, large where the groups differ.

    Args:
        statistic: From memberships, a line of ones and zeros each, to numbers.
        group: Who is in the group.
        strata: Within which membership is permuted; everywhere by default.
        draws: Permutations m.
        seed: Seed of them.
    """
    strata = torch.zeros(len(group)).long() if strata is None else strata
    base = strata.argsort(stable=True)
    observed, hits = float(statistic(group[None].double())), 0
    for rows in torch.arange(draws).split(max(1, _ENTRIES // len(group))):
        keys = uniform((len(group),), seed=seed, row=rows, stream=_STREAM).double()
        who = torch.zeros(len(rows), len(group)).double()
        who[:, base] = group[(strata + keys).argsort(1)].double()
        hits += int((statistic(who) >= observed - 1e-9 * (1 + abs(observed))).sum())
    return (1 + hits) / (1 + draws)


def stratified_ranks(values: Float[Tensor, " g"], strata: Int[Tensor, " g"] | None = None) -> Float[Tensor, " g"]:
    """Ranks within the strata, ties in the middle, over the size of the stratum plus 1: van Elteren's scores.

    Their sum over a group is the statistic that is best against a shift of all strata alike.
    """
    strata = torch.zeros(len(values)).long() if strata is None else strata
    found = torch.zeros(len(values)).double()
    for k in strata.unique():
        own = values[strata == k]
        found[strata == k] = (placed(own, own) * len(own) + 0.5) / (len(own) + 1)
    return found


def apart(
    values: Float[Tensor, " g"], group: Bool[Tensor, " g"], strata: Int[Tensor, " g"], who: Float[Tensor, "d g"]
) -> Float[Tensor, " d"]:
    """Sum over strata of |mean of n in the group - mean of m outside|, each weighted by n m / (n + m).

    Args:
        values: Values.
        group: Who is in the group, for the sizes, which permutations keep.
        strata: The strata.
        who: Memberships, as `permuted_p` hands them out.
    """
    total = torch.zeros(len(who)).double()
    for k in strata.unique():
        here = strata == k
        size, n = int(here.sum()), int((here & group).sum())
        if 0 < n < size:
            inside = who[:, here] @ values[here].double()
            outside = values[here].double().sum() - inside
            total += (inside / n - outside / (size - n)).abs() * n * (size - n) / size
    return total


def placed(new: Float[Tensor, " b"], known: Float[Tensor, " r"]) -> Float[Tensor, " b"]:
    """Share of known values below each new one, ties half."""
    rising = known.sort().values
    low, high = (torch.searchsorted(rising, new.contiguous(), right=right) for right in (False, True))
    return (low + high).double() / (2 * len(rising))

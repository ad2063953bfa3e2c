"""One p-value of several about the same row, such as those of several detectors, which depend on each other.

Cauchy (ACAT). With weights w_1 .. w_k that sum to 1,

    T = sum_i w_i cot(pi p_i),    p = 1/2 - arctan(T) / pi.

Under the null each cot(pi p_i) is Cauchy distributed, and so is T if they are independent or all equal; under any
other dependence (of a mild kind: pairwise normal) the tail is: P(p <= u) / u tends to 1 as u falls. A p-value near 1
would outweigh all others, and that of a detector which a shift inverts (a blurred image is restored too well) is
exactly 1; so each counts as `CEILING` at most (truncated Cauchy).

Fisher. -2 sum_i log p_i is chi-square of 2 k degrees for independent p-values only: of k equal ones it is k times
that of one, and rejects far too often. So nothing is assumed here: the statistic is compared with that of
in-distribution rows, by conformal ranks (`cfx.core.conformal`); then P(p <= u) <= u holds in finite samples whatever
the dependence, since these rows have the same.

References: Liu and Xie (2020), "Cauchy combination test: a powerful test with analytic p-value calculation under
arbitrary dependency structures"; Fang, Tang, Park, Tseng (2023), "Heavy-tailed distribution for combining dependent
p-values with asymptotic robustness", for the truncation; Fisher (1925), "Statistical methods for research workers".
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.conformal import conformal_p_values
from cfx.core.errors import InputError

CEILING = 0.99
"""The most that a p-value counts as."""
_FLOOR = 1e-300  # 0 counts as this: the smallest whose cotangent is a number


def cauchy(p: Float[Tensor, "k *m"], weights: Float[Tensor, " k"] | None = None) -> Float[Tensor, "*m"]:
    """p-value of k dependent p-values a row, by the Cauchy combination; float64.

    Args:
        p: p-values in [0, 1], those of one test along the first axis.
        weights: Positive weights of the tests, of any sum; equal by default.

    Raises:
        InputError: no p-value, one outside [0, 1] or NaN, or weights that are not positive.
    """
    p = _checked(p).clamp(_FLOOR, CEILING)
    w = torch.ones(len(p)).to(p) if weights is None else weights.to(p)
    if not bool(((w > 0) & w.isfinite()).all()):
        raise InputError(f"weights: expected positive numbers, got {w.tolist()[:8]}")
    # each cotangent from the end that p is near: the difference to 1 is exact, pi p near pi is not
    cotangent = torch.where(p < 0.5, 1, -1) / (math.pi * torch.minimum(p, 1 - p)).tan()
    t = torch.tensordot(w / w.sum(), cotangent, 1)
    return torch.atan2(torch.ones_like(t), t) / math.pi  # arccot: exact also where p is tiny


def fisher(p: Float[Tensor, "k *m"], null: Float[Tensor, "tests n"]) -> Float[Tensor, "*m"]:
    """p-value of k dependent p-values a row, by Fisher's statistic, calibrated; float64.

    Args:
        p: p-values in [0, 1], those of one test along the first axis.
        null: The same tests' p-values of in-distribution rows, none of which the tests were fitted or calibrated to.

    Returns:
        At least 1 / (n + 1).

    Raises:
        InputError: no p-value, one outside [0, 1] or NaN, or `null` of other tests or without rows.
    """
    if null.shape[:1] != p.shape[:1] or not null.shape[1]:
        raise InputError(f"null: expected p-values of {len(p)} tests in some rows, got shape {tuple(null.shape)}")
    new, known = (-2 * _checked(v).clamp(min=_FLOOR).log().sum(0) for v in (p, null))
    return conformal_p_values(known, new)


def _checked(p: Tensor) -> Tensor:
    """P-values in float64.

    Raises:
        InputError: there are none, or one is outside [0, 1].
    """
    if not len(p) or not bool(((p >= 0) & (p <= 1)).all()):
        raise InputError(f"p: expected p-values in [0, 1], got {p.flatten().tolist()[:8]}")
    return p.double()

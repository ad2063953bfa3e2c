"""Do two classes match? An audit of the data, before any classifier is trained.

Every covariate, the share of each of its values where these are few and may be codes (sites 0, 1, 2 have no mean worth
comparing), and every variable read off the images (`observed.variables`) is compared between the classes:

    g = J (m_1 - m_0) / s,   s^2 = ((n_0 - 1) s_0^2 + (n_1 - 1) s_1^2) / (n_0 + n_1 - 2)

with J = 1 - 3 / (4 (n_0 + n_1) - 9) and standard error sqrt((n_0 + n_1) / (n_0 n_1) + g^2 / (2 (n_0 + n_1))). A
difference needs a permutation p that survives Holm's adjustment; a match needs two one-sided tests that |g| is below a
margin, because a large p is no evidence of balance. The levels of a category are compared in one test besides
(`observed.levels`), however many they are: of 15 sites with a handful of rows each no share can be significant. A
variable can match alone and differ together with others: a classifier two-sample test (`observed.two_sample`) asks
whether the covariates, the images' variables, or all of them together tell the classes apart. What the images differ in
may of course be the disease: the audit cannot know, its reader must.

References: Hedges and Olkin (1985), chapter 5, for g; Austin (2009), "Balance diagnostics", for 0.1 as a difference
that matters; Janssen (1997) for the studentised permutation test; Schuirmann (1987) for equivalence.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from scipy import stats
from torch import Tensor

from cfx.confounder.observed.conditional import levels_of
from cfx.confounder.observed.independence import permutation_p
from cfx.confounder.observed.levels import levels_test
from cfx.confounder.observed.two_sample import TwoSample, relabelled, two_sample
from cfx.confounder.observed.variables import image_variables
from cfx.core.cohort import SUBJECT, Cohort, subject_names
from cfx.core.errors import InputError
from cfx.core.statistics import holm

MATTERS = 0.1
"""Standardised difference from which a significant one is called a difference."""

_FEWEST = 5  # rows a class

_ROUNDING = 1e-9  # spread this small, relative to the values, is none
_MISSING, _LEVEL, _ALL = "missing ", " = ", " (levels)"
_MANY = 32  # different values up to which a column of numbers is read as levels, too
_DRAWS = 1999  # permutations, at least, of all levels

_Name = tuple[Literal["covariate", "image"], str]
Finding = Literal["differs", "matches", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """One variable in the two classes.

    Attributes:
        name: The variable; `missing <name>` for the share of rows without a value, `<name> = <value>` for that of a
            level, `<name> (levels)` for all of its levels together, of which every row stands for its share of the
            second class.
        source: `covariate` or `image`.
        n: Rows with a value in each class.
        mean: Mean in each class.
        difference: Hedges' g, second class less first, in pooled standard deviations; infinite where the classes are
            two constants. Of all levels together the D of `observed.levels`.
        low: Lower end of its 1 - alpha interval.
        high: Upper end.
        variance_ratio: Variance of the second class over that of the first; 1 where both are 0.
        p_value: Permutation p, (1 + b) / (1 + m), of Welch's t; Fisher's exact p for variables of two values.
        p_holm: Adjusted over all variables.
        p_equivalence: The larger p of the two one-sided tests that |g| is below the margin.
        finding: `differs` where p_holm <= alpha and |g| > 0.1; else `matches` where p_equivalence <= alpha; else
            `undecided`.
    """

    name: str
    source: Literal["covariate", "image"]
    n: tuple[int, int]
    mean: tuple[float, float]
    difference: float
    low: float
    high: float
    variance_ratio: float
    p_value: float
    p_holm: float
    p_equivalence: float
    finding: Finding


@dataclass(frozen=True)
class Balance:
    """The audit of two classes.

    Attributes:
        rows: One comparison a variable, the largest difference first; of all levels together where they differ, or
            where nothing else is said of the levels of a category.
        two_sample: The test of several variables together: of the `covariate` ones, the `image` ones, and `all`.
        classes: Names of the two classes.
        alpha: Level of the tests and intervals.
        margin: Standardised difference below which classes match.
    """

    rows: tuple[Comparison, ...]
    two_sample: Mapping[str, TwoSample]
    classes: tuple[str, str]
    alpha: float
    margin: float

    @property
    def worst(self) -> Comparison:
        """The variable that differs most."""
        return self.rows[0]

    @property
    def matching(self) -> tuple[str, ...]:
        """Covariates to match the classes on: those that differ, the largest difference first."""
        differing = [r.name for r in self.rows if r.source == "covariate" and r.finding == "differs"]
        named = [name.removesuffix(_ALL).split(_LEVEL)[0] for name in differing if not name.startswith(_MISSING)]
        return tuple(dict.fromkeys(named))

    @property
    def finding(self) -> Finding:
        """`differs` if a variable does or all together do, `matches` if every one does, images' variables included."""
        each = {r.finding for r in self.rows}
        if "differs" in each or self.two_sample["all"].p_value <= self.alpha:
            return "differs"
        return "matches" if each == {"matches"} else "undecided"


def balance(
    cohort: Cohort,
    *,
    classes: tuple[int, int] = (0, 1),
    leave_out: Sequence[str] = (),
    alpha: float = 0.05,
    margin: float = 0.2,
    permutations: int = 1999,
    seed: int = 0,
) -> Balance:
    """Compare two classes in everything that is known about their rows.

    Rows are taken as independent: of a subject with several images hand in one.

    Args:
        cohort: Labelled images; numeric covariates may have NaN, which counts as missing. A brain mask gives volume and
            shape. Whose an image is (`subject`) is not compared.
        classes: The two labels compared.
        leave_out: Covariates that are not compared, such as a grade of the disease itself.
        alpha: Level.
        margin: Standardised difference below which the classes match.
        permutations: m.
        seed: Seed of permutations and folds.

    Raises:
        InputError: no class labels, fewer than 5 rows of a class, an unknown name in `leave_out`, alpha or margin out
            of range, infinite values, or too few permutations for Holm's adjustment ever to reject.
    """
    cohort, group = _pair(cohort, classes)
    unknown = set(leave_out) - set(cohort.covariates)
    if unknown or not 0 < alpha < 0.5 or not margin > 0:
        got = f"{sorted(unknown)}, {alpha}, {margin}"
        raise InputError(f"leave_out, alpha, margin: expected covariates, in (0, 0.5), above 0, got {got}")
    columns = _columns(cohort, group, leave_out)
    asked = sum(_LEVEL not in name for _, name in columns)  # shares of levels have an exact test
    if asked / (1 + permutations) > alpha:
        least = math.ceil(asked / alpha) - 1
        raise InputError(f"permutations: expected at least {least} for {asked} variables, got {permutations}")
    rows = [_compare(name, v, group, alpha, margin, permutations, seed) for name, v in columns.items()]
    rows += _of_levels(cohort, group, leave_out, alpha, margin, max(permutations, _DRAWS), seed)
    names = [cohort.classes[k] if k < len(cohort.classes) else str(k) for k in classes]
    together = {kind: two_sample(v, group, permutations=permutations, seed=seed) for kind, v in _kinds(columns).items()}
    sole = {f"{k}{_ALL}" for k in cohort.categories if not any(name.startswith(f"{k}{_LEVEL}") for _, name in columns)}
    judged = _judged(rows, alpha)
    kept = tuple(r for r in judged if not r.name.endswith(_ALL) or r.finding == "differs" or r.name in sole)
    return Balance(kept, together, (names[0], names[1]), alpha, margin)


def _pair(cohort: Cohort, classes: tuple[int, int]) -> tuple[Cohort, Bool[Tensor, " n"]]:
    """The rows of the two classes, and which of them are of the second."""
    if cohort.y is None or cohort.y.ndim != 1:
        raise InputError("cohort: expected one class label a row, got none or several")
    found = {k: int((cohort.y == k).sum()) for k in classes}
    if len(found) < 2 or min(found.values()) < _FEWEST:
        raise InputError(f"classes: expected two classes of at least {_FEWEST} rows, got {found}")
    rows = (cohort.y == classes[0]) | (cohort.y == classes[1])
    return cohort[rows], cohort.y[rows] == classes[1]


def _columns(cohort: Cohort, group: Bool[Tensor, " n"], leave_out: Sequence[str]) -> dict[_Name, Float[Tensor, " n"]]:
    """All variables, float64; one with NaN brings a second, that of missing, and stays if both classes have values.

    A covariate of three values or a few more may be codes of categories: each value's share is a variable besides.
    """
    known: dict[_Name, Tensor] = {
        ("covariate", k): v for k, v in cohort.covariates.items() if k not in (SUBJECT, *leave_out)
    }
    known |= {("image", k): v for k, v in image_variables(cohort).items()}
    found = {}
    for (source, name), value in known.items():
        missing = value.isnan()
        if bool(value.isinf().any()):
            raise InputError(f"{source} {name}: expected finite values or NaN, got infinite ones")
        if min(int((~missing & group).sum()), int((~missing & ~group).sum())) >= _FEWEST:
            found[source, name] = value.double()
        if missing.any():
            found[source, _MISSING + name] = missing.double()
        levels = levels_of(value) if source == "covariate" and (source, name) in found else None
        if levels is not None and len(levels) > 2:
            for k in levels:
                found[source, f"{name}{_LEVEL}{float(k):g}"] = (value == k).double().masked_fill(missing, torch.nan)
    return found


def _of_levels(
    cohort: Cohort,
    group: Bool[Tensor, " n"],
    leave_out: Sequence[str],
    alpha: float,
    margin: float,
    permutations: int,
    seed: int,
) -> list[Comparison]:
    """All levels together of every covariate that may be a category; of a subject with several rows the first counts.

    Names of categories make one; numbers may be codes where they are not too many and repeat.
    """
    place = {name: k for k, name in reversed(list(enumerate(subject_names(cohort))))}
    first = torch.zeros(len(cohort), dtype=torch.bool)
    first[list(place.values())] = True
    found = []
    for name in [k for k in cohort.covariates if k not in leave_out and k != SUBJECT]:
        value = cohort.covariates[name]
        known = first & ~value.isnan()
        levels, code = value[known].unique(return_inverse=True)
        n, b = len(code), int(group[known].sum())
        few = len(levels) < n if name in cohort.categories else len(levels) <= min(_MANY, n // 2)
        if len(levels) > 2 and few and min(b, n - b) >= _FEWEST:
            t = levels_test(code, group[known], alpha=alpha, margin=margin, permutations=permutations, seed=seed)
            one, two = t.share[~group[known]], t.share[group[known]]
            found.append(Comparison(
                f"{name}{_ALL}", "covariate", (len(one), len(two)), (float(one.mean()), float(two.mean())),
                t.difference, t.low, t.high, _ratio(float(one.var()), float(two.var())), t.p_value, math.nan,
                t.p_equivalence, "undecided",
            ))  # fmt: skip
    return found


def _kinds(columns: Mapping[_Name, Tensor]) -> dict[str, Float[Tensor, "n v"]]:
    """The columns of each source, and all of them."""
    of = {source: [v for (s, _), v in columns.items() if s == source] for source in ("covariate", "image")}
    return {kind: torch.stack(v, 1) for kind, v in (of | {"all": list(columns.values())}).items() if v}


def _compare(
    name: _Name,
    value: Float[Tensor, " n"],
    group: Bool[Tensor, " n"],
    alpha: float,
    margin: float,
    permutations: int,
    seed: int,
) -> Comparison:
    """One variable, not yet adjusted for the others and without its finding."""
    value, group = value[~value.isnan()], group[~value.isnan()]
    first, second = value[~group], value[group]
    g, error = _hedges(first, second)
    reach = float(stats.norm.ppf(1 - alpha / 2)) * error
    return Comparison(
        name=name[1],
        source=name[0],
        n=(len(first), len(second)),
        mean=(float(first.mean()), float(second.mean())),
        difference=g,
        low=g - reach,
        high=g + reach,
        variance_ratio=_ratio(float(first.var()), float(second.var())),
        p_value=_p_value(value, group, permutations, seed),
        p_holm=math.nan,
        p_equivalence=float(stats.norm.sf((margin - abs(g)) / error)) if error else float(abs(g) >= margin),
        finding="undecided",
    )


def _judged(rows: Sequence[Comparison], alpha: float) -> tuple[Comparison, ...]:
    """Adjusted over all variables, with their findings, the largest difference first."""
    adjusted = holm(torch.tensor([r.p_value for r in rows], dtype=torch.float64)).tolist()
    judged = [replace(r, p_holm=p, finding=_finding(r, p, alpha)) for r, p in zip(rows, adjusted, strict=True)]
    return tuple(sorted(judged, key=lambda r: -abs(r.difference)))


def _finding(row: Comparison, p_holm: float, alpha: float) -> Finding:
    if p_holm <= alpha and abs(row.difference) > MATTERS:
        return "differs"
    return "matches" if row.p_equivalence <= alpha else "undecided"


def _hedges(first: Float[Tensor, " a"], second: Float[Tensor, " b"]) -> tuple[float, float]:
    """Hedges' g and its standard error; two constants are 0 or infinitely many standard deviations apart."""
    a, b = len(first), len(second)
    apart = float(second.mean() - first.mean())
    pooled = math.sqrt((float(first.var()) * (a - 1) + float(second.var()) * (b - 1)) / (a + b - 2))
    size = max(float(first.abs().max()), float(second.abs().max()))
    if pooled <= _ROUNDING * size:
        return (0.0 if abs(apart) <= _ROUNDING * size else math.copysign(math.inf, apart)), 0.0
    g = (1 - 3 / (4 * (a + b) - 9)) * apart / pooled
    return g, math.sqrt((a + b) / (a * b) + g**2 / (2 * (a + b)))


def _ratio(first: float, second: float) -> float:
    """Ratio of two variances; 1 where both are 0."""
    if first == 0:
        return 1.0 if second == 0 else math.inf
    return second / first


def _p_value(value: Float[Tensor, " n"], group: Bool[Tensor, " n"], permutations: int, seed: int) -> float:
    """Two-sided: Fisher's exact test for at most two values, else the studentised permutation test."""
    levels, code = value.unique(return_inverse=True)
    if len(levels) <= 2:
        table = [[int(((code == k) & (group == g)).sum()) for k in range(2)] for g in (False, True)]
        return min(1.0, float(stats.fisher_exact(table).pvalue))
    t = _welch((value - value.mean()) / value.std(), relabelled(group, permutations, seed))
    return permutation_p(float(t[0]), t[1:])


def _welch(value: Float[Tensor, " n"], groups: Float[Tensor, "m n"]) -> Float[Tensor, " m"]:
    """Absolute Welch t of every grouping; at most 1e6, which stands for two constants."""
    b = groups.sum(1)
    a = groups.shape[1] - b
    total, squares = value.sum(), value.square().sum()
    sum_b, squares_b = groups @ value, groups @ value.square()
    mean_a, mean_b = (total - sum_b) / a, sum_b / b
    var_a = ((squares - squares_b) / a - mean_a.square()).clamp_min(0) / (a - 1)
    var_b = (squares_b / b - mean_b.square()).clamp_min(0) / (b - 1)
    return (mean_b - mean_a).abs() / (var_a + var_b).sqrt().clamp_min(1e-6)

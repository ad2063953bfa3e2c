"""The audit of two classes: effect sizes against closed forms, levels, findings, planted cohorts."""

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from cfx.confounder.observed import balance as audit
from cfx.confounder.observed.balance import balance
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.data.brain import BrainConfig, Confounder, load_brain


def draw(n, seed=0, stream=0):
    return normal((n,), seed=seed, row=torch.arange(1), stream=stream)[0].double()


def cohort(n, **covariates):
    """Two classes in turn, images of noise."""
    x = 0.1 * normal((1, 6, 6), seed=1, row=torch.arange(n), stream=9)
    return Cohort(x=x, y=torch.arange(n) % 2, covariates=covariates, classes=["a", "b"])


def row(result, name):
    return next(r for r in result.rows if r.name == name)


def test_a_row_is_the_closed_form():
    n = 60
    y = torch.arange(n) % 2
    value = draw(n) * (1 + 0.5 * y) + 1.0 * y
    found = row(balance(cohort(n, age=value)), "age")
    a, b = value[y == 0].numpy(), value[y == 1].numpy()
    pooled = math.sqrt((a.var(ddof=1) + b.var(ddof=1)) / 2)
    g = (b.mean() - a.mean()) / pooled * (1 - 3 / (4 * 58 - 1))
    half = stats.norm.ppf(0.975) * math.sqrt(2 / 30 + g**2 / 120)
    assert (found.difference, found.low, found.high) == pytest.approx((g, g - half, g + half))
    assert found.variance_ratio == pytest.approx(b.var(ddof=1) / a.var(ddof=1))
    assert (found.n, found.source) == ((30, 30), "covariate")
    assert found.mean == pytest.approx((a.mean(), b.mean()))
    assert found.p_equivalence == pytest.approx(stats.norm.sf((0.2 - g) / half * stats.norm.ppf(0.975)))
    welch = float(stats.ttest_ind(a, b, equal_var=False).pvalue)
    assert found.p_value == pytest.approx(welch, abs=4 * math.sqrt(welch / 2000) + 0.001)


def test_swapped_classes_are_the_same_audit_turned_round():
    some = cohort(50, age=draw(50) + 0.4 * (torch.arange(50) % 2))
    one, other = balance(some), balance(some, classes=(1, 0))
    assert other.classes == ("b", "a")
    a, b = row(one, "age"), row(other, "age")
    assert (a.difference, a.low, a.high) == pytest.approx((-b.difference, -b.high, -b.low))
    assert a.variance_ratio == pytest.approx(1 / b.variance_ratio)
    assert a.p_value == pytest.approx(b.p_value, abs=0.05)


def test_a_permutation_p_holds_its_level_where_spreads_and_sizes_differ():
    sets, n = 200, 40
    group = torch.arange(n) < 10
    p = [audit._p_value(draw(n, s) * (1 + 2 * group), group, 99, s) for s in range(sets)]
    assert sum(v <= 0.05 for v in p) <= stats.binom.interval(0.99, sets, 0.05)[1]
    same = [audit._p_value(draw(n, s, 1), group, 99, s) for s in range(sets)]
    low, high = stats.binom.interval(0.95, sets, 0.05)
    assert low <= sum(v <= 0.05 for v in same) <= high


def test_the_interval_covers():
    sets = normal((60,), seed=5, row=torch.arange(600), stream=0).double()
    found = [audit._hedges(s[:20], s[20:] + 0.6) for s in sets]
    inside = sum(abs(g - 0.6) <= 1.96 * e for g, e in found) / 600
    assert 0.93 <= inside <= 0.97


def test_a_variable_of_two_values_has_fishers_p():
    y = torch.arange(40) % 2
    sex = (uniform((40,), seed=3, row=torch.arange(1), stream=0)[0] < 0.3 + 0.3 * y).long()
    table = [[int(((sex == s) & (y == k)).sum()) for s in range(2)] for k in range(2)]
    found = row(balance(cohort(40, sex=sex)), "sex")
    assert found.p_value == pytest.approx(float(stats.fisher_exact(table).pvalue))


def test_constants_match_or_are_infinitely_far_apart():
    y = torch.arange(40) % 2
    result = balance(cohort(40, field=torch.full((40,), 3.0), protocol=1.5 + y))
    same, apart = row(result, "field"), row(result, "protocol")
    assert (same.difference, same.p_value, same.finding) == (0.0, 1.0, "matches")
    assert (apart.difference, apart.low, apart.finding) == (math.inf, math.inf, "differs")
    assert result.worst is apart
    assert (result.matching, result.finding) == (("protocol",), "differs")


def test_equivalence_takes_rows_and_not_just_a_large_p():
    few = balance(cohort(40, age=draw(40)), permutations=199)
    many = balance(cohort(1600, age=draw(1600)), permutations=119)
    assert row(few, "age").finding == "undecided"
    assert row(many, "age").finding == "matches"
    assert many.finding == "matches"
    assert few.finding == "undecided"


def test_findings_follow_their_definition_and_rows_fall():
    y = torch.arange(200) % 2
    result = balance(cohort(200, **{f"v{k}": draw(200, stream=k) + 0.15 * k * y for k in range(6)}))
    assert [abs(r.difference) for r in result.rows] == sorted((abs(r.difference) for r in result.rows), reverse=True)
    p = sorted(r.p_value for r in result.rows)
    assert min(r.p_holm for r in result.rows) == pytest.approx(len(p) * p[0])
    for r in result.rows:
        differs = r.p_holm <= 0.05 and abs(r.difference) > 0.1
        assert r.finding == ("differs" if differs else "matches" if r.p_equivalence <= 0.05 else "undecided")
    assert "v5" in result.matching


def test_variables_that_match_alone_can_differ_together():
    n = 200
    y = torch.arange(n) % 2
    shared = draw(n)
    result = balance(cohort(n, a=shared, b=shared + 0.1 * draw(n, stream=1) + 0.15 * y), permutations=499)
    assert {row(result, k).finding for k in "ab"} == {"undecided"}
    assert result.two_sample["covariate"].p_value <= 0.01
    assert result.two_sample["image"].p_value > 0.05
    assert result.finding == "differs"


def test_what_is_missing_in_one_class_is_a_difference():
    n = 80
    y = torch.arange(n) % 2
    score = torch.where((y == 0) & (draw(n) > -1), torch.nan, draw(n, stream=1))
    rare = torch.where(y == 0, torch.nan, draw(n, stream=2))
    result = balance(cohort(n, score=score, rare=rare))
    assert row(result, "missing score").finding == row(result, "missing rare").finding == "differs"
    assert row(result, "score").n == (int(((y == 0) & ~score.isnan()).sum()), 40)
    assert "rare" not in [r.name for r in result.rows]  # no controls have it: nothing to compare
    assert result.matching == ()


def test_other_classes_and_columns_left_out_do_not_count():
    some = cohort(60, age=draw(60), grade=draw(60, stream=1))
    third = replace(some, y=torch.arange(60) % 3, classes=["a", "b", "c"])
    found = balance(third, classes=(0, 2), leave_out=["grade"])
    assert row(found, "age").n == (20, 20)
    assert found.classes == ("a", "c")
    assert "grade" not in [r.name for r in found.rows]
    assert found == balance(third[third.y != 1], classes=(0, 2), leave_out=["grade"])


def test_a_planted_tag_and_shape_are_what_differs_most():
    for kind, seen in (("tag", "outside_mean"), ("shape", "shape_1")):
        people = load_brain(BrainConfig(n=160, size=48, confounders=(Confounder(kind=kind, q=0.9),)))
        severity = ("severity", "severity_true")
        result = balance(people, leave_out=severity, permutations=599)
        assert {r.name for r in result.rows[:2]} >= {f"planted_{kind}", seen}
        assert result.matching == (f"planted_{kind}",)
        assert row(result, seen).finding == "differs"


def test_three_dimensions():
    people = replace(load_brain(BrainConfig(n=12, size=24, dims=3)), y=torch.arange(12) % 2)
    result = balance(people, leave_out=("severity", "severity_true"), permutations=599)
    assert {"volume", "extent_2", "shear_12", "shape_3", "noise", "spacing_2"} <= {r.name for r in result.rows}
    assert all(not math.isnan(v) for r in result.rows for v in (r.difference, r.low, r.p_holm, r.variance_ratio))


@pytest.mark.realdata
def test_demented_and_young_controls_differ_in_age_first(realdata):
    folder = realdata / "oasis1"
    with (folder / "subjects.csv").open() as f:
        people = list(csv.DictReader(f))
    slices = np.load(folder / "slices_2mm_u8.npz")
    x = torch.as_tensor(slices["axial"][:, 3:4])
    first = torch.tensor([not p["ID"].endswith("_MR2") for p in people])
    everybody = Cohort(
        x=x.float() / 127.5 - 1,
        mask=x > 0,
        y=torch.tensor([float(p["CDR"]) > 0 for p in people]).long(),
        covariates={"age": torch.tensor([float(p["Age"]) for p in people])},
    )[first]
    result = balance(everybody)
    assert result.matching == ("age",)
    assert row(result, "age").low > 0.8
    old = balance(everybody[everybody.covariates["age"] >= 60])
    assert abs(row(old, "age").difference) < 0.5 * abs(row(result, "age").difference)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"cohort": Cohort(x=torch.zeros(4, 1, 4, 4))}, "cohort: expected one class label"),
        ({"classes": (0, 2)}, "classes: expected two classes of at least 5"),
        ({"classes": (1, 1)}, "classes: expected two classes"),
        ({"leave_out": ["weight"]}, "weight"),
        ({"alpha": 0.7}, "alpha"),
        ({"margin": 0.0}, "margin"),
        ({"permutations": 50}, "permutations: expected at least 99 for 5 variables"),
        ({"cohort": cohort(20, age=torch.full((20,), torch.inf))}, "covariate age: expected finite"),
    ],
)
def test_bad_input_is_named(bad, named):
    with pytest.raises(InputError, match=named):
        balance(**({"cohort": cohort(20, age=draw(20))} | bad))


CODES = {  # sites of the first class, sites of the second
    "the middle one": ([0, 2], [1]),
    "of five": ([0, 1, 3, 4], [2]),
    "the outer ones": ([1, 2], [0, 3]),
    "codes far apart": ([10, 30], [20]),
    "strengths of the field": ([1.5, 7], [4.25]),
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("sites", CODES.values(), ids=CODES)
def test_codes_that_tell_the_class_differ_though_their_means_do_not(sites, dtype, missing):
    n = 120
    first, second = (torch.tensor(s, dtype=dtype) for s in sites)
    k = torch.arange(n) // 2
    site = torch.where(torch.arange(n) % 2 == 0, first[k % len(first)], second[k % len(second)])
    site = site.masked_fill((torch.arange(n) % 10 == 9) & torch.tensor(missing), torch.nan)
    result = balance(cohort(n, site=site), permutations=199)
    assert abs(row(result, "site").difference) < 0.1
    assert result.finding == "differs"
    assert result.matching == ("site",)
    shares = [r for r in result.rows if r.name.startswith("site = ")]
    assert {r.name for r in shares} == {f"site = {float(v):g}" for v in sites[0] + sites[1]}
    assert all(r.finding == "differs" for r in shares)
    assert result.two_sample["covariate"].auc > 0.99


def test_whole_numbers_of_one_code_are_codes_too():
    y = torch.arange(90) % 2
    site = torch.where(y == 1, 1, 2 * (torch.arange(90) // 2 % 2))
    assert balance(cohort(90, site=site), permutations=199).finding == "differs"


def test_codes_that_tell_nothing_raise_no_alarm():
    found = [balance(cohort(90, site=(3 * uniform((90,), seed=s, row=torch.arange(1), stream=0)[0]).floor()),
                     permutations=199, seed=s) for s in range(20)]  # fmt: skip
    assert sum(bool(r.matching) for r in found) <= 3


def test_numbers_of_many_values_are_no_codes():
    result = balance(cohort(120, age=draw(120).mul(10).round(), grade=torch.arange(120) % 2 * 1.0), permutations=199)
    assert not [r.name for r in result.rows if " = " in r.name]


def _codes(levels: int, n: int, seed: int = 0) -> torch.Tensor:
    """Every level, in an order that knows nothing of the classes."""
    return (torch.arange(n) % levels)[draw(n, seed).argsort()]


MANY = {"15 sites": (15, 60), "24 scanners": (24, 60), "24 of 200": (24, 200), "10 of 50": (10, 50), "7 of 36": (7, 36)}


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize(("levels", "n"), MANY.values(), ids=MANY)
def test_a_code_of_many_levels_that_tells_the_class_differs(levels, n, declared):
    site = _codes(levels, n)
    tells = cohort(n, site=site.double(), age=draw(n, 1)).replace(y=site % 2)
    if declared:
        tells = tells.replace(categories={"site": [f"hospital {k}" for k in range(levels)]})
    result = balance(tells)
    assert row(result, "site (levels)").finding == "differs"
    assert (result.finding, result.matching) == ("differs", ("site",))


def test_a_subject_scanned_several_times_counts_once():
    site = _codes(15, 20).repeat_interleave(6)
    y = (torch.arange(20) % 2).repeat_interleave(6)
    person = torch.arange(20.0).repeat_interleave(6)
    result = balance(cohort(120, site=site.double(), subject=person).replace(y=y))
    assert not [r.name for r in result.rows if r.name in ("site (levels)", "subject (levels)")]


def test_many_levels_that_tell_nothing_raise_no_alarm():
    texts = {"site": [f"hospital {k}" for k in range(15)]}
    found = [balance(cohort(60, site=_codes(15, 60, s).double()).replace(categories=texts), seed=s) for s in range(12)]
    assert sum("site" in r.matching for r in found) <= 2
    assert all(row(r, "site (levels)").low <= row(r, "site (levels)").difference for r in found)
    plain = balance(cohort(60, site=_codes(15, 60).double()))
    assert "site (levels)" not in [r.name for r in plain.rows]

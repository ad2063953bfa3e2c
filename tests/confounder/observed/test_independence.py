"""Tests of conditional independence: the level under the null, power under the alternative, exact small cases."""

import numpy as np
import pytest
import torch
from scipy import stats

from cfx.confounder.observed import independence as observational
from cfx.confounder.observed.independence import (
    full_confounder_test,
    partial_confounder_test,
    permutation_p,
    shuffles,
    stratified_test,
)
from cfx.core.errors import InputError

SETS, N, M = 200, 80, 39
FEW = 12  # sweeps: orders are exchangeable however few, given the model
LOW, HIGH = stats.binom.interval(0.95, SETS, 0.05)


def rejections(make, test, sets=SETS):
    """Of so many simulated cohorts, how many have p <= 0.05."""
    p = []
    for seed in range(sets):
        yhat, y, c = (torch.as_tensor(a) for a in make(np.random.default_rng(seed)))
        p.append(test(yhat, y, c, permutations=M, seed=seed).p_value)
    return int((np.array(p) <= 0.05).sum())


def classes_and_numbers(g, reliance=0.0):
    """Three confounders that depend on the class, correlated, with a spread of its own in each class."""
    y = g.integers(0, 2, N)
    c = 2 * y[:, None] + g.normal(size=(N, 3)) @ g.normal(size=(3, 3)) * (1 + y[:, None])
    return 2 * y + (1 + y) * g.normal(size=N) + reliance * c[:, 0], y, c


def numbers(g):
    y = g.normal(size=N)
    c = y[:, None] * np.array([1.0, -0.5]) + g.normal(size=(N, 2))
    return np.stack([y + g.normal(size=N), -y + g.normal(size=N)], 1), y, c


def sites(g):
    """A site that depends on a numeric label."""
    y = g.normal(size=N)
    return y + g.normal(size=N), y, np.digitize(y + g.normal(size=N), [-0.7, 0.7])


def propensity(g, knows=0.0):
    """The class depends on two confounders; the prediction knows them, and maybe the class itself."""
    c = g.normal(size=(N, 2))
    y = (g.random(N) < 1 / (1 + np.exp(-c @ np.array([1.2, -0.8])))).astype(np.int64)
    return c[:, 0] + knows * y + g.normal(size=N), y, c


def partial(yhat, y, c, *, permutations, seed):
    return partial_confounder_test(yhat, y, c, permutations=permutations, sweeps=FEW, seed=seed)


def full(yhat, y, c, *, permutations, seed):
    return full_confounder_test(yhat, y, c, permutations=permutations, sweeps=FEW, seed=seed)


def within_classes(yhat, y, c, *, permutations, seed):
    return stratified_test(c, yhat, y, permutations=permutations, seed=seed)


def unrestricted(yhat, y, c, *, permutations, seed):
    return stratified_test(c, yhat, torch.zeros_like(y), permutations=permutations, seed=seed)


@pytest.mark.parametrize(
    ("make", "test"),
    [
        (classes_and_numbers, partial),
        (numbers, partial),
        (sites, partial),
        (propensity, full),
        (classes_and_numbers, within_classes),
    ],
)
def test_the_level_holds(make, test):
    assert LOW <= rejections(make, test) <= HIGH


def test_permuting_without_regard_to_the_label_does_not_hold_the_level():
    assert rejections(classes_and_numbers, unrestricted, 40) > 20


@pytest.mark.parametrize("test", [partial, within_classes])
def test_a_confounder_that_drives_the_prediction_is_found(test):
    assert rejections(lambda g: classes_and_numbers(g, reliance=1.0), test, 25) >= 23


def test_a_prediction_that_knows_more_than_the_confounder_is_found():
    assert rejections(lambda g: propensity(g, knows=2.0), full, 25) >= 23


def test_the_statistic_is_the_partial_r_squared():
    g = np.random.default_rng(0)
    n = 3000
    y, e = g.normal(size=n), g.normal(size=(n, 2))
    c = np.stack([y + e[:, 0], e[:, 1]], 1)
    yhat = y + c @ np.array([0.5, -0.3]) + g.normal(size=n)

    def left(*columns):
        design = np.column_stack([np.ones(n), *columns])
        return ((yhat - design @ np.linalg.lstsq(design, yhat, rcond=None)[0]) ** 2).sum()

    found = partial_confounder_test(*map(torch.as_tensor, (yhat, y, c)), permutations=9)
    assert found.statistic == pytest.approx(1 - left(y, c) / left(y), abs=2e-5)  # the ridge takes (p / n)^2 at most


def test_units_signs_and_names_of_categories_make_no_difference():
    yhat, y, c = (torch.as_tensor(a) for a in classes_and_numbers(np.random.default_rng(1), 0.3))
    a = partial_confounder_test(yhat, y, c, permutations=99)
    b = partial_confounder_test(7 - 3 * yhat, 5 * y - 2, 1e4 - 100 * c, permutations=99)
    assert (a.p_value, a.moved) == (b.p_value, b.moved)
    torch.testing.assert_close(a.null, b.null)


def test_a_confounder_that_the_label_determines_cannot_be_judged():
    y = torch.arange(60) % 3
    found = partial_confounder_test(y + 0.1 * torch.randn(60, generator=torch.Generator().manual_seed(0)), y, y)
    assert (found.p_value, found.moved) == (1.0, 0.0)
    assert found.statistic < 1e-9


def test_a_prediction_that_never_varies_knows_nothing():
    _, y, c = (torch.as_tensor(a) for a in classes_and_numbers(np.random.default_rng(2)))
    for test in (partial, full, within_classes):
        found = test(torch.full((N,), 0.3), y, c, permutations=19, seed=0)
        assert (found.statistic, found.p_value) == (0.0, 1.0)


def test_p_is_never_zero_and_the_result_says_what_was_done():
    y = torch.arange(200) % 2
    c = torch.as_tensor(np.random.default_rng(0).normal(size=200))
    found = partial_confounder_test(c, y, c, permutations=49)
    assert found.p_value == 1 / 50
    assert (found.n, found.permutations, len(found.null)) == (200, 49, 49)
    assert found.statistic > 0.99
    assert found.moved > 0.9
    assert found.description == "partial: yhat _||_ c | y, model: Gaussian of each class"


def test_one_seed_is_one_result():
    yhat, y, c = (torch.as_tensor(a) for a in numbers(np.random.default_rng(3)))
    a, b, other = (partial_confounder_test(yhat, y, c, permutations=29, seed=s).null for s in (4, 4, 5))
    assert torch.equal(a, b)
    assert not torch.equal(a, other)


def test_shuffles_stay_in_their_strata_and_are_uniform_there():
    strata = torch.tensor([5, 2, 5, 2, 5])
    orders = shuffles(strata, draws=12000, seed=1)
    assert (strata[orders] == strata).all()
    _, count = orders.unique(dim=0, return_counts=True)
    assert len(count) == 12  # 3! 2!
    assert count.double().std() < 2 * 1000**0.5


def test_permutation_p_counts_ties_to_within_rounding():
    null = torch.tensor([0.1, 0.2, 0.3, 0.3 + 1e-13, 0.4], dtype=torch.float64)
    assert permutation_p(0.3 + 2e-13, null) == 4 / 6
    assert permutation_p(0.5, null) == 1 / 6


Y, C, F = torch.arange(8) % 2, torch.arange(8.0), torch.arange(8.0) ** 2


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"yhat": F[:3], "y": Y[:3], "c": C[:3]}, "at least 4"),
        ({"c": torch.where(C > 6, torch.nan, C)}, "c: expected finite"),
        ({"yhat": torch.where(C > 6, torch.inf, C)}, "yhat: expected finite"),
        ({"c": torch.ones(8)}, "c: expected values that differ"),
        ({"c": torch.zeros(8, 2, 2)}, "c: expected"),
        ({"permutations": 0}, "permutations"),
        ({"sweeps": 0}, "sweeps"),
    ],
)
def test_bad_input_is_named(bad, named):
    with pytest.raises(InputError, match=named):
        partial_confounder_test(**({"yhat": F, "y": Y, "c": C} | bad))


def test_other_rows_are_named():
    with pytest.raises(InputError, match="yhat, y, c: expected the same rows"):
        observational._check(9, yhat=F[:7], y=Y, c=C)


def test_a_label_that_never_varies_is_refused_by_the_full_test():
    with pytest.raises(InputError, match="y: expected values that differ"):
        full_confounder_test(F, torch.ones_like(Y), C)

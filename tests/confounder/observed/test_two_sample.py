"""The classifier two-sample test: its parts against references, its level and its power."""

import pytest
import torch
from scipy import optimize, stats

from cfx.confounder.observed.two_sample import _logit, two_sample
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform


def draw(n, v, seed=0, stream=0):
    return normal((n, v), seed=seed, row=torch.arange(1), stream=stream)[0].double()


def test_the_logistic_fit_is_the_minimum_for_every_grouping():
    x = draw(80, 3)
    groups = torch.stack([(x[:, 0] + draw(80, 1, stream=s)[:, 0] > 0.3 * s).double() for s in range(1, 4)])
    found = _logit(x, groups, torch.eye(3, dtype=torch.float64))
    for y, beta in zip(groups, found, strict=True):
        offset = torch.log(y.mean() / (1 - y.mean()))

        def loss(b, y=y, offset=offset):
            logit = x @ torch.as_tensor(b) + offset
            return float(torch.nn.functional.softplus(logit).sum() - (y * logit).sum() + 0.5 * (b**2).sum())

        least = optimize.minimize(loss, [0.0] * 3, tol=1e-10).x
        torch.testing.assert_close(beta, torch.as_tensor(least), rtol=0, atol=1e-3)


def test_the_level_holds_with_few_rows_and_many_correlated_columns():
    sets = 200
    low, high = stats.binom.interval(0.95, sets, 0.05)
    p = []
    for seed in range(sets):
        x = draw(36, 8, seed) @ draw(8, 8, seed, stream=1)
        group = uniform((36,), seed=seed, row=torch.arange(1), stream=2)[0] < 0.35
        p.append(two_sample(x, group, permutations=39, seed=seed).p_value)
    assert low <= sum(v <= 0.05 for v in p) <= high


def test_groups_that_are_apart_are_told_apart():
    group = torch.arange(60) % 3 == 0
    found = two_sample(draw(60, 2) + 8 * group[:, None], group, permutations=99)
    assert (found.auc, found.balanced_accuracy, found.p_value) == (1.0, 1.0, 1 / 100)


def test_columns_that_never_vary_tell_nothing_and_missing_values_count_as_the_mean():
    group = torch.arange(40) % 2 == 0
    constant = torch.full((40, 2), 3.3).double()
    found = two_sample(constant, group, permutations=19)
    assert (found.auc, found.balanced_accuracy, found.p_value) == (0.5, 0.5, 1.0)
    x = draw(40, 1)
    holes = torch.cat([torch.where(x == x.max(), torch.nan, x), constant], 1)
    filled = torch.where(x == x.max(), holes[:, :1].nanmean(), x)
    assert two_sample(holes, group, permutations=19).auc == pytest.approx(
        two_sample(filled, group, permutations=19).auc
    )


def test_units_make_no_difference():
    group = torch.arange(50) % 2 == 0
    x = draw(50, 3) + 0.3 * group[:, None]
    a, b = (
        two_sample(x, group, permutations=39),
        two_sample(x * torch.tensor([1e3, -1e-4, 1.0]) + 7, group, permutations=39),
    )
    assert (a.auc, a.p_value) == (pytest.approx(b.auc), b.p_value)


@pytest.mark.parametrize(
    "bad",
    [
        {"group": torch.zeros(10, dtype=torch.bool)},
        {"group": torch.ones(10, dtype=torch.bool)},
        {"columns": torch.full((10, 2), torch.inf)},
        {"permutations": 0},
    ],
)
def test_bad_input_is_named(bad):
    with pytest.raises(InputError, match="columns"):
        two_sample(**({"columns": draw(10, 2), "group": torch.arange(10) < 5} | bad))

"""All levels of a category in one test: closed forms, its level, its interval."""

import math

import pytest
import torch
from scipy import stats

from cfx.confounder.observed.levels import levels_test
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform


def shuffled(levels: int, n: int, seed: int) -> torch.Tensor:
    order = normal((n,), seed=seed, row=torch.arange(1), stream=0)[0].argsort()
    return (torch.arange(n) % levels)[order]


def test_the_statistic_is_pearsons_and_d_of_a_perfect_code_is_two() -> None:
    group = torch.arange(60) % 2 == 1
    code = shuffled(4, 60, 1)
    table = [[int(((code == k) & (group == g)).sum()) for k in range(4)] for g in (False, True)]
    x = float(stats.chi2_contingency(table, correction=False).statistic)
    found = levels_test(code, group)
    assert found.difference == pytest.approx(math.sqrt(max(0, x - 3) * 60 / 900))
    assert found.p_value == pytest.approx(float(stats.chi2.sf(x, 3)), abs=0.05)
    assert found.p_equivalence == pytest.approx(float(stats.ncx2.cdf(x, 3, 0.2**2 * 15)))
    perfect = levels_test(torch.arange(6000) % 4, torch.arange(6000) % 2 == 1, permutations=99)
    assert perfect.difference == pytest.approx(2, abs=0.01)
    assert perfect.low < 2 < perfect.high
    assert perfect.share.tolist() == (torch.arange(6000) % 2).tolist()


@pytest.mark.parametrize(("levels", "n"), [(15, 60), (24, 60), (24, 200)])
def test_levels_by_chance_keep_the_level(levels: int, n: int) -> None:
    group, sets = torch.arange(n) % 3 == 0, 150
    found = [levels_test(shuffled(levels, n, s), group, permutations=199, seed=s) for s in range(sets)]
    low, high = stats.binom.interval(0.99, sets, 0.05)
    assert low <= sum(f.p_value <= 0.05 for f in found) <= high
    assert sum(f.low > 0 for f in found) <= stats.binom.interval(0.99, sets, 0.05)[1]


def test_the_interval_covers() -> None:
    shares = torch.tensor([[0.4, 0.3, 0.3], [0.2, 0.3, 0.5]], dtype=torch.float64)
    true = math.sqrt(float(((shares[1] - shares[0]).square() / shares.mean(0)).sum()))
    group, inside = torch.arange(200) >= 100, 0
    for seed in range(150):
        u = uniform((200,), seed=seed, row=torch.arange(1), stream=0)[0].double()
        code = (u[:, None] > shares.cumsum(1)[group.long()][:, :2]).sum(1)
        found = levels_test(code, group, permutations=1, seed=seed)
        inside += found.low <= true <= found.high
    assert 0.9 <= inside / 150 <= 0.99


@pytest.mark.parametrize(("code", "group"), [([0, 0, 0], [True, False, True]), ([0, 1, 2], [True] * 3)])
def test_bad_input_is_named(code: list[int], group: list[bool]) -> None:
    with pytest.raises(InputError, match="code, group: expected two levels and two groups"):
        levels_test(torch.tensor(code), torch.tensor(group))

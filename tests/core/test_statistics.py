import math

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.core.statistics import (
    bootstrap_interval,
    holm,
    paired_difference,
    paired_ratio,
    row_weights,
)


def test_bootstrap_interval_of_a_mean_is_near_the_normal_one() -> None:
    values = normal((400,), seed=2, row=torch.arange(1), stream=0)[0] * 3 + 5
    low, high = bootstrap_interval(values)
    half = 1.96 * float(values.std()) / 20
    assert low == pytest.approx(float(values.mean()) - half, abs=0.05)
    assert high == pytest.approx(float(values.mean()) + half, abs=0.05)


def test_bootstrap_interval_covers_at_its_level() -> None:
    sets = normal((60,), seed=3, row=torch.arange(300), stream=0)
    inside = [low <= 0 <= high for low, high in (bootstrap_interval(s, draws=400, seed=4) for s in sets)]
    assert 0.90 <= sum(inside) / len(inside) <= 0.98  # 95 % nominal, n = 60, 300 sets


def test_rows_stay_paired() -> None:
    pairs = torch.stack([torch.arange(1.0, 31), 2 * torch.arange(1.0, 31)], 1)
    low, high = bootstrap_interval(pairs, lambda p: p[..., 0].mean(1) / p[..., 1].mean(1))
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)


@pytest.mark.parametrize("bad", [{"values": torch.zeros(0)}, {"values": torch.zeros(3), "level": 1.5}])
def test_bad_input_is_named(bad: dict) -> None:
    with pytest.raises(InputError, match="expected"):
        bootstrap_interval(**bad)


def test_paired_difference_equals_the_bootstrap_of_the_differences() -> None:
    a, b = (normal((50,), seed=6, row=torch.arange(1), stream=s)[0] for s in range(2))
    found = paired_difference(a, b)
    assert found.value == pytest.approx(float((a - b).mean()), abs=1e-6)
    assert (found.low, found.high) == bootstrap_interval(a.double() - b.double())
    back = paired_difference(b, a)
    assert (back.value, back.low, back.high) == pytest.approx((-found.value, -found.high, -found.low))


def test_paired_difference_covers_at_its_level_and_sees_through_what_rows_share() -> None:
    shared = 10 * normal((60,), seed=7, row=torch.arange(300), stream=0)
    a, b = (shared + normal((60,), seed=7, row=torch.arange(300), stream=s) for s in (1, 2))
    found = [paired_difference(u + 0.5, v, draws=400) for u, v in zip(a, b, strict=True)]
    inside = sum(e.low <= 0.5 <= e.high for e in found) / len(found)
    assert 0.90 <= inside <= 0.98  # 95 % nominal, n = 60, 300 sets
    assert max(e.high - e.low for e in found) < 1.2  # unpaired it would be 2 * 1.96 * 10 * sqrt(2 / 60) = 7


def test_paired_ratio_of_proportional_values_is_exact() -> None:
    b = torch.arange(1.0, 31)
    assert paired_ratio(0.25 * b, b) == pytest.approx((0.25, 0.25, 0.25))


def test_paired_ratio_is_of_the_means_and_covers() -> None:
    b = 1 + uniform((60,), seed=8, row=torch.arange(300), stream=0)
    a = 0.5 * b + 0.2 * normal((60,), seed=8, row=torch.arange(300), stream=1)
    found = [paired_ratio(u, v, draws=400) for u, v in zip(a, b, strict=True)]
    assert found[0].value == pytest.approx(float(a[0].mean() / b[0].mean()), abs=1e-6)
    assert 0.90 <= sum(e.low <= 0.5 <= e.high for e in found) / len(found) <= 0.98


def test_rows_without_a_value_on_both_sides_are_left_out() -> None:
    nan = torch.nan
    a, b = torch.tensor([1.0, nan, 3.0]), torch.tensor([0.5, nan, 1.5])
    assert paired_difference(a, b).value == pytest.approx(1)
    assert paired_ratio(a, b).value == pytest.approx(2)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (torch.tensor([1.0, math.nan]), torch.tensor([1.0, 2.0])),
        (torch.tensor([math.nan]), torch.tensor([math.nan])),
        (torch.zeros(3), torch.zeros(2)),
    ],
)
def test_values_that_are_no_pairs_are_refused(a: torch.Tensor, b: torch.Tensor) -> None:
    for compare in (paired_difference, paired_ratio):
        with pytest.raises(InputError, match="a, b: expected"):
            compare(a, b)


def test_a_ratio_to_nothing_is_refused() -> None:
    for b in (torch.zeros(3), torch.tensor([-1.0, 1.0, 1.0])):
        with pytest.raises(InputError, match="b: expected"):
            paired_ratio(torch.ones(3), b)


def test_row_weights_are_flat_dirichlet() -> None:
    w = row_weights(10, draws=4000, seed=3)
    torch.testing.assert_close(w.sum(1), torch.full((4000,), 10.0, dtype=torch.float64))
    assert (w > 0).all()
    torch.testing.assert_close(w.mean(0), torch.ones(10, dtype=torch.float64), atol=0.06, rtol=0)
    # variance of n times a Dirichlet(1, ..., 1) share: (n - 1) / (n + 1)
    torch.testing.assert_close(w.var(0), torch.full((10,), 9 / 11, dtype=torch.float64), atol=0.12, rtol=0)


def test_holm_of_a_worked_example_in_any_order() -> None:
    p = torch.tensor([0.01, 0.04, 0.03, 0.005], dtype=torch.float64)
    adjusted = torch.tensor([0.03, 0.06, 0.06, 0.02], dtype=torch.float64)
    torch.testing.assert_close(holm(p), adjusted)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(holm(p[order]), adjusted[order])


def test_holm_is_at_most_one_at_least_p_and_monotone() -> None:
    p = uniform((30,), seed=9, row=torch.arange(1), stream=0)[0]
    found = holm(p)
    assert (found >= p).all()
    assert (found <= 1).all()
    assert (found[p.argsort()].diff() >= 0).all()
    assert float(found.min()) == pytest.approx(min(1.0, 30 * float(p.min())))
    assert holm(p[:1]) == p[:1]
    assert len(holm(p[:0])) == 0


def test_holm_keeps_the_family_at_its_level() -> None:
    p = uniform((20,), seed=10, row=torch.arange(1000), stream=0)
    any_false = sum(bool((holm(row) <= 0.05).any()) for row in p)
    assert 32 <= any_false <= 68  # 1 - 0.9975^20 = 0.049 of 1000, 99 % binomial band


@pytest.mark.parametrize("bad", [[0.1, 1.2], [-0.1], [math.nan]])
def test_holm_refuses_what_is_no_probability(bad: list) -> None:
    with pytest.raises(InputError, match="p: expected"):
        holm(torch.tensor(bad))

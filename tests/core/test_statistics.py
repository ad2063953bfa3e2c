import math

import pytest
import torch

from cfx.core import statistics
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.core.statistics import (
    bootstrap_interval,
    holm,
    paired_difference,
    paired_ratio,
    percentile_interval,
    row_weights,
    wilson_interval,
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


def test_units_stay_paired() -> None:
    a = torch.arange(1.0, 31)
    low, high = percentile_interval(30, lambda rows: a[rows].mean(1) / (2 * a)[rows].mean(1))
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(0.5)


def test_large_samples_are_resampled_in_parts(monkeypatch) -> None:
    values = normal((50,), seed=2, row=torch.arange(1), stream=3)[0]
    whole = bootstrap_interval(values, draws=300)
    seen = []

    def mean(rows: torch.Tensor) -> torch.Tensor:
        seen.append(rows.shape)
        return values[rows].double().mean(1)

    statistics._resamples.cache_clear()
    monkeypatch.setattr(statistics, "_ENTRIES", 50 * 70)
    assert percentile_interval(50, mean, draws=300) == whole
    assert seen == [(70, 50)] * 4 + [(20, 50)]


def clustered(sets: int, subjects: int, scans: int, between: float, seed: int) -> torch.Tensor:
    """Sets of values with mean 0 and variance 1, a share `between` of which the scans of a subject have in common."""
    row = torch.arange(sets)
    shared = normal((subjects, 1), seed=seed, row=row, stream=0)
    own = normal((subjects, scans), seed=seed, row=row, stream=1)
    return (between**0.5 * shared + (1 - between) ** 0.5 * own).flatten(1)


def test_groups_cover_where_rows_of_a_subject_are_alike_and_rows_do_not() -> None:
    sets = clustered(200, 40, 4, 0.8, seed=11)
    groups = torch.arange(40).repeat_interleave(4)
    rows = [bootstrap_interval(s, draws=400) for s in sets]
    whole = [bootstrap_interval(s, groups=groups, draws=400) for s in sets]
    covered = [sum(low <= 0 <= high for low, high in found) / len(found) for found in (rows, whole)]
    assert covered[0] < 0.80  # normal theory: 1.96 / sqrt(1 + 3 * 0.8) standard errors, 71 %
    assert 0.89 <= covered[1] <= 0.98
    wider = sum(h - l for l, h in whole) / sum(h - l for l, h in rows)  # noqa: E741
    assert wider == pytest.approx((1 + 3 * 0.8) ** 0.5, rel=0.05)  # Kish's design effect


def test_groups_of_one_row_are_rows_bit_for_bit() -> None:
    a, b = (1 + uniform((50,), seed=6, row=torch.arange(1), stream=s)[0] for s in range(2))
    each = torch.arange(50) * 3 + 5
    assert bootstrap_interval(a, groups=each) == bootstrap_interval(a)
    assert paired_difference(a, b, groups=each) == paired_difference(a, b)
    assert paired_ratio(a, b, groups=each) == paired_ratio(a, b)


def test_every_row_twice_is_no_more_evidence() -> None:
    a, b = (1 + uniform((50,), seed=6, row=torch.arange(1), stream=s)[0] for s in range(2))
    groups = torch.arange(50).repeat_interleave(2)
    twice = [v.repeat_interleave(2) for v in (a, b)]
    assert bootstrap_interval(twice[0], groups=groups) == pytest.approx(bootstrap_interval(a))
    for compare in (paired_difference, paired_ratio):
        assert compare(*twice, groups=groups) == pytest.approx(compare(a, b))


def test_groups_of_unequal_size_weigh_by_their_rows() -> None:
    values = torch.tensor([1.0, 1.0, 1.0, 5.0])
    low, high = bootstrap_interval(values, groups=torch.tensor([2, 2, 2, 9]))
    assert (low, high) == (1, 5)  # a quarter of the draws each has one subject alone
    assert paired_difference(values, torch.zeros(4), groups=torch.tensor([2, 2, 2, 9])).value == 2


def test_rows_without_values_leave_their_groups_as_well() -> None:
    nan = torch.nan
    a, b = torch.tensor([1.0, nan, 3.0, 4.0]), torch.tensor([0.5, nan, 1.0, 1.5])
    keep, groups = torch.tensor([0, 2, 3]), torch.tensor([7, 7, 7, 1])
    for compare in (paired_difference, paired_ratio):
        assert compare(a, b, groups=groups) == compare(a[keep], b[keep], groups=groups[keep])
    for call in (lambda: bootstrap_interval(b[keep], groups=groups), lambda: paired_ratio(a, b, groups=groups[:3])):
        with pytest.raises(InputError, match="groups: expected shape"):
            call()


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


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (12, 12, 0.7575, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_interval_is_that_of_the_books(k: int, n: int, low: float, high: float) -> None:
    """The last is the example of Newcombe (1998), Statistics in Medicine 17, 857-872, method 3."""
    found = wilson_interval(k / n, n)
    assert found == pytest.approx((low, high), abs=1e-4)
    assert found[0] <= k / n <= found[1]


def test_wilson_interval_holds_the_shares_that_a_normal_test_would_not_reject() -> None:
    z, share, n = 1.6448536, 0.3, 40
    for end in wilson_interval(share, n, level=0.9):
        assert abs(share - end) == pytest.approx(z * math.sqrt(end * (1 - end) / n), rel=1e-5)


@pytest.mark.parametrize(
    ("share", "n", "level"), [(0.5, 0, 0.95), (1.1, 3, 0.95), (float("nan"), 3, 0.95), (0.5, 3, 1.0)]
)
def test_wilson_interval_refuses_what_is_no_share(share: float, n: int, level: float) -> None:
    with pytest.raises(InputError, match="expected a share in"):
        wilson_interval(share, n, level=level)

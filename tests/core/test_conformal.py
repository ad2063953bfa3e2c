"""Conformal quantiles and p-values: their exact laws, and the step-up procedure against scipy."""

import math

import pytest
import torch
from scipy import stats

from cfx.core.conformal import (
    benjamini_hochberg,
    chance_of_so_many,
    conformal_p_values,
    conformal_quantile,
    conformal_rank,
    coverage_band,
    discoveries,
)
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform


@pytest.mark.parametrize(
    ("n", "alpha", "k"), [(9, 0.1, 9), (99, 0.1, 90), (19, 0.05, 19), (9, 0.7, 3), (18, 0.05, 19), (0, 0.5, 1)]
)
def test_the_rank_is_the_smallest_that_suffices(n: int, alpha: float, k: int) -> None:
    assert conformal_rank(n, alpha) == k
    assert k >= (n + 1) * (1 - alpha) - 1e-9
    assert k - 1 < (n + 1) * (1 - alpha)


def test_the_quantile_is_a_score_or_infinite_where_they_are_too_few() -> None:
    scores = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0], [9.0, 9.0, 0.0, 0.0, 9.0]])
    assert conformal_quantile(scores, 0.5).tolist() == [3, 9]  # the third of five
    assert conformal_quantile(scores, 0.2).tolist() == [5, 9]
    assert conformal_quantile(scores, 0.1).tolist() == [math.inf, math.inf]
    assert float(conformal_quantile(torch.zeros(0), 0.1)) == math.inf


def test_coverage_of_one_calibration_set_is_beta_distributed() -> None:
    n, alpha, sets = 60, 0.15, 3000
    q = conformal_quantile(uniform((n,), seed=1, row=torch.arange(sets), stream=0).double(), alpha)
    k = conformal_rank(n, alpha)
    assert stats.kstest(q.numpy(), stats.beta(k, n + 1 - k).cdf).pvalue > 0.01  # of uniforms, coverage is q itself
    assert float(q.mean()) == pytest.approx(k / (n + 1), abs=3 * float(q.std()) / sets**0.5)
    assert 1 - alpha <= k / (n + 1) < 1 - alpha + 1 / (n + 1)


@pytest.mark.parametrize("digits", [None, 0])
def test_a_new_score_is_covered_as_often_as_promised_also_with_ties(digits: int | None) -> None:
    scores = normal((40,), seed=2, row=torch.arange(8000), stream=0)
    scores = scores if digits is None else scores.round(decimals=digits)
    inside = float((scores[:, 0] <= conformal_quantile(scores[:, 1:], 0.2)).double().mean())
    error = 3 * (0.2 * 0.8 / 8000) ** 0.5
    assert inside > 0.8 - error
    if digits is None:
        assert inside == pytest.approx(32 / 40, abs=error)  # exact: 39 scores, rank 32


def test_a_p_value_above_alpha_is_a_score_below_the_quantile() -> None:
    scores = normal((37,), seed=3, row=torch.arange(1), stream=0)[0].round(decimals=1)  # ties
    new = torch.linspace(-3, 3, 121).round(decimals=1)
    p = conformal_p_values(scores, new)
    by_hand = (1 + (scores[None] >= new[:, None]).sum(1)).double() / 38
    assert torch.equal(p, by_hand)
    for alpha in (0.03, 0.1, 0.25, 0.5):
        assert torch.equal(p > alpha, new <= conformal_quantile(scores, alpha))
    assert torch.equal(conformal_p_values(scores, new.view(11, 11)), p.view(11, 11))


def test_p_values_are_uniform_on_their_grid() -> None:
    scores = normal((20,), seed=4, row=torch.arange(6000), stream=0)
    p = torch.stack([conformal_p_values(row[1:], row[:1]) for row in scores]).flatten()
    count = (p * 20).round().long().bincount(minlength=21)[1:]
    assert len(count) == 20
    assert stats.chisquare(count.numpy()).pvalue > 0.01


@pytest.mark.parametrize("n", [1, 5, 40])
def test_step_up_is_that_of_scipy(n: int) -> None:
    p = uniform((n,), seed=5, row=torch.arange(1), stream=0)[0].double() ** 2
    p[: n // 3] = p[0]  # ties
    torch.testing.assert_close(benjamini_hochberg(p), torch.from_numpy(stats.false_discovery_control(p.numpy())))
    order = torch.arange(n).flip(0)
    assert torch.equal(benjamini_hochberg(p[order]), benjamini_hochberg(p)[order])
    k = int(((p.sort().values <= 0.1 * torch.arange(1, n + 1) / n) * torch.arange(1, n + 1)).max())  # as in the paper
    assert int(discoveries(p, 0.1).sum()) == k


def test_no_hypotheses_no_discoveries() -> None:
    assert len(benjamini_hochberg(torch.zeros(0))) == 0


def test_outliers_are_found_at_the_false_discovery_rate_with_shared_calibration() -> None:
    found = []
    for row in torch.arange(300):
        z = normal((260,), seed=6, row=row[None], stream=0)[0]
        new = z[200:] + torch.where(torch.arange(60) < 15, 4.0, 0.0)  # 15 outliers among 60
        says = discoveries(conformal_p_values(z[:200], new), 0.2)
        found.append((float(says[15:].sum() / says.sum().clamp_min(1)), float(says[:15].double().mean())))
    false, power = torch.tensor(found).mean(0).tolist()
    assert false == pytest.approx(0.2 * 45 / 60, abs=0.04)  # the share of nulls times the level
    assert power > 0.9


def test_bad_input_is_named() -> None:
    nan = torch.tensor([1.0, math.nan])
    for call in (lambda: conformal_quantile(nan, 0.1), lambda: conformal_p_values(nan, nan[:1])):
        with pytest.raises(InputError, match="scores: expected"):
            call()
    with pytest.raises(InputError, match="alpha"):
        conformal_quantile(torch.zeros(3), 1.0)
    for bad in ([0.1, 1.2], [math.nan]):
        with pytest.raises(InputError, match="p: expected"):
            benjamini_hochberg(torch.tensor(bad))


def test_the_chance_of_so_many_is_that_of_ranks_drawn_at_random():
    n, new, alpha = 40, 20, 0.1
    g = torch.Generator().manual_seed(0)
    scores = torch.rand(4000, n + new, generator=g)
    out = torch.stack([(conformal_p_values(s[:n], s[n:]) <= alpha).sum() for s in scores])
    for many in (0, 1, 3, 6):
        share = float((out >= many).double().mean())
        assert abs(share - chance_of_so_many(many, new, n, alpha)) < 4 * (0.25 / 4000) ** 0.5


def test_nothing_is_out_where_no_p_value_reaches_the_level():
    assert chance_of_so_many(0, 5, 8, 0.1) == 1
    assert chance_of_so_many(1, 5, 8, 0.1) == 0


def test_the_band_of_coverage_is_that_of_the_beta_binomial_law():
    low, high = coverage_band(99, 200, 0.1)
    law = stats.betabinom(200, 90, 10)
    assert (low, high) == (law.ppf(0.025) / 200, law.ppf(0.975) / 200)
    assert coverage_band(8, 50, 0.1) == (1, 1)
    with pytest.raises(InputError, match="new: expected"):
        coverage_band(10, 0, 0.1)


def test_the_band_of_several_thresholds_is_that_of_their_sum():
    n, new = [40, 25], [30, 60]
    low, high = coverage_band(n, new, 0.2)
    draws = sum(
        stats.betabinom(m, conformal_rank(k, 0.2), k + 1 - conformal_rank(k, 0.2)).rvs(20_000, random_state=i)
        for i, (k, m) in enumerate(zip(n, new, strict=True))
    )
    outside = ((draws / 90 < low) | (draws / 90 > high)).mean()
    assert 0.02 < outside < 0.055
    assert coverage_band([3, 99], [0, 200], 0.1) == coverage_band(99, 200, 0.1)

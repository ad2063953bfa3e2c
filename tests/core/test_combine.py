"""Several p-values as one: closed forms, monotone, and right under the null whatever the dependence."""

import math

import pytest
import torch
from scipy import stats

from cfx.core.combine import CEILING, cauchy, fisher
from cfx.core.errors import InputError
from cfx.core.random import normal


def p(*values):
    return torch.tensor(values, dtype=torch.float64)


def dependent(n, k, rho, seed=0, shift=0.0):
    """p-values `(k, n)` of k normal scores of correlation rho."""
    own, common = (normal((k,), seed=seed, row=torch.arange(n), stream=s).double() for s in (0, 1))
    z = math.sqrt(1 - rho) * own + math.sqrt(rho) * common[:, :1] + shift
    return torch.special.ndtr(-z).T.contiguous()


@pytest.mark.parametrize("k", [1, 2, 5])
def test_equal_p_values_say_what_one_of_them_says(k):
    one = torch.logspace(-250, math.log10(CEILING), 40, dtype=torch.float64)
    torch.testing.assert_close(cauchy(one.expand(k, -1)), one, rtol=1e-12, atol=0)


def test_the_formula_of_the_paper():
    values, w = torch.rand(4, 50, generator=torch.Generator().manual_seed(0)).double() * CEILING, p(1, 2, 3, 4)
    t = ((w / 10)[:, None] * ((0.5 - values) * math.pi).tan()).sum(0)
    torch.testing.assert_close(cauchy(values, w), torch.from_numpy(stats.cauchy.sf(t.numpy())), rtol=1e-9, atol=0)
    torch.testing.assert_close(cauchy(values, 7 * w), cauchy(values, w))


def test_tiny_p_values_add_up_and_none_is_lost():
    torch.testing.assert_close(cauchy(p(1e-200, 0.5)), p(2e-200)[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(cauchy(p(1e-200, 1.0)), p(2e-200)[0], rtol=1e-12, atol=0)
    assert 0 <= float(cauchy(p(0, 1))) < 1e-290


def test_one_that_is_certain_does_not_silence_the_others():
    assert float(cauchy(p(1, 1e-4))) < 1e-3
    assert float(cauchy(p(1, 1, 1e-4))) < 1e-3
    assert float(cauchy(p(1, 1))) == pytest.approx(CEILING)
    assert float(cauchy(p(0.999999, 0.3))) == float(cauchy(p(1.0, 0.3)))


def test_less_evidence_is_never_a_smaller_p_value():
    grid = torch.linspace(0, 1, 101).double()
    for other in (0.0, 1e-6, 0.3, 1.0):
        found = cauchy(torch.stack([grid, torch.full_like(grid, other)]))
        assert bool((found.diff() >= -1e-15).all())


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95, 1.0])
def test_the_tail_of_cauchy_is_right_under_dependence(rho):
    found = cauchy(dependent(100_000, 4, rho))
    for u in (0.001, 0.01, 0.05):
        share = float((found <= u).double().mean())
        assert share <= u * 1.15 + 4 * math.sqrt(u / 1e5)
        assert share >= u * 0.6


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.95])
def test_fisher_is_right_in_every_sample_whatever_the_dependence(rho):
    n, m, draws = 60, 20, 400
    every = dependent((n + m) * draws, 4, rho).view(4, draws, n + m)
    found = torch.stack([fisher(every[:, i, n:], every[:, i, :n]) for i in range(draws)])
    for u in (0.05, 0.1, 0.5):
        share = (found <= u).double().mean(1)  # of one sample each: rows that share their calibration are dependent
        exact = math.floor(u * (n + 1)) / (n + 1)
        assert abs(float(share.mean()) - exact) < 4 * float(share.std()) / math.sqrt(draws)


def test_uncalibrated_fisher_would_not_be():
    values = dependent(20_000, 4, 0.95)
    plain = torch.from_numpy(stats.chi2.sf((-2 * values.log().sum(0)).numpy(), 8))
    assert float((plain <= 0.01).double().mean()) > 0.05
    calibrated = fisher(values[:, 1000:], values[:, :1000])
    assert float((calibrated <= 0.01).double().mean()) < 0.02


def test_both_find_a_shift_and_independent_fisher_is_chi_square():
    null, shifted = dependent(50_000, 4, 0.0), dependent(500, 4, 0.0, seed=1, shift=1.5)
    expected = torch.from_numpy(stats.chi2.sf((-2 * shifted.log().sum(0)).numpy(), 8))
    torch.testing.assert_close(fisher(shifted, null), expected, rtol=0.05, atol=0.005)
    assert float((fisher(shifted, null) <= 0.05).double().mean()) > 0.8
    assert float((cauchy(shifted) <= 0.05).double().mean()) > 0.6


def test_many_axes_are_many_rows():
    values = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(cauchy(values)[2, 3], cauchy(values[:, 2, 3]))
    assert fisher(values, torch.rand(3, 7)).shape == (4, 5)


def test_what_is_no_p_value_is_refused():
    for values in (p(0.5, 1.5), p(-0.1), p(torch.nan), p()):
        with pytest.raises(InputError, match="p: expected p-values"):
            cauchy(values)
    with pytest.raises(InputError, match="weights: expected positive"):
        cauchy(p(0.1, 0.2), p(1, 0))
    for null in (torch.rand(3, 4), torch.rand(2, 0)):
        with pytest.raises(InputError, match="null: expected p-values of 2 tests"):
            fisher(p(0.1, 0.2), null)

"""Risk control: equal to conformal quantiles where it must be, its band, exact tails, weighted quantiles."""

import pytest
import torch
from scipy import stats

from cfx.core.conformal import conformal_quantile
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.core.risk import (
    allowed_risk,
    check_alpha,
    fewer_failures_p,
    risk_threshold,
    smaller_mean_p,
    weighted_thresholds,
)


def numbers(n, m=1, seed=0, row=0):
    return uniform((n, m), seed=seed, row=torch.tensor([row]), stream=0)[0].double()


@pytest.mark.parametrize(("n", "alpha"), [(9, 0.1), (99, 0.1), (20, 0.3), (8, 0.1), (1, 0.5), (50, 0.02)])
def test_one_score_a_row_gives_the_conformal_quantile(n, alpha):
    scores = numbers(n)[:, 0]
    assert risk_threshold(scores, torch.ones(n), n, alpha) == float(conformal_quantile(scores, alpha))


def test_ties_are_kept_together():
    scores = torch.tensor([1.0, 1.0, 1.0, 2.0])
    assert risk_threshold(scores, torch.ones(4), 4, 0.5) == 1.0  # of one loss that may be had, the 2 is it
    assert risk_threshold(torch.ones(4), torch.ones(4), 4, 0.5) == 1.0
    assert risk_threshold(torch.zeros(0), torch.zeros(0), 5, 0.5) == -torch.inf  # nothing to lose


def test_the_mean_loss_is_in_its_band():
    """n rows of m dependent scores; loss = share above the threshold; alpha - 2 / (n + 1) <= E <= alpha."""
    n, m, alpha, losses = 60, 20, 0.1, []
    for repeat in range(120):
        u = numbers(n + 40, m + 1, seed=3, row=repeat)
        scores = u[:, :1] + 0.3 * u[:, 1:]  # those of a row go together
        q = risk_threshold(scores[:n].flatten(), torch.full((n * m,), 1 / m), n, alpha)
        losses.append(float((scores[n:] > q).double().mean()))
    mean = torch.tensor(losses).mean()
    error = 3 * torch.tensor(losses).std() / len(losses) ** 0.5
    assert alpha - 2 / (n + 1) - error <= mean <= alpha + error


def test_tails_are_exact_and_bounds_hold():
    assert fewer_failures_p(0, 22, 0.1) == pytest.approx(0.9**22)
    assert fewer_failures_p(3, 10, 0.5) == pytest.approx(stats.binom.cdf(3, 10, 0.5))
    assert fewer_failures_p(0, 0, 0.5) == 1
    for mean, rows, alpha in [(0.0, 30, 0.1), (0.05, 200, 0.1), (0.2, 50, 0.4)]:
        exact = stats.binom.cdf(round(mean * rows), rows, alpha)  # the losses that are hardest: 0 or 1
        assert exact * (1 - 1e-9) <= smaller_mean_p(mean, rows, alpha) <= 1
    assert smaller_mean_p(0.1, 50, 0.1) == smaller_mean_p(0.0, 0, 0.1) == 1


def test_equal_weights_are_no_weights():
    scores = numbers(99)[:, 0]
    found = weighted_thresholds(scores, torch.full((99,), 2.5), torch.tensor([2.5, 2.5]), 0.1)
    assert found.tolist() == [float(conformal_quantile(scores, 0.1))] * 2


def test_a_heavy_new_row_excludes_nothing_and_heavy_scores_count_more():
    scores = torch.arange(10.0)
    w = torch.ones(10)
    assert weighted_thresholds(scores, w, torch.tensor([100.0, 1e-9]), 0.1).tolist() == [torch.inf, 8.0]
    w[0] = 1000.0
    assert float(weighted_thresholds(scores, w, torch.tensor(0.0), 0.1)) == 0


@pytest.mark.parametrize("bad", [0.0, 1.0, -0.1, float("nan")])
def test_no_level_is_refused(bad):
    with pytest.raises(InputError, match="alpha: expected a number in"):
        check_alpha(bad)
    with pytest.raises(InputError, match="alpha"):
        risk_threshold(torch.zeros(1), torch.ones(1), 1, bad)


def test_bad_weights_and_scores_are_refused():
    for weights, new in [(torch.tensor([-1.0]), torch.ones(1)), (torch.ones(1), torch.tensor([torch.nan]))]:
        with pytest.raises(InputError, match="expected density ratios"):
            weighted_thresholds(torch.zeros(1), weights, new, 0.1)
    with pytest.raises(InputError, match="nothing in common"):
        weighted_thresholds(torch.zeros(2), torch.zeros(2), torch.ones(1), 0.1)
    with pytest.raises(InputError, match="NaN"):
        risk_threshold(torch.tensor([torch.nan]), torch.ones(1), 1, 0.5)
    assert allowed_risk(0, 0.1) < 0

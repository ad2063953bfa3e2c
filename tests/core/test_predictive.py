"""Entropies of several members: bounds, known answers, and what a difference of entropies loses."""

import math

import pytest
import torch
from scipy import stats
from torch.distributions import Categorical, kl_divergence

from cfx.core.predictive import entropy, expected_entropy, mutual_information
from cfx.core.random import normal


def members(m: int, *shape: int, spread: float = 1.5) -> torch.Tensor:
    """Probabilities of m members, the classes last."""
    return (spread * normal(shape, seed=1, row=torch.arange(m), stream=0).double()).softmax(-1)


def test_entropy_is_that_of_scipy_also_at_nought() -> None:
    p = members(1, 20, 4)[0]
    p[0] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    p[1] = 0.25
    assert entropy(p).tolist() == pytest.approx(stats.entropy(p.numpy(), axis=1).tolist())
    assert entropy(p)[:2].tolist() == pytest.approx([0, math.log(4)])


def test_total_is_expected_plus_mutual() -> None:
    p = members(6, 5, 7, 3)
    torch.testing.assert_close(entropy(p.mean(0)), expected_entropy(p) + mutual_information(p))
    assert mutual_information(p).shape == (5, 7)


def test_mutual_information_is_the_mean_divergence_from_the_mean() -> None:
    p = members(6, 30, 4)
    apart = torch.stack([kl_divergence(Categorical(q), Categorical(p.mean(0))) for q in p]).mean(0)
    torch.testing.assert_close(mutual_information(p), apart)


def test_mutual_information_is_between_nought_and_the_fewer_of_members_and_classes() -> None:
    same = members(1, 20, 4).expand(5, 20, 4)
    assert float(mutual_information(same).abs().max()) < 1e-15
    sure = torch.eye(4, dtype=torch.float64)[:, None]  # four members, each sure of another class
    assert float(mutual_information(sure)) == pytest.approx(math.log(4))
    assert float(mutual_information(sure[:2])) == pytest.approx(math.log(2))
    assert float(expected_entropy(sure)) == 0
    wild = mutual_information(members(3, 500, 6, spread=8.0))
    assert float(wild.min()) >= 0
    assert float(wild.max()) <= math.log(3)


def test_members_that_all_but_agree_keep_their_digits_in_single_precision() -> None:
    mean, d = torch.tensor([0.2, 0.5, 0.3]), 1e-3 * torch.tensor([1.0, -2.0, 1.0])
    p = torch.stack([mean + d, mean - d])
    exact = float((d.double() ** 2 / mean.double()).sum() / 2)  # to third order in d
    assert float(mutual_information(p)) == pytest.approx(exact, rel=1e-3)
    rounded = float(entropy(p.mean(0)) - expected_entropy(p))
    assert abs(rounded / exact - 1) > abs(float(mutual_information(p)) / exact - 1)

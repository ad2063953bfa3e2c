"""Shares and verdicts of a result, counted over all rows."""

from dataclasses import replace

import pytest
import torch

from cfx.counterfactual.result import Verdict
from tests.counterfactual.metrics.hand_made import result_of

X = torch.zeros(5, 1, 4, 4)


def test_codes_have_a_meaning_and_a_word():
    assert [int(v) for v in Verdict] == [0, 1, 2, 3, 4]
    assert all(v.meaning.endswith(".") for v in Verdict)
    assert len({v.meaning for v in Verdict}) == 5
    assert Verdict(3) is Verdict.UNSTABLE
    result = replace(result_of(X, X), verdict=torch.tensor([4, 2, 0, 1, 3]))
    assert result.verdicts == ("refused", "budget", "flipped", "already", "unstable")


def test_valid_is_who_reaches_the_margin_to_within_rounding():
    result = replace(result_of(X, X), margin_after=torch.tensor([2.0, 1.0, 1 - 5e-6, 0.99, torch.nan]))
    assert result.validity == pytest.approx(3 / 5)


def test_flipped_is_who_the_classifier_gives_to_the_target_whatever_the_margin():
    probs = torch.tensor([[0.4, 0.6], [0.6, 0.4], [0.1, 0.9], [0.9, 0.1], [0.5, 0.5]])
    result = replace(result_of(X, X, [False] * 5), probs_after=probs)
    assert result.flipped.tolist() == [True, False, True, False, False]
    assert result.validity == 0
    assert replace(result, target=1 - result.target).flipped.tolist() == [False, True, False, True, True]


def test_certified_is_whose_next_smaller_change_fails():
    result = result_of(X, X)
    assert not result.certified.any()
    tried = replace(result, smaller=torch.tensor([0.9, 1.0, 1.1, torch.nan, -torch.inf]))
    assert tried.certified.tolist() == [True, False, False, False, True]


def test_the_oracle_has_its_own_verdict_and_may_be_absent():
    result = result_of(X, X)
    assert result.oracle_validity is None
    says = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1], [0.9, 0.1], [0.3, 0.7]])
    assert replace(result, oracle_probs_before=says, oracle_probs_after=says).oracle_validity == pytest.approx(2 / 5)

"""The share of accepted counterfactuals that the oracle confirms is as promised; none accepted is said."""

import pytest
import torch

from cfx.conformal import Acceptance, accept_counterfactuals
from cfx.conformal.acceptance import acceptance_threshold, edit_size, oracle_flips
from cfx.core.errors import InputError
from cfx.core.random import uniform
from tests.report.hand_made import make


def pairs(n, seed, slope=4.0, base=-1.0):
    """Scores in [0, 1), and whether the oracle flips, more often at higher ones."""
    u = uniform((2,), seed=seed, row=torch.arange(n), stream=0).double()
    return u[:, 0], u[:, 1] < torch.sigmoid(slope * u[:, 0] + base)


@pytest.mark.parametrize(("slope", "base"), [(8.0, -2.0), (0.0, 2.197), (6.0, -4.5)])
def test_the_promise_holds_as_often_as_said(slope, base):
    """The true rate above the threshold is at most alpha in 1 - delta of all calibrations, at the least."""
    broken, accepted = 0, 0
    fresh, flips = pairs(40_000, 999, slope, base)
    for seed in range(200):
        found = acceptance_threshold(*pairs(300, seed, slope, base), 0.1, 0.1)
        some = fresh > found.value
        accepted += found.share > 0
        broken += bool(some.any()) and float((~flips[some]).double().mean()) > 0.1
    assert broken <= 31  # P(Bin(200, 0.1) > 31) < 0.005
    assert (accepted > 150) == (slope == 8.0)


def test_thresholds_by_hand():
    flips = torch.ones(40, dtype=torch.bool)
    score = torch.arange(40.0)
    assert acceptance_threshold(score, flips, 0.1, 0.1).share == 1
    flips[:8] = False  # the lowest
    found = acceptance_threshold(score, flips, 0.1, 0.2)
    assert found.value >= 4
    assert found.failed <= 0.1
    tied = acceptance_threshold(torch.zeros(40), torch.ones(40, dtype=torch.bool))
    assert tied.share == 1


def test_nothing_is_accepted_where_nothing_can_be_promised_and_why_is_said():
    few = accept_counterfactuals(torch.arange(10.0), torch.arange(5.0), flips=torch.ones(10, dtype=torch.bool))
    assert not few.accepted.any()
    assert few.verdict.eq(int(Acceptance.NOTHING)).all()
    assert (few.share, few.threshold) == (0, torch.inf)
    assert "10 calibration pairs are too few, at least 22" in few.sentence
    wrong = accept_counterfactuals(torch.rand(200), torch.rand(5), flips=torch.arange(200) % 4 == 0)
    assert "0 of 5 counterfactuals are accepted" in wrong.sentence
    assert "75% of all" in wrong.why
    never = accept_counterfactuals(torch.full((60,), -torch.inf), torch.rand(2), flips=torch.ones(60).bool())
    assert "the classifier gives none" in never.why


def test_accepted_ones_say_what_is_promised():
    found = accept_counterfactuals(*(pairs(300, 1, 8.0, -1.0)[0], pairs(50, 2)[0]), flips=pairs(300, 1, 8.0, -1.0)[1])
    assert found.accepted.equal(found.score > found.threshold)
    assert set(found.verdict.tolist()) == {Acceptance.ACCEPTED, Acceptance.BELOW}
    assert "confirms at least 90% of such ones" in found.sentence
    assert 0 < found.share <= 1


def test_counterfactuals_are_judged_by_their_edits():
    cf, _ = make(30)
    after = torch.nn.functional.one_hot(cf.target, 2).float()
    cf = cf.replace(oracle_probs_before=1 - after, oracle_probs_after=after, probs_after=after, verdict=0 * cf.verdict)
    assert oracle_flips(cf).all()
    assert not oracle_flips(cf.replace(oracle_probs_before=after)).any()  # it was there before
    assert edit_size(cf).tolist() == pytest.approx((cf.x_cf - cf.x).flatten(1).norm(dim=1).tolist(), abs=1e-5)
    missed = cf.replace(probs_after=1 - after)
    names = [f"s{i}" for i in range(30)]
    found = accept_counterfactuals(cf, missed, ids=names, new_ids=[f"t{i}" for i in range(30)])
    assert found.verdict.eq(int(Acceptance.MISSED)).all()
    with pytest.raises(InputError, match="calibration: expected answers of an oracle"):
        oracle_flips(cf.replace(oracle_probs_before=None))
    with pytest.raises(InputError, match="new: expected counterfactuals of depth"):
        accept_counterfactuals(cf, cf.replace(depth="boundary"))
    with pytest.raises(InputError, match="calibration: expected other subjects"):
        accept_counterfactuals(cf, missed, ids=names, new_ids=names)
    with pytest.raises(InputError, match="one pair a subject"):
        accept_counterfactuals(cf, missed, ids=["s"] * 30, new_ids=names)


def test_bad_scores_are_refused():
    with pytest.raises(InputError, match="flips: expected whether the oracle flips"):
        accept_counterfactuals(torch.rand(5), torch.rand(5))
    with pytest.raises(InputError, match="score, flips"):
        acceptance_threshold(torch.tensor([torch.nan]), torch.tensor([True]))
    with pytest.raises(InputError, match="delta: expected a number"):
        acceptance_threshold(torch.rand(3), torch.ones(3).bool(), 0.1, 1.0)
    with pytest.raises(InputError, match="new: expected scores that are numbers"):
        accept_counterfactuals(torch.rand(60), torch.tensor([torch.nan]), flips=torch.ones(60).bool())

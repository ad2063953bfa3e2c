"""Scores by hand, equal where they must be, and the same in any batch."""

import pytest
import torch

from cfx.conformal.scores import CALIBRATION, NEW, ApsScore, LacScore, RapsScore
from cfx.core.errors import InputError
from cfx.core.random import uniform
from tests.conformal.samples import drawn

P = torch.tensor([[0.1, 0.6, 0.3]])
ROW = torch.arange(1)


def test_scores_by_hand():
    assert LacScore().of(P, ROW, NEW)[0].tolist() == pytest.approx([0.9, 0.4, 0.7])
    assert ApsScore(randomised=False).of(P, ROW, NEW)[0].tolist() == pytest.approx([1.0, 0.6, 0.9])
    raps = RapsScore(randomised=False, weight=0.2, free=1)
    assert raps.of(P, ROW, NEW)[0].tolist() == pytest.approx([1.4, 0.6, 1.1])
    u = float(uniform((), seed=5, row=ROW, stream=NEW)[0])
    assert ApsScore(seed=5).of(P, ROW, NEW)[0].tolist() == pytest.approx([0.9 + 0.1 * u, 0.6 * u, 0.6 + 0.3 * u])


def test_no_penalty_is_aps():
    p, _ = drawn(50)
    rows = torch.arange(50)
    assert RapsScore(weight=0.0).of(p, rows, NEW).equal(ApsScore().of(p, rows, NEW))


def test_a_row_has_its_own_draw_in_any_batch_and_another_one_when_it_calibrates(monkeypatch):
    p, _ = drawn(60)
    rows, score = torch.arange(60), ApsScore()
    whole = score.of(p, rows, NEW)
    assert torch.cat([score.of(p[i : i + 7], rows[i : i + 7], NEW) for i in range(0, 60, 7)]).equal(whole)
    assert not score.of(p, rows, CALIBRATION).equal(whole)
    monkeypatch.setattr("cfx.core.probabilities._CHUNK", 50)
    assert score.of(p, rows, NEW).equal(whole)


def test_voxels_have_a_draw_each():
    p = drawn(36)[0].T.reshape(1, 4, 6, 6)
    assert (
        ApsScore(randomised=False)
        .of(p, ROW, NEW)
        .flatten(2)
        .equal(ApsScore(randomised=False).of(p.flatten(2), ROW, NEW))
    )
    u = ApsScore().of(torch.full((1, 2, 8, 8), 0.5), ROW, NEW)[0, 0]
    assert len(u.unique()) > 60


def test_bad_settings_are_refused():
    with pytest.raises(InputError, match="alpha: expected a number in"):
        LacScore(1.0)
    with pytest.raises(InputError, match="weight, free"):
        RapsScore(weight=-1.0)

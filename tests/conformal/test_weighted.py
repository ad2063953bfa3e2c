"""Weights of one are no weights; under a known shift plain sets lose their level and weighted ones return to it."""

import pytest
import torch

from cfx.conformal import APS, LAC, Weighted, covariate_ratios, label_ratios
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from tests.conformal.samples import drawn


@pytest.mark.parametrize("score", [LAC(), APS()])
def test_equal_weights_give_the_plain_sets(score):
    p, y = drawn(200, seed=1)
    q = drawn(100, seed=2)[0]
    plain = score.fit(p, y).sets(q).sets
    assert Weighted(score).fit(p, y, torch.ones(200)).sets(q, torch.ones(100)).sets.equal(plain)
    assert Weighted(score, shift="label").fit(p, y, torch.ones(4)).sets(q).sets.equal(plain)


def kept(p, y, weight):
    rows = uniform((len(y),), seed=9, row=torch.zeros(1, dtype=torch.long), stream=0)[0] * weight.max() < weight
    return p[rows], y[rows], weight[rows]


def test_coverage_returns_under_a_shift_of_covariates():
    p, y = drawn(4000, seed=1, sharpness=4.0)
    q, truth = drawn(8000, seed=2, sharpness=4.0)

    def hard(v):
        return torch.exp(-4 * v.max(1).values)  # the unsure come more often

    q, truth, w = kept(q, truth, hard(q))
    plain = LAC().fit(p, y).sets(q).covered(truth).double().mean()
    found = Weighted().fit(p, y, hard(p)).sets(q, w)
    assert float(plain) < 0.87
    assert float(found.covered(truth).double().mean()) == pytest.approx(0.9, abs=0.02)
    assert found.calibrated < 4000
    assert "unchanged" in found.assumption


def test_coverage_returns_under_a_shift_of_labels_with_estimated_ratios():
    def said(p):
        return (p.log() + torch.tensor([2.0, 0.0, 0.0, -2.0])).softmax(1)  # class 3 is mostly missed

    ratio = torch.tensor([0.2, 0.4, 1.0, 3.0])
    p, y = drawn(4000, seed=1, sharpness=4.0)
    q, truth = drawn(9000, seed=2, sharpness=4.0)
    q, truth, _ = kept(q, truth, ratio[truth])
    estimated = label_ratios(said(p), y, said(q))
    true = truth.bincount(minlength=4) / len(truth) / (y.bincount() / len(y))
    assert estimated.tolist() == pytest.approx(true.tolist(), rel=0.25, abs=0.05)
    plain = LAC().fit(said(p), y).sets(said(q)).covered(truth).double().mean()
    found = Weighted(LAC(), shift="label").fit(said(p), y, estimated).sets(said(q))
    assert float(plain) < 0.85
    assert float(found.covered(truth).double().mean()) == pytest.approx(0.9, abs=0.03)


def test_ratios_of_two_normals_are_found():
    z = normal((2,), seed=4, row=torch.arange(4000), stream=0).double()
    old, new = z[:2000], z[2000:] + torch.tensor([1.0, 0.0])
    at = torch.tensor([[0.0, 0.0], [1.0, 3.0]]).double()
    assert covariate_ratios(old, new, at).log().tolist() == pytest.approx([-0.5, 0.5], abs=0.2)


def test_a_class_without_rows_and_bad_weights_are_refused():
    p, y = drawn(60, seed=1)
    with pytest.raises(InputError, match=r"y: expected rows of every class, got none of \[3\]"):
        label_ratios(p[y < 3], y[y < 3], p)
    with pytest.raises(InputError, match="shift: expected covariate or label"):
        Weighted(shift="both")
    with pytest.raises(InputError, match="weight: expected 60 density ratios"):
        Weighted().fit(p, y, torch.ones(4))
    with pytest.raises(InputError, match="weight: expected one a row"):
        Weighted().fit(p, y, torch.ones(60)).sets(p)
    with pytest.raises(InputError, match="expected density ratios"):
        Weighted().fit(p, y, -torch.ones(60)).sets(p, torch.ones(60))
    with pytest.raises(InputError, match="ids: expected other subjects"):
        Weighted(shift="label").fit(p, y, torch.ones(4), ids=[f"a{i}" for i in range(60)]).sets(p[:1], ids=["a3"])
    with pytest.raises(InputError, match="old, new, at"):
        covariate_ratios(p, p[:0], p)

"""Sets keep their level, are those of MAPIE and crepes, and refuse or stay conservative where they must."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from cfx.calibration import Temperature
from cfx.conformal import APS, LAC, RAPS, Mondrian
from cfx.core.conformal import conformal_quantile, coverage_band
from cfx.core.errors import InputError
from tests.conformal.samples import drawn

METHODS = [LAC(), APS(), APS(randomised=False), RAPS(), RAPS(randomised=False), Mondrian(), Mondrian(APS())]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{type(m).__name__}-{getattr(m, 'randomised', '')}")
def test_coverage_is_in_its_exact_band(method):
    q, truth = drawn(3000, seed=2)
    found = method.fit(*drawn(400, seed=1)).sets(q)
    of = found.coverage(truth)
    new = truth.bincount().tolist() if found.by_class else 3000
    low, high = coverage_band(found.by_class or 400, new, 0.1, level=0.999)
    assert low <= of["coverage"] <= high


def test_coverage_of_one_calibration_set_has_the_beta_law():
    p, y = drawn(40 * 300, seed=3)
    q, truth = drawn(4000, seed=4)
    shares = [
        float(LAC(0.2).fit(a, b).sets(q).covered(truth).double().mean())
        for a, b in zip(p.split(300), y.split(300), strict=True)
    ]
    assert stats.kstest(shares, stats.beta(241, 60).cdf).pvalue > 0.01


def test_the_threshold_is_the_order_statistic_and_at_most_counts():
    p, y = drawn(99, seed=5)
    scores = 1 - p.gather(1, y[:, None])[:, 0]
    fitted = LAC().fit(p, y)
    assert fitted.threshold[0].tolist() == [float(conformal_quantile(scores, 0.1))] * 4
    row = int((scores == fitted.threshold[0, 0]).nonzero()[0])
    assert fitted.sets(p[row : row + 1]).sets[0, y[row]]


def test_sets_are_those_of_mapie():
    mapie = pytest.importorskip("mapie.classification", reason="no mapie here")

    class Said:
        classes_ = np.arange(4)

        def fit(self, x, y):
            return self

        def predict_proba(self, x):
            return x

        def predict(self, x):
            return x.argmax(1)

        def __sklearn_is_fitted__(self):
            return True

    p, y = drawn(300, seed=1)
    q = drawn(200, seed=2)[0]
    theirs = mapie.SplitConformalClassifier(Said(), confidence_level=0.9, conformity_score="lac", prefit=True)
    theirs.conformalize(p.numpy(), y.numpy())
    ours = LAC().fit(p, y).sets(q).sets
    assert np.array_equal(theirs.predict_set(q.numpy())[1][:, :, 0], ours.numpy())


def test_p_values_by_class_are_those_of_crepes():
    crepes = pytest.importorskip("crepes", reason="no crepes here")
    p, y = drawn(300, seed=1)
    q = drawn(50, seed=2)[0]
    ours = Mondrian().fit(p, y).p_values(q)
    for k in range(4):
        own = (1 - p[y == k, k]).numpy()
        theirs = crepes.ConformalClassifier().fit(own).predict_p((1 - q[:, [k]]).numpy(), smoothing=False)
        assert np.allclose(ours[:, k].numpy(), np.ravel(theirs), atol=1e-12)


def test_p_values_and_sets_say_the_same():
    p, y = drawn(150, seed=1)
    q, truth = drawn(400, seed=2)
    for method in (LAC(), APS(), Mondrian()):
        fitted = method.fit(p, y)
        found = fitted.p_values(q)
        assert (found > 0.1 + 1e-9).equal(fitted.sets(q).sets)
        own = found.gather(1, truth[:, None])[:, 0]
        assert float((own <= 0.1).double().mean()) < 0.16


def test_every_class_is_covered_where_thresholds_are_by_class():
    p, y = drawn(3000, seed=1)
    p = (p.log() + torch.tensor([2.0, 0.0, 0.0, -2.0])).softmax(1)  # a classifier that neglects class 3
    q, truth = drawn(4000, seed=2)
    q = (q.log() + torch.tensor([2.0, 0.0, 0.0, -2.0])).softmax(1)
    plain, own = (m.fit(p, y).sets(q).covered(truth)[truth == 3].double().mean() for m in (LAC(), Mondrian()))
    assert float(plain) < 0.85
    assert float(own) == pytest.approx(0.9, abs=0.03)


def test_every_group_is_covered_and_unknown_groups_exclude_nothing():
    p, y = drawn(2000, seed=1)
    group = torch.arange(2000) % 2
    p = torch.where(group[:, None] == 1, (3 * p.log()).softmax(1), p)
    fitted = Mondrian(by="group").fit(p, y, group=group)
    found = fitted.sets(p, group=group).covered(y).double()
    assert [round(float(found[group == g].mean()), 1) for g in (0, 1)] == [0.9, 0.9]
    assert (fitted.sets(p[:3], group=torch.tensor([0, 1, 7])).size[2]) == 4
    with pytest.raises(InputError, match="group: expected the group of each row"):
        fitted.sets(p)


def test_a_class_with_few_rows_or_none_stays_in_every_set():
    p, y = drawn(300, seed=1)
    some = (y != 2) | (torch.arange(300) < 20)
    never = y != 3
    guarded = Mondrian(least=40).fit(p[some], y[some])
    assert guarded.sets(p).sets[:, 2].all()
    assert not guarded.sets(p).sets[:, 1].all()
    assert Mondrian().fit(p[never], y[never]).sets(p).sets[:, 3].all()
    assert LAC().fit(p[:8], y[:8]).sets(p).size.eq(4).all()  # 8 rows are too few for a level of 0.9
    assert LAC().fit(p[:9], y[:9]).threshold.isfinite().all()


def test_voxels_are_calibrated_by_images():
    """Voxels of an image are alike: the share of a class's voxels that is missed is what is kept, over images."""
    n, side = 100, 6
    p, y = drawn(2 * n * side * side, 3, seed=1)
    p = p.view(2 * n, side, side, 3).movedim(-1, 1)
    y = y.view(2 * n, side, side)
    fitted = Mondrian().fit(p[:n], y[:n])
    inside = fitted.voxel_sets(p[n:]).gather(1, y[n:, None])[:, 0].double()
    for k in range(3):
        own = y[n:] == k
        shares = (inside * own).flatten(1).sum(1) / own.flatten(1).sum(1)
        assert 0.88 <= float(shares[~shares.isnan()].mean()) <= 0.92 + 2 / (n + 1)
    assert "images" in fitted.assumption
    with pytest.raises(InputError, match="of voxels ask voxel_sets"):
        fitted.sets(p)
    rare = torch.zeros_like(y[:n])
    rare[:5] = 1  # a class in five images, whatever their voxels
    assert Mondrian().fit(p[:n], rare).threshold[0].isinf().tolist() == [False, True, True]


def test_batches_change_nothing():
    fitted = APS().fit(*drawn(200, seed=1))
    q, rows = drawn(90, seed=2)[0], torch.arange(90)
    whole = fitted.sets(q).sets
    parts = [fitted.sets(a, row=b).sets for a, b in zip(q.split(20), rows.split(20), strict=True)]
    assert torch.cat(parts).equal(whole)


def test_cohorts_must_be_apart():
    p, y = drawn(100, seed=1)
    names = [f"s{i}" for i in range(100)]
    fitted = LAC().fit(p, y, ids=names)
    with pytest.raises(InputError, match="ids: expected other subjects"):
        fitted.sets(p[:1], ids=["s4"])
    temperature = Temperature.fit(p.log() * 2, y, ids=names)
    with pytest.raises(InputError, match="temperature, threshold and reference need a cohort each"):
        LAC().fit(p[:5], y[:5], ids=names[:5], apart_from=[temperature])
    LAC().fit(p, y, ids=[f"t{i}" for i in range(100)], apart_from=[temperature, fitted])


def test_bad_input_is_named():
    p, y = drawn(30, seed=1)
    with pytest.raises(InputError, match="expected probabilities in"):
        LAC().fit(p.log(), y)
    with pytest.raises(InputError, match="y: expected classes"):
        LAC().fit(p, y + 1)
    with pytest.raises(InputError, match="alpha: expected a number in"):
        LAC(0.0)
    with pytest.raises(InputError, match="p: expected 4 classes"):
        LAC().fit(p, y).sets(p[:, :3] / p[:, :3].sum(1, keepdim=True))
    with pytest.raises(InputError, match="by, least"):
        Mondrian(by="site")
    with pytest.raises(InputError, match="group: expected groups with by='group'"):
        Mondrian().fit(p, y, group=y)
    assert math.isinf(float(LAC(0.01).fit(p, y).threshold[0, 0]))

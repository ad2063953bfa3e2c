"""The best temperature is found, of rows and of voxels, and nothing else is touched."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch.nn.functional import cross_entropy

from cfx.calibration import Temperature, ece, nll
from cfx.core.errors import CfxWarning, InputError
from tests.conformal.samples import drawn


@pytest.fixture(scope="module")
def logits():
    p, y = drawn(2000, seed=6)
    return 2.5 * p.log() + 3, y  # too sure by a factor of 2.5


def test_the_temperature_is_the_minimum_and_undoes_what_was_done(logits):
    z, y = logits
    fitted = Temperature.fit(z, y)
    best = minimize_scalar(
        lambda t: float(cross_entropy(z / t, y)), bounds=(0.1, 20), method="bounded", options={"xatol": 1e-9}
    )
    assert fitted.t == pytest.approx(best.x, rel=1e-5)
    assert fitted.t == pytest.approx(2.5, rel=0.1)
    p = fitted.probabilities(z)
    assert p.argmax(1).equal(z.argmax(1))
    assert nll(p, y) < nll(z.softmax(1), y)
    assert ece(p, y) < 0.5 * ece(z.softmax(1), y)


def test_the_temperature_is_that_of_scikit_learn(logits):
    calibration = pytest.importorskip("sklearn.calibration")
    if not hasattr(calibration, "_TemperatureScaling"):
        pytest.skip("this scikit-learn has no temperature scaling")
    z, y = logits
    theirs = calibration._TemperatureScaling().fit(z.numpy(), y.numpy())
    assert float(np.ravel(1 / theirs.beta_)[0]) == pytest.approx(Temperature.fit(z, y).t, rel=4e-3)


def test_voxels_share_one_temperature_and_chunks_change_nothing(logits, monkeypatch):
    z, y = logits
    one = Temperature.fit(z, y)
    monkeypatch.setattr("cfx.core.probabilities._CHUNK", 1000)
    many = Temperature.fit(z.view(4, 25, 20, 4).movedim(-1, 1), y.view(4, 25, 20))
    assert many.t == pytest.approx(one.t, rel=1e-8)
    assert many.probabilities(z.view(4, 25, 20, 4).movedim(-1, 1)).shape == (4, 4, 25, 20)


def test_a_slope_and_an_offset_a_class_undo_what_was_done_to_each(logits):
    p, y = drawn(6000, seed=8)
    slope, offset = torch.tensor([2.0, 1.0, 3.0, 1.5]), torch.tensor([1.0, -1.0, 0.5, 0.0])
    z = p.log() * slope + offset
    fitted = Temperature.fit(z, y, kind="vector")
    assert fitted.scale.tolist() == pytest.approx((1 / slope).tolist(), rel=0.15)
    assert nll(fitted.probabilities(z), y) < nll(Temperature.fit(z, y).probabilities(z), y)
    assert nll(fitted.probabilities(z), y) == pytest.approx(nll(p, y), abs=0.005)
    with pytest.raises(InputError, match="t: expected one temperature"):
        _ = fitted.t
    with pytest.raises(InputError, match="expected logits of 4 classes"):
        fitted.logits(torch.randn(2, 3))
    with pytest.raises(InputError, match=r"got none of \[3\]"):
        Temperature.fit(z[y < 3], y[y < 3], kind="vector")


def test_what_says_nothing_of_the_temperature_is_answered_conservatively():
    z = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    with pytest.warns(CfxWarning, match="every row is right"):
        assert Temperature.fit(z, torch.tensor([0, 1])).t == 1
    with pytest.warns(CfxWarning, match="no more of the classes than chance"):
        assert Temperature.fit(z, torch.tensor([1, 0])).t == pytest.approx(100)


def test_subjects_are_remembered_and_must_be_others(logits):
    z, y = logits
    names = [f"s{i}" for i in range(len(y))]
    fitted = Temperature.fit(z, y, ids=names)
    assert fitted.ids == tuple(names)
    with pytest.raises(InputError, match=r"ids: expected other subjects"):
        Temperature.fit(z[:1], y[:1], ids=["s7"], apart_from=[fitted])


def test_bad_input_is_named(logits):
    z, y = logits
    with pytest.raises(InputError, match="held_out: expected logits, got what looks like probabilities"):
        Temperature.fit(z.softmax(1), y)
    with pytest.raises(InputError, match="kind: expected scalar or vector"):
        Temperature.fit(z, y, kind="matrix")
    with pytest.raises(InputError, match="y: expected classes"):
        Temperature.fit(z, y + 1)

"""Figures against scikit-learn, MONAI, torchmetrics and MAPIE, and what must not change them."""

import math

import pytest
import torch
from sklearn.metrics import brier_score_loss, log_loss

from cfx.calibration import (
    accuracy,
    brier,
    classwise_ece,
    debiased_error,
    ece,
    error_to_true_p,
    figures,
    nll,
    reliability,
)
from cfx.core.errors import InputError
from tests.conformal.samples import drawn


@pytest.fixture(scope="module")
def rows():
    """Probabilities that say too much."""
    p, y = drawn(1500, seed=4)
    return (1.7 * p.log()).softmax(1), y


def test_proper_scores_are_those_of_scikit_learn(rows):
    p, y = rows
    assert nll(p, y) == pytest.approx(log_loss(y, p.numpy()), rel=1e-9)
    assert p.shape[1] * brier(p, y) == pytest.approx(brier_score_loss(y.numpy(), p.numpy()), rel=1e-9)
    assert accuracy(p, y) == pytest.approx(float((p.argmax(1) == y).double().mean()))
    assert nll(torch.tensor([[1.0, 0.0]]), torch.tensor([1])) == math.inf


@pytest.mark.parametrize("norm", ["l1", "max"])
def test_errors_are_those_of_torchmetrics(rows, norm):
    try:
        from torchmetrics.classification import MulticlassCalibrationError
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"no torchmetrics here: {error}")
    p, y = rows
    theirs = float(MulticlassCalibrationError(4, n_bins=15, norm=norm)(p.float(), y))
    assert (ece(p, y) if norm == "l1" else reliability(p, y).mce) == pytest.approx(theirs, abs=2e-7)


def test_errors_are_those_of_mapie(rows):
    metrics = pytest.importorskip("mapie.metrics.calibration", reason="no mapie here")
    p, y = rows
    theirs = metrics.top_label_ece(y.numpy(), p.max(1).values.numpy(), p.argmax(1).numpy(), num_bins=16)
    assert isinstance(float(theirs), float)
    right = (p.argmax(1) == y).numpy()
    both = metrics.expected_calibration_error(right, p.max(1).values.numpy(), num_bins=16)
    assert ece(p, y) == pytest.approx(float(both), abs=1e-6)


def test_the_order_of_rows_of_classes_and_of_axes_changes_nothing(rows):
    p, y = rows
    order, names = torch.randperm(len(y)), torch.randperm(4)
    where = names.argsort()
    for figure in (ece, classwise_ece, nll, brier, debiased_error):
        whole = figure(p, y)
        assert figure(p[order], y[order]) == pytest.approx(whole, abs=1e-9)
        assert figure(p[:, names], where[y]) == pytest.approx(whole, abs=1e-9)
        voxels = p.view(3, 10, 50, 4).movedim(-1, 1), y.view(3, 10, 50)
        assert figure(*voxels) == pytest.approx(whole, abs=1e-9)


def test_weights_bins_and_figures(rows):
    p, y = rows
    found = figures(p, y)
    assert found["ece"] == ece(p, y) == reliability(p, y).ece
    assert found["ece_bins"] == ece(p, y, weight="bins") == reliability(p, y).ace != found["ece"]
    each = [reliability(p, y, label=k).ece for k in range(4)]
    assert found["classwise_ece"] == pytest.approx(sum(each) / 4)
    assert reliability(p, y, equal="count").count.float().std() < 1
    assert found["ece_debiased"] > 0


def test_calibrated_rows_have_a_debiased_error_of_either_sign():
    signs = [debiased_error(*drawn(300, seed=s)) > 0 for s in range(30)]
    assert 3 <= sum(signs) <= 27
    assert debiased_error(*drawn(20_000, seed=1)) < 0.02


def test_the_distance_to_the_truth_is_that_in_total_variation():
    p, true = torch.tensor([[0.2, 0.8], [0.5, 0.5]]), torch.tensor([0.7, 1.0])
    assert error_to_true_p(p, true) == pytest.approx(0.3)
    assert error_to_true_p(p, torch.stack([1 - true, true], 1)) == pytest.approx(0.3)
    three = torch.tensor([[0.2, 0.3, 0.5]])
    assert error_to_true_p(three, torch.tensor([[0.5, 0.3, 0.2]])) == pytest.approx(0.3)
    with pytest.raises(InputError, match="true_p: expected the shape of p"):
        error_to_true_p(three, p)


def test_bad_input_is_named(rows):
    p, y = rows
    for call in (ece, nll, brier, accuracy):
        with pytest.raises(InputError, match="p: expected probabilities in"):
            call(p.log(), y)
        with pytest.raises(InputError, match="y: expected classes"):
            call(p, y + 1)
    with pytest.raises(InputError, match="label: expected a class"):
        reliability(p, y, label=4)
    with pytest.raises(InputError, match="weight: expected rows or bins"):
        ece(p, y, weight="voxels")

"""Images by themselves: as MONAI's metric, and against the pooled figures."""

import pytest
import torch
from monai.metrics.calibration import CalibrationErrorMetric

from cfx.calibration import brier, ece, image_calibration, nll
from cfx.core.errors import InputError
from tests.conformal.samples import drawn


@pytest.fixture(scope="module")
def voxels():
    p, y = drawn(5 * 6 * 7 * 4, 3)
    return p.float().view(5, 6, 7, 4, 3).movedim(-1, 1).contiguous(), y.view(5, 6, 7, 4)


@pytest.mark.parametrize(("reduction", "name"), [("expected", "classwise"), ("average", "classwise_bins")])
def test_every_image_has_the_errors_of_monai(voxels, reduction, name):
    p, y = voxels
    metric = CalibrationErrorMetric(num_bins=15, calibration_reduction=reduction, metric_reduction="none")
    metric(p, torch.nn.functional.one_hot(y, 3).movedim(-1, 1))
    found = getattr(image_calibration(p, y), name)
    torch.testing.assert_close(found.float(), metric.aggregate().float(), atol=1e-6, rtol=0)


def test_every_image_has_its_own_figures(voxels, monkeypatch):
    p, y = voxels
    monkeypatch.setattr("cfx.core.probabilities._CHUNK", p[0].numel() * 2)  # two images at a time
    found = image_calibration(p, y)
    for i in range(5):
        one = p[i : i + 1], y[i : i + 1]
        assert float(found.ece[i]) == pytest.approx(ece(*one))
        assert float(found.ece_bins[i]) == pytest.approx(ece(*one, weight="bins"))
        assert float(found.nll[i]) == pytest.approx(nll(*one), rel=1e-6)
        assert float(found.brier[i]) == pytest.approx(brier(*one), rel=1e-6)
    assert found.row.tolist() == list(range(5))
    assert float(found.ece.mean()) >= ece(p, y) - 1e-9  # images make up for each other in the pool


def test_rows_without_space_are_refused():
    with pytest.raises(InputError, match="p: expected probabilities of voxels"):
        image_calibration(*drawn(10))

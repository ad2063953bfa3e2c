"""Calibration errors against scikit-learn, MONAI and sums by hand."""

import math

import pytest
import torch
from monai.metrics.calibration import CalibrationErrorMetric
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from cfx.core.calibration import bin_sums, brier, even_edges, reliability, top_label
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform


def sample(n: int, seed: int = 0, sharpness: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidences, and outcomes that follow them; sharper ones say too much."""
    z = 1.5 * normal((n,), seed=seed, row=torch.arange(1), stream=0)[0].double()
    u = uniform((n,), seed=seed, row=torch.arange(1), stream=1)[0].double()
    return (sharpness * z).sigmoid(), u < z.sigmoid()


def test_a_diagram_by_hand_with_its_three_errors() -> None:
    c = torch.tensor([0.0, 0.25, 0.5, 0.50001, 0.9, 1.0])
    right = torch.tensor([False, True, True, True, False, True])
    found = reliability(c, right, bins=4)
    assert found.edges.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert found.count.tolist() == [2, 1, 1, 2]  # (a, b], and 0 in the first
    gaps = [abs(0.5 - 0.125), 0.5, 1 - 0.50001, abs(0.5 - 0.95)]
    assert found.gap.tolist() == pytest.approx(gaps)
    assert found.ece == pytest.approx((2 * gaps[0] + gaps[1] + gaps[2] + 2 * gaps[3]) / 6)
    assert found.ace == pytest.approx(sum(gaps) / 4)
    assert found.mce == pytest.approx(0.5)
    sparse = reliability(c[:2], right[:2], bins=4)  # three bins are empty
    assert sparse.accuracy.isnan().tolist() == [False, True, True, True]
    assert sparse.ece == sparse.ace == sparse.mce == pytest.approx(0.375)


@pytest.mark.parametrize(("equal", "strategy"), [("width", "uniform"), ("count", "quantile")])
def test_the_diagram_is_that_of_scikit_learn(equal: str, strategy: str) -> None:
    c, right = sample(700)
    found = reliability(c, right, bins=10, equal=equal)
    share, mean = calibration_curve(right.numpy(), c.numpy(), n_bins=10, strategy=strategy)
    assert found.accuracy[found.count > 0].tolist() == pytest.approx(share.tolist())
    assert found.confidence[found.count > 0].tolist() == pytest.approx(mean.tolist())


@pytest.mark.parametrize("n", [700, 703])
def test_bins_of_equal_count_are(n: int) -> None:
    c, right = sample(n)
    count = reliability(c, right, bins=10, equal="count").count
    assert int(count.sum()) == n
    assert int(count.max() - count.min()) <= 1
    tied = reliability(torch.full((20,), 0.3), torch.arange(20) < 6, bins=5, equal="count")
    assert tied.count.tolist() == [20, 0, 0, 0, 0]
    assert tied.ece == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(("weighting", "name"), [("expected", "ece"), ("average", "ace"), ("maximum", "mce")])
def test_errors_are_those_of_monai(weighting: str, name: str) -> None:
    p = normal((3, 6, 5, 4), seed=2, row=torch.arange(1), stream=0).softmax(1)  # one image, three classes, voxels
    y = (3 * uniform((6, 5, 4), seed=2, row=torch.arange(1), stream=1)).long()
    hot = torch.nn.functional.one_hot(y, 3).movedim(-1, 1)
    metric = CalibrationErrorMetric(num_bins=15, calibration_reduction=weighting, metric_reduction="none")
    metric(p, hot)
    theirs = metric.aggregate()[0].tolist()
    ours = [getattr(reliability(p[:, k].flatten(), (y == k).flatten()), name) for k in range(3)]
    assert ours == pytest.approx(theirs, abs=1e-6)


def test_the_calibrated_err_less_than_the_overconfident_and_by_what_they_overstate() -> None:
    good, sharp = (reliability(*sample(200_000, sharpness=s)) for s in (1.0, 2.0))
    assert good.ece < 0.005
    c, _ = sample(200_000, sharpness=2.0)
    truth = ((c.logit() / 2).sigmoid() - c).abs().mean()  # E |P(right | c) - c|
    assert sharp.ece == pytest.approx(float(truth), abs=0.01)


def test_top_label_of_rows_and_of_voxels() -> None:
    p = torch.tensor([[[0.1, 0.6], [0.9, 0.4]], [[0.5, 0.2], [0.5, 0.8]]])
    confidence, right = top_label(p, torch.tensor([[1, 1], [0, 1]]))
    assert confidence.tolist() == pytest.approx([0.9, 0.6, 0.5, 0.8])
    assert right.tolist() == [True, False, True, True]
    assert top_label(p[:, :, 0], torch.tensor([1, 0]))[1].tolist() == [True, True]


def test_brier_score_is_that_of_scikit_learn_and_least_at_the_truth() -> None:
    p, y = normal((4,), seed=3, row=torch.arange(50), stream=0).softmax(1), torch.arange(50) % 4
    assert float(brier(p, y).mean()) == pytest.approx(brier_score_loss(y.numpy(), p.numpy()))
    torch.testing.assert_close(brier(p.view(5, 10, 4).movedim(-1, 1), y.view(5, 10)).flatten(), brier(p, y))
    assert brier(torch.tensor([[1.0, 0.0]] * 2), torch.tensor([0, 1])).tolist() == [0, 2]
    truth, q = 0.3, torch.linspace(0, 1, 101)
    both = torch.stack([q, 1 - q], 1)
    expected = sum(w * brier(both, torch.full((101,), k)) for k, w in enumerate((truth, 1 - truth)))
    assert float(q[expected.argmin()]) == pytest.approx(truth)


def test_bad_input_is_named() -> None:
    right = torch.tensor([True])
    for bad in (1.5, -0.1, math.nan):
        with pytest.raises(InputError, match="confidence: expected"):
            reliability(torch.tensor([bad]), right)
    with pytest.raises(InputError, match="expected at least one"):
        reliability(torch.zeros(1), right, bins=0)
    with pytest.raises(InputError, match="expected at least one"):
        reliability(torch.zeros(0), right[:0])


def test_the_squared_error_has_no_bias_where_the_plain_one_has() -> None:
    """Calibrated rows: 0 on average; rows that overstate: what they overstate, squared."""
    rows = [reliability(*sample(150, seed=s)) for s in range(120)]
    squared = torch.tensor([r.squared for r in rows])
    assert abs(float(squared.mean())) < 3 * float(squared.std()) / 120**0.5
    assert torch.tensor([r.ece for r in rows]).mean() > 0.04
    c, right = sample(200_000, sharpness=2.0)
    whole = reliability(c, right)
    small = [reliability(c[i : i + 200], right[i : i + 200], bins=15).squared for i in range(0, 30_000, 200)]
    assert torch.tensor(small).mean() == pytest.approx(whole.squared, rel=0.1)
    assert math.isnan(reliability(c[:1], right[:1]).squared)


def test_sums_of_parts_add_up_and_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    c, right = sample(1000)
    edges = even_edges(15)
    whole = bin_sums(c, right, edges)
    torch.testing.assert_close(bin_sums(c[:300], right[:300], edges) + bin_sums(c[300:], right[300:], edges), whole)
    monkeypatch.setattr("cfx.core.calibration._CHUNK", 7)
    torch.testing.assert_close(bin_sums(c, right, edges), whole)
    d = right.double() - c
    inside = (c > edges[3]) & (c <= edges[4])
    assert float(reliability(c, right).variance[3]) == pytest.approx(float(d[inside].var()))

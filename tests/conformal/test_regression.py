"""Intervals keep their level, are those of MAPIE, and hold readers' volumes by patient."""

import pytest
import torch

from cfx.conformal import CQR, Volumes, volumes_of
from cfx.core.conformal import conformal_quantile, coverage_band
from cfx.core.errors import InputError
from cfx.core.random import normal


def rows(n, seed=0):
    """Ends that are too narrow, and numbers whose spread grows with x."""
    z = normal((2,), seed=seed, row=torch.arange(n), stream=0).double()
    spread = 0.5 + z[:, 0].abs()
    return z[:, 0] - spread, z[:, 0] + spread, z[:, 0] + spread * z[:, 1]


def test_intervals_are_in_their_band_and_use_the_order_statistic():
    low, high, y = rows(500)
    fitted = CQR().fit(low, high, y)
    assert fitted.margin == float(conformal_quantile(torch.maximum(low - y, y - high), 0.1))
    a, b, new = rows(4000, seed=1)
    found = fitted.intervals(a, b)
    band = coverage_band(500, 4000, 0.1, level=0.999)
    assert band[0] <= float(found.covered(new).double().mean()) <= band[1]
    assert (found.level, found.calibrated) == (0.9, 500)


def test_ends_that_are_too_wide_are_brought_in_but_never_past_each_other():
    low, high, y = rows(300)
    fitted = CQR().fit(low - 5, high + 5, y)
    assert fitted.margin < 0
    found = fitted.intervals(low, high)
    assert (found.low <= found.high).all()


def test_intervals_are_those_of_mapie():
    mapie = pytest.importorskip("mapie.regression", reason="no mapie here")
    low, high, y = rows(200)

    class End:
        def __init__(self, column):
            self.column = column

        def fit(self, x, y):
            return self

        def predict(self, x):
            return x[:, self.column]

        def __sklearn_is_fitted__(self):
            return True

    x = torch.stack([low, high, (low + high) / 2], 1).numpy()
    theirs = mapie.ConformalizedQuantileRegressor([End(0), End(1), End(2)], confidence_level=0.9, prefit=True)
    theirs.conformalize(x, y.numpy())
    _, ends = theirs.predict_interval(x, symmetric_correction=True)
    found = CQR().fit(low, high, y).intervals(low, high)
    assert torch.from_numpy(ends[:, 0, 0]).allclose(found.low)
    assert torch.from_numpy(ends[:, 1, 0]).allclose(found.high)


def test_readers_volumes_are_covered_by_patient():
    n, readers, draws = 400, 4, 16
    z = normal((1 + readers + draws,), seed=3, row=torch.arange(2 * n), stream=0).double()
    size = 200 * z[:, :1].exp()
    seen = (size * (0.4 * z[:, 1 : 1 + readers]).exp()).round()
    drawn = (size * (0.1 * z[:, 1 + readers :]).exp()).round()  # a sampler that differs too little
    patients = torch.arange(n) // 2
    volumes = Volumes()
    margin = volumes.fit(drawn[:n], seen[:n], groups=patients)
    assert margin.rows == n // 2
    found = volumes.intervals(drawn[n:], margin)
    assert float(found.covered(seen[n:]).double().mean()) == pytest.approx(0.9, abs=0.03)
    assert (found.low >= 0).all()
    masks = torch.tensor([[[[1, 0], [2, 1]]]])
    assert volumes_of(masks).tolist() == [[2]]
    assert volumes_of(masks, 2).tolist() == [[1]]


def test_too_few_rows_and_bad_input():
    low, high, y = rows(8)
    assert CQR().fit(low, high, y).intervals(low, high).high.isinf().all()
    with pytest.raises(InputError, match="low, high: expected low <= high"):
        CQR().fit(high, low, y)
    with pytest.raises(InputError, match="y: expected finite numbers"):
        CQR().fit(low, high, y * float("nan"))
    with pytest.raises(InputError, match="y: expected one number"):
        CQR().fit(low, high, y[:3])
    with pytest.raises(InputError, match="ids: expected other subjects"):
        CQR().fit(low, high, y, ids=list("abcdefgh")).intervals(low[:1], high[:1], ids=["b"])
    with pytest.raises(InputError, match="drawn: expected volumes"):
        Volumes().fit(-torch.ones(3, 2), torch.ones(3))

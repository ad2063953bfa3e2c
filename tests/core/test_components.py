"""Principal components against scikit-learn and numpy, in both shapes of the matrix."""

import pytest
import torch
from sklearn.decomposition import PCA

from cfx.core.components import components, coordinates
from cfx.core.random import normal


def rows(n: int, p: int) -> torch.Tensor:
    """Rows of unequal spread around a mean far from 0."""
    scale = torch.linspace(3, 0.5, p)
    return (normal((p,), seed=1, row=torch.arange(n), stream=0) * scale + 5).double()


@pytest.mark.parametrize(("n", "p"), [(60, 7), (9, 40), (12, 12)])
def test_they_are_those_of_scikit_learn(n: int, p: int) -> None:
    x = rows(n, p)
    found, theirs = components(x), PCA().fit(x.numpy())
    k = min(n - 1, p)
    assert len(found.variance) == k
    torch.testing.assert_close(found.mean, torch.from_numpy(theirs.mean_))
    torch.testing.assert_close(found.variance * n / (n - 1), torch.from_numpy(theirs.explained_variance_[:k]))
    agree = (found.axes * torch.from_numpy(theirs.components_[:k]).T).sum(0).abs()
    torch.testing.assert_close(agree, torch.ones(k).double())
    ours, other = found.scores(x), torch.from_numpy(theirs.transform(x.numpy())[:, :k])
    torch.testing.assert_close(ours.abs(), other.abs(), atol=1e-6, rtol=0)


@pytest.mark.parametrize(("n", "p"), [(60, 7), (9, 40)])
def test_axes_are_orthonormal_and_scores_uncorrelated_with_these_variances(n: int, p: int) -> None:
    x = rows(n, p)
    found = components(x)
    r = len(found.variance)
    torch.testing.assert_close(found.axes.T @ found.axes, torch.eye(r).double())
    torch.testing.assert_close(found.scores(x).T @ found.scores(x) / n, found.variance.diag())
    torch.testing.assert_close(found.spread.square(), found.variance)


def test_faint_directions_of_single_precision_stay_orthonormal() -> None:
    x = (rows(20, 3000) * 0.7 ** torch.arange(3000)).float()  # spreads from 2 to below the smallest float
    found = components(x)
    assert float(found.spread[-1]) < 3e-3 * float(found.spread[0])
    torch.testing.assert_close(found.axes.T @ found.axes, torch.eye(len(found.variance)))


def test_what_counts_as_none() -> None:
    z = torch.linalg.qr(rows(50, 4) - rows(50, 4).mean(0)).Q * 50**0.5  # uncorrelated, of variance 1
    x = z * torch.tensor([2.0, 1.0, 1e-3, 0.0])
    spread = lambda **more: components(x, **more).spread.tolist()  # noqa: E731
    assert spread() == pytest.approx([2, 1, 1e-3])
    assert spread(share=1e-2) == pytest.approx([2, 1])
    assert spread(least=1.5) == pytest.approx([2])
    assert spread(most=1) == pytest.approx([2])
    assert spread(least=3.0) == []


@pytest.mark.parametrize("x", [torch.full((5, 3), 0.1), torch.full((3, 50), 7.0), torch.zeros(4, 0)])
def test_rows_that_are_alike_have_none(x: torch.Tensor) -> None:
    found = components(x, least=1e-6)
    assert found.axes.shape == (x.shape[1], 0)
    assert found.scores(x).shape == (len(x), 0)


def test_coordinates_keep_every_distance_of_wide_rows_across_parts(monkeypatch) -> None:
    x = rows(8, 100)
    monkeypatch.setattr("cfx.core.components._COLUMNS", 30)
    found = coordinates(x.float())
    assert found.shape == (8, 8)
    torch.testing.assert_close(torch.cdist(found, found), torch.cdist(x, x), atol=1e-4, rtol=0)
    torch.testing.assert_close(found.mean(0), torch.zeros(8).double(), atol=1e-6, rtol=0)

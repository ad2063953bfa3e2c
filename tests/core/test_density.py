"""The shrunk normal distribution: the formula of Ledoit and Wolf, the chi-square law, and what cannot be fitted."""

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import LedoitWolf

from cfx.core.density import gaussian
from cfx.core.errors import InputError


def rows(n: int, d: int, seed: int = 0) -> torch.Tensor:
    mix = torch.randn(d, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) @ mix + 3


@pytest.mark.parametrize(("n", "d"), [(20, 5), (8, 30), (200, 3)])
def test_weight_and_covariance_are_those_of_scikit_learn(n, d):
    z = rows(n, d)
    found, theirs = gaussian(z), LedoitWolf().fit(z.numpy())
    assert found.weight == pytest.approx(theirs.shrinkage_, abs=1e-10)
    np.testing.assert_allclose((found.factor @ found.factor.T).numpy(), theirs.covariance_, rtol=1e-9)
    other = rows(7, d, seed=1)
    np.testing.assert_allclose(found.distance2(other).numpy(), theirs.mahalanobis(other.numpy()), rtol=1e-7)


def test_squared_distance_of_normal_rows_is_chi_square():
    d2 = gaussian(rows(200_000, 8), shrunk=False).distance2(rows(20_000, 8, seed=1))
    assert stats.kstest(d2.numpy(), stats.chi2(8).cdf).pvalue > 0.01
    assert float(d2.mean()) == pytest.approx(8, abs=0.1)


def test_rows_about_their_own_means_pool_one_covariance():
    z = rows(50, 4)
    assert torch.allclose(gaussian(z, mean=z.mean(0).expand_as(z)).factor, gaussian(z).factor)


@pytest.mark.parametrize(
    ("z", "shrunk", "said"),
    [
        (rows(1, 3), True, "at least two finite rows .* got 1"),
        (torch.full((4, 3), torch.nan), True, "not finite"),
        (torch.ones(5, 3), True, "all the same"),
        (rows(3, 5), False, "singular one of 3 rows in 5 columns"),
    ],
)
def test_what_cannot_be_fitted_is_refused(z, shrunk, said):
    with pytest.raises(InputError, match=said):
        gaussian(z, shrunk=shrunk)

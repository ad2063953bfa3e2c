"""Numbers on one scale: z-scores, distances, and what cannot be scaled."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.ood.standard import Density, Standard, check_positive


def rows(n=4000, seed=1):
    """Correlated normal rows of very different scale."""
    e = torch.randn(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack([1000 + e[:, 0], 1e-3 * (e[:, 0] + e[:, 1]), -5 + 20 * e[:, 2]], 1)


def test_the_fitted_rows_have_mean_zero_and_deviation_one():
    v = rows(50).float()
    z = Standard.of(v, "numbers")(v)
    torch.testing.assert_close(z.mean(0), torch.zeros(3).double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(z.std(0), torch.ones(3).double())


def test_the_distance_of_normal_rows_has_the_mean_of_chi_square_and_knows_correlation():
    density = Density.of(rows(), "numbers")
    assert float(density.distance2(rows(seed=2)).mean()) == pytest.approx(3, rel=0.05)
    along = rows()[:1] * 0 + torch.tensor([[1002.0, 2e-3, -5.0]]).double()
    across = rows()[:1] * 0 + torch.tensor([[1002.0, -2e-3, -5.0]]).double()
    assert float(density.distance2(across)) > 4 * float(density.distance2(along))
    torch.testing.assert_close(density.whitened(across).square().sum(1), density.distance2(across))


@pytest.mark.parametrize("value", [0.0, 0.7])
def test_numbers_that_never_differ_are_refused(value):
    v = torch.stack([torch.arange(5.0), torch.full((5,), value)], 1)
    with pytest.raises(InputError, match=r"errors that differ between images, got the same for all 5 at \[1\] of 2"):
        Standard.of(v, "errors")


def test_two_images_have_no_density():
    with pytest.raises(InputError, match="cohort: expected at least 3 images for the density of numbers, got 2"):
        Density.of(rows(2), "numbers")
    assert bool(Density.of(rows(3), "numbers").distance2(rows(9)).isfinite().all())


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(InputError, match="cohort: expected finite errors"):
        Standard.of(torch.tensor([[1.0], [torch.nan]]), "errors")


@pytest.mark.parametrize("value", [0, -1, torch.inf, torch.nan])
def test_settings_that_must_be_positive(value):
    check_positive("steps", 1)
    with pytest.raises(InputError, match="steps: expected a number of at least 1"):
        check_positive("steps", value)

"""A density of few rows: the sum of kernels, written out."""

import math

import pytest
import torch
from scipy.stats import gaussian_kde

from cfx.ood.reconstruction.kernel import Kernel


def rows(n, seed=1):
    e = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.stack([10 + e[:, 0], e[:, 0] + 0.5 * e[:, 1]], 1)


def test_it_is_the_mean_of_normal_kernels_in_whitened_coordinates():
    kernel, new = Kernel.of(rows(50), "numbers"), rows(4, seed=2)
    w, h = kernel.density.whitened(new), 50 ** (-1 / 6)
    assert kernel.bandwidth == pytest.approx(h)
    far = (w[:, None] - kernel.rows[None]).square().sum(2)
    p = (torch.exp(-far / (2 * h * h)) / (2 * math.pi * h * h)).mean(1)
    torch.testing.assert_close(kernel.surprise(new), -p.log())


def test_with_many_rows_it_orders_images_as_scipy_does():
    v, new = rows(2000), rows(200, seed=3)
    theirs = torch.from_numpy(-gaussian_kde(v.T.numpy()).logpdf(new.T.numpy()))
    ours = Kernel.of(v, "numbers").surprise(new)
    assert float(torch.corrcoef(torch.stack([ours, theirs]))[0, 1]) > 0.999


def test_far_away_it_stays_finite_and_grows():
    far = Kernel.of(rows(50), "numbers").surprise(torch.tensor([[100.0, 0.0], [1e4, 0.0]]))
    assert bool(far.isfinite().all())
    assert float(far[1]) > float(far[0])

"""Gaussians of codes: their divergence is torch's, and the network that says one is safe for any image."""

import pytest
import torch
from torch.distributions import Independent, Normal, kl_divergence

from cfx.models.samplers.gaussian import Gaussian, GaussianEncoder, divergence
from tests.models.networks import randomise


def some(seed):
    g = torch.Generator().manual_seed(seed)
    return Gaussian(torch.randn(5, 6, generator=g), torch.randn(5, 6, generator=g))


def law(gaussian):
    return Independent(Normal(gaussian.mean, gaussian.log_std.exp()), 1)


def test_the_divergence_is_torchs():
    q, p = some(0), some(1)
    torch.testing.assert_close(divergence(q, p), kl_divergence(law(q), law(p)))
    torch.testing.assert_close(divergence(q, q), torch.zeros(5), atol=1e-6, rtol=0)
    assert not torch.allclose(divergence(q, p), divergence(p, q))


def test_a_code_has_the_moments_of_its_gaussian():
    q = Gaussian(torch.tensor([[1.0, -2.0]]).expand(40_000, 2), torch.tensor([[0.0, -1.0]]).expand(40_000, 2))
    z = q.at(torch.randn(40_000, 2))
    torch.testing.assert_close(z.mean(0), q.mean[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.std(0), q.log_std[0].exp(), atol=0.02, rtol=0)


@pytest.mark.parametrize("space", [(64, 64), (9, 7), (8, 12, 5)])
def test_an_encoder_takes_any_size_and_bounds_what_it_says(space):
    net = randomise(GaussianEncoder(len(space), 2, 6))
    x = torch.randn(3, 2, *space)
    with torch.no_grad():
        said, alone, wild = net(x), net(x[1:2]), net(1e6 * x)
    assert said.mean.shape == said.log_std.shape == (3, 6)
    torch.testing.assert_close(alone.mean, said.mean[1:2])
    assert float(wild.log_std.abs().max()) <= 5
    assert bool(divergence(wild, said).isfinite().all())

"""Low-rank Gaussian logits: their covariance and likelihood are torch's, and no sum of logarithms overflows."""

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal

from cfx.models.samplers import Draw
from cfx.models.samplers.conditioned import likeliest, log_likelihood
from cfx.models.samplers.ssn import Ssn, log_mean_likelihood, logits
from tests.models.networks import randomise, small


def gaussian(k, space, rank=3):
    """mu, P and sqrt(d) of one row, and the law that they stand for."""
    mean, factor = torch.randn(1, k, *space), torch.randn(1, rank, k, *space)
    scale = 0.3 + torch.rand(1, k, *space)
    law = LowRankMultivariateNormal(mean.flatten(), factor[0].flatten(1).T, scale.flatten().square())
    return (mean, factor, scale), law


def draws(parts, m):
    mean, factor, _ = parts
    return logits(*parts, torch.randn(1, m, factor.shape[1]), torch.randn(1, m, *mean.shape[1:]))


@pytest.mark.parametrize(("k", "space"), [(1, (2, 2)), (2, (3, 1)), (2, (1, 2, 1))])
def test_logits_have_the_moments_of_torchs_law(k, space):
    parts, law = gaussian(k, space)
    eta = draws(parts, 100_000)[0].flatten(1)
    torch.testing.assert_close(eta.mean(0), law.mean, atol=0.06, rtol=0)
    torch.testing.assert_close(eta.T.cov(), law.covariance_matrix, atol=0.15, rtol=0.03)


@pytest.mark.parametrize(("k", "space"), [(1, (2, 2)), (2, (3, 1))])
def test_the_likelihood_is_that_of_torchs_law(k, space):
    parts, law = gaussian(k, space)
    y = torch.randint(0, k + 1, (1, *space), dtype=torch.uint8)
    theirs = law.sample((200_000,)).unflatten(1, (k, *space))
    truth = log_likelihood(theirs, y.expand(len(theirs), *space)).exp().mean().log()
    torch.testing.assert_close(log_mean_likelihood(draws(parts, 200_000), y)[0], truth, atol=0.03, rtol=0)
    one = draws(parts, 1)
    torch.testing.assert_close(log_mean_likelihood(one, y), log_likelihood(one[:, 0], y))


def test_thousands_of_nats_are_no_trouble():
    eta = (1000 * torch.randn(2, 20, 1, 64, 64)).requires_grad_()
    total = log_mean_likelihood(eta, torch.randint(0, 2, (2, 64, 64), dtype=torch.uint8))
    assert bool((total < -1e5).all() and total.isfinite().all())
    (g,) = torch.autograd.grad(total.sum(), eta)
    assert bool(g.isfinite().all())


def test_the_variance_of_a_logit_has_a_floor():
    sampler = small("mask-ssn")
    with torch.no_grad():
        sampler.head.bias.fill_(-200.0)
    _, _, scale = sampler.encode(torch.zeros(1, 1, 8, 8))
    torch.testing.assert_close(scale, torch.full_like(scale, 1e-5**0.5))


def test_without_spread_every_draw_is_the_likeliest_mask():
    sampler = randomise(small("mask-ssn", classes=3))
    mean, factor, scale = sampler.encode(torch.randn(2, 1, 8, 8))
    mean = mean - mean.mean((2, 3), keepdim=True)  # so that all classes occur
    drawn = sampler.draw((mean, 0 * factor, 0 * scale), seed=0, row=torch.arange(2))
    assert torch.equal(drawn, likeliest(mean))
    assert len(drawn.unique()) > 1
    assert not torch.equal(sampler.draw((mean, 9 + factor, scale), seed=0, row=torch.arange(2)), drawn)


def test_one_look_at_an_image_serves_all_draws():
    sampler = Ssn(2, 1)
    assert (sampler.nfe, sampler.rank, sampler.draws) == (1, 10, 20)
    low = small("mask-ssn")
    with torch.autocast("cpu", torch.bfloat16):
        loss, _ = low(torch.zeros(2, 1, 8, 8), torch.zeros(2, 4, 8, 8, dtype=torch.uint8), Draw(0, torch.arange(2)))
    assert loss.dtype == torch.float32

"""The evidence lower bound of a linear autoencoder, whose expectation is known."""

import math

import pytest
import torch

from cfx.core.errors import InputError
from cfx.ood.reconstruction.elbo import Elbo, kl, squared
from tests.ood.detectors import images
from tests.ood.reconstruction.known import LinearVae, ask, learn


class Identity(LinearVae):
    """Returns what it is given."""

    def encode(self, x):
        return x, torch.full_like(x, 1e-9)

    def decode(self, z):
        return z


def test_the_divergence_is_that_of_torch():
    mean, std = torch.randn(3, 2, 4, 4), torch.rand(3, 2, 4, 4) + 0.1
    theirs = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    )
    torch.testing.assert_close(kl(mean, std), theirs.flatten(1).sum(1))


def test_the_expected_error_is_what_is_left_out_and_the_noise_of_the_code():
    # an orthonormal decoder: E |x - D(m + s e)|^2 = |x - D(m)|^2 + s^2 codes, and there is a code for every four voxels
    x, vae = images(2), LinearVae(std=0.5)
    mean, std = vae.encode(x)
    left = (x - vae.decode(mean)).square().flatten(1).mean(1)
    found = squared(ask(x), mean, std, range(1000), seed=1)
    torch.testing.assert_close(found, left + 0.25 / 4, rtol=0.04, atol=0)


def test_the_variance_is_the_error_and_the_bound_its_likelihood():
    elbo = Elbo.of(learn(), draws=2)
    x = images(5, seed=4)
    batch = ask(x)
    surprise, code = elbo.parts(batch, *LinearVae().encode(x))
    error = squared(ask(x), *LinearVae().encode(x), range(2), seed=3)
    normal = torch.distributions.Normal(0.0, math.sqrt(elbo.variance))
    torch.testing.assert_close(surprise, -normal.log_prob(error.sqrt()))
    torch.testing.assert_close(elbo.negative(ask(x)), surprise + code)
    rows = squared(ask(learn().cohort.x), *LinearVae().encode(learn().cohort.x), range(2), seed=3)
    assert elbo.variance == pytest.approx(float(rows.mean()), rel=1e-5)


def test_an_autoencoder_that_returns_its_input_is_refused():
    with pytest.raises(InputError, match="autoencoder: expected one with some finite error"):
        Elbo.of(learn(autoencoder=Identity()), draws=1)


def test_an_autoencoder_without_deviation_has_no_bound():
    with pytest.raises(InputError, match=r"expected positive deviations of the latent.*\(logvar / 2\).exp"):
        Elbo.of(learn(autoencoder=LinearVae(std=0.0)), draws=1)

"""A latent generator: scaled codes in, images out, and the denoiser's posterior of codes."""

import pytest
import torch

from cfx.core.denoiser import Denoiser, Generative, Latent
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.models.latent import LatentDiffusion
from tests.models.networks import SPACE, randomise, small


def latent(dims, scale):
    """A generator of random weights."""
    denoiser = Denoiser(randomise(small("unet", dims)), Schedule.from_diffusers({}))
    return LatentDiffusion(randomise(small("autoencoder-kl", dims)), denoiser, scale)


@pytest.mark.parametrize("dims", [2, 3])
def test_codes_are_scaled_means_and_decode_back(dims):
    plain, scaled = latent(dims, 1.0), latent(dims, 2.5)
    x = torch.randn(2, 1, *SPACE[dims])
    z = scaled.encode(x)
    assert torch.allclose(z, 2.5 * plain.encode(x), rtol=1e-5)
    assert torch.allclose(plain.encode(x), plain.autoencoder.encode(x)[0])
    assert torch.allclose(scaled.decode(z), plain.decode(plain.encode(x)), atol=1e-5)


def test_it_is_a_latent_generator_and_a_denoiser_is_not():
    generator = latent(2, 1.0)
    assert isinstance(generator, Latent)
    assert isinstance(generator, Generative)
    assert isinstance(generator.denoiser, Generative)
    assert not isinstance(generator.denoiser, Latent)


def test_what_does_not_suit_is_refused():
    denoiser = latent(2, 1.0).denoiser
    with pytest.raises(InputError, match="autoencoder: expected encode and decode, got Identity"):
        LatentDiffusion(torch.nn.Identity(), denoiser)
    with pytest.raises(InputError, match="scale: expected a positive number, got 0"):
        LatentDiffusion(small("autoencoder-kl"), denoiser, 0.0)

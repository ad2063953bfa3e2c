"""A latent generator: scaled codes in, images out, and the denoiser's posterior of codes."""

import diffusers
import pytest
import torch
from monai.networks.nets import VQVAE

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


@pytest.mark.parametrize("shift", [None, 0.3])
def test_an_autoencoder_of_diffusers_brings_its_own_scale(shift):
    vae = randomise(small("diffusers-autoencoder-kl", shift_factor=shift)).network.eval()
    denoiser = Denoiser(randomise(small("unet", 2, out_channels=2)), Schedule.from_diffusers({}))
    generator, x = LatentDiffusion(vae, denoiser), torch.randn(2, 1, 16, 24)
    z = generator.encode(x)
    torch.testing.assert_close(z, (vae.encode(x).latent_dist.mean - (shift or 0)) * 0.18215)
    torch.testing.assert_close(
        generator.decode(z), vae.decode(vae.encode(x).latent_dist.mean).sample, atol=1e-4, rtol=0
    )
    assert isinstance(generator, Latent)
    assert LatentDiffusion(vae, denoiser, 2.0).scale == 2.0


def tiny_of_diffusers():
    widths = {"encoder_block_out_channels": (8, 8), "decoder_block_out_channels": (8, 8)}
    blocks = {"num_encoder_blocks": (1, 1), "num_decoder_blocks": (1, 1)}
    return diffusers.AutoencoderTiny(in_channels=1, out_channels=1, latent_channels=2, **widths, **blocks)


def vq_of_monai():
    sampling = {"downsample_parameters": ((2, 4, 1, 1),) * 2, "upsample_parameters": ((2, 4, 1, 1, 0),) * 2}
    widths = {"channels": (8, 8), "num_res_channels": (8, 8), "num_res_layers": 1}
    codes = {"embedding_dim": 2, "num_embeddings": 4}
    return VQVAE(spatial_dims=2, in_channels=1, out_channels=1, **sampling, **widths, **codes)


OTHERS = {
    "tiny": (tiny_of_diffusers, "expected diffusers' AutoencoderKL, got its AutoencoderTiny"),
    "vq": (lambda: diffusers.VQModel(in_channels=1, out_channels=1), "AutoencoderKL, got its VQModel"),
    "by channel": (
        lambda: small("diffusers-autoencoder-kl").network.__class__(latents_mean=[0.0] * 4, latents_std=[1.0] * 4),
        "expected one scaling factor, got latents_mean and latents_std",
    ),
    "vq of MONAI": (vq_of_monai, "expected encode to give mean and standard deviation, got Tensor"),
}


@pytest.mark.parametrize("kind", OTHERS)
def test_autoencoders_whose_codes_mean_something_else_are_refused(kind):
    make, message = OTHERS[kind]
    with pytest.raises(InputError, match=message):
        LatentDiffusion(make(), latent(2, 1.0).denoiser).encode(torch.zeros(2, 1, 16, 16))


@pytest.mark.parametrize("shape", [(1, 10, 16), (1, 16, 6)])
def test_an_image_must_be_halved_by_both_parts(shape):
    parts = latent(2, 1.0)
    assert parts.multiple == 4
    with pytest.raises(InputError, match=r"shape: expected spatial sizes divisible by 4, got"):
        LatentDiffusion(parts.autoencoder, parts.denoiser, 1.0, shape)

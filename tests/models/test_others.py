"""Networks of MONAI and diffusers by name are those packages' own, and become checkpoints that give them back."""

import pytest
import torch
from torch import nn

from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.models import build, kind, load, save
from cfx.models.registry import BUILDERS
from tests.models.networks import SPACE, keywords, randomise, small

OTHERS = [name for name in BUILDERS if name.startswith(("monai-", "diffusers-"))]
BOTH = [(name, dims) for name in OTHERS for dims in (2, 3) if dims == 2 or not name.startswith("diffusers-")]


def wrapped(name, network):
    """What is saved: a denoiser has a schedule."""
    return Denoiser(network, Schedule.from_diffusers({})) if kind(name) == "denoiser" else network


def answer(name, model, x):
    """What a model of that name says of images."""
    with torch.no_grad():
        if kind(name) == "denoiser":
            return model(x, 300).mean
        return torch.cat([part.flatten(1) for part in model.encode(x)]) if kind(name) == "vae" else model(x)


@pytest.mark.parametrize(("name", "dims"), BOTH)
def test_every_one_becomes_a_checkpoint_and_comes_back(name, dims, tmp_path):
    model = wrapped(name, randomise(small(name, dims)).eval())
    save(tmp_path / "net", model, name=name, config=keywords(name, dims))
    x = torch.randn(2, 1, *SPACE[dims])
    expected = answer(name, model, x)
    assert expected.std() > 0
    torch.testing.assert_close(answer(name, load(tmp_path / "net"), x), expected)


def test_they_are_the_packages_own():
    import diffusers
    import monai.networks.nets as monai

    own = {
        "monai-diffusion-unet": monai.DiffusionModelUNet, "monai-autoencoder-kl": monai.AutoencoderKL,
        "monai-densenet121": monai.DenseNet121, "monai-resnet18": monai.ResNet, "monai-resnet50": monai.ResNet,
        "diffusers-unet2d": diffusers.UNet2DModel,
    }  # fmt: skip
    assert all(isinstance(small(name), of) for name, of in own.items())
    assert isinstance(small("diffusers-autoencoder-kl").network, diffusers.AutoencoderKL)


@pytest.mark.parametrize("name", [n for n in OTHERS if kind(n) != "classifier"])
def test_sizes_that_do_not_divide_are_named(name):
    network, schedule = small(name).eval(), Schedule.from_diffusers({})
    asked = {
        "vae": lambda: network.encode(torch.zeros(1, 1, 15, 17)),
        "denoiser": lambda: Denoiser(network, schedule, shape=(1, 15, 17)),
    }
    with pytest.raises(InputError, match=r"expected spatial sizes divisible by 2, got \(15, 17\)"):
        asked[kind(name)]()


@pytest.mark.parametrize("name", [n for n in OTHERS if kind(n) == "classifier"])
def test_nothing_is_downloaded(name):
    with pytest.raises(InputError, match="pretrained: expected false"):
        build(name, pretrained=True)


@pytest.mark.parametrize("name", OTHERS)
def test_a_keyword_that_the_package_does_not_know_is_an_input_error(name):
    with pytest.raises(InputError, match=f"network {name}: .*widths"):
        small(name, widths=3)


def test_an_autoencoder_of_diffusers_encodes_to_its_mean():
    vae = randomise(small("diffusers-autoencoder-kl")).eval()
    x = torch.randn(2, 1, 16, 24)
    posterior = vae.network.encode(x).latent_dist
    mean, std = vae.encode(x)
    torch.testing.assert_close(mean, posterior.mean)
    torch.testing.assert_close(std, posterior.std)
    torch.testing.assert_close(vae.decode(mean), vae.network.decode(mean).sample)
    assert mean.shape[1:] == vae.latent_shape((16, 24))
    assert isinstance(vae, nn.Module)

"""Folders of diffusers become the models that diffusers makes of them, and what cfx cannot use is refused by name."""

import json

import diffusers
import pytest
import torch

from cfx.core.denoiser import Denoiser
from cfx.core.errors import CheckpointError, InputError
from cfx.core.schedule import Schedule
from cfx.models.autoencoder import DiffusersKl
from cfx.models.folders import diffusers_model, is_diffusers, read_model, read_schedule
from cfx.models.latent import LatentDiffusion
from tests.models.networks import keywords, randomise


def unet(**more):
    torch.manual_seed(0)
    return randomise(diffusers.UNet2DModel(**keywords("diffusers-unet2d") | {"sample_size": 16} | more)).eval()


def vae():
    torch.manual_seed(1)
    return randomise(diffusers.AutoencoderKL(**keywords("diffusers-autoencoder-kl"))).eval()


def scheduler(**more):
    return diffusers.DDIMScheduler(beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", **more)


def saved(part, path, safe=True):
    if isinstance(part, diffusers.SchedulerMixin):
        part.save_pretrained(path)
    else:
        part.save_pretrained(path, safe_serialization=safe)
    return path


def by_hand(network, x, t):
    return Denoiser(network, Schedule.from_diffusers(dict(scheduler().config)))(x, t).mean


@pytest.mark.parametrize("layout", ["pipeline", "inside", "beside", "given", "bin", "parts"])
def test_a_unet_and_its_scheduler_in_every_layout(layout, tmp_path):
    network, given, place = unet(), None, tmp_path
    if layout == "pipeline":
        diffusers.DDIMPipeline(network, scheduler()).save_pretrained(tmp_path)
    elif layout in ("beside", "parts"):
        saved(network, tmp_path / "unet")
        saved(scheduler(), tmp_path / "scheduler")
        place = tmp_path / "unet" if layout == "beside" else tmp_path
    else:
        saved(network, tmp_path, safe=layout != "bin")
        saved(scheduler(), tmp_path / "scheduler" if layout == "bin" else tmp_path)
    if layout == "given":
        (tmp_path / "scheduler_config.json").unlink()
        given = Schedule.from_diffusers(dict(scheduler().config))
    assert is_diffusers(place)
    found = diffusers_model(place, schedule=given)
    x = torch.randn(2, 1, 16, 16)
    assert isinstance(found, Denoiser)
    assert (found.shape, found.classes, found.multiple) == ((1, 16, 16), None, 2)
    with torch.no_grad():
        torch.testing.assert_close(found(x, 300).mean, by_hand(network, x, 300))


def test_a_latent_pipeline(tmp_path):
    network, autoencoder = unet(in_channels=2, out_channels=2, sample_size=8), vae()
    for part, name in ((network, "unet"), (autoencoder, "vae"), (scheduler(), "scheduler")):
        saved(part, tmp_path / name)
    found, x = diffusers_model(tmp_path), torch.randn(1, 1, 16, 16)
    assert isinstance(found, LatentDiffusion)
    assert found.scale == 0.18215
    with torch.no_grad():
        torch.testing.assert_close(found.encode(x), autoencoder.encode(x).latent_dist.mean * 0.18215)


def test_an_autoencoder(tmp_path):
    found, x = diffusers_model(saved(vae(), tmp_path)), torch.randn(1, 1, 16, 16)
    assert isinstance(found, DiffusersKl)
    with torch.no_grad():
        torch.testing.assert_close(found.encode(x)[0], vae().encode(x).latent_dist.mean)
    name, config, _ = read_model(tmp_path)
    assert name == "diffusers-autoencoder-kl"
    assert config["latent_channels"] == 2


@pytest.mark.parametrize(("labels", "right"), [(2, True), (3, False), (None, False)])
def test_a_conditional_unet_needs_the_number_of_its_labels(labels, right, tmp_path):
    saved(unet(num_class_embeds=3), tmp_path)
    saved(scheduler(), tmp_path)
    if right:
        assert diffusers_model(tmp_path, labels=labels).classes == 2
        return
    with pytest.raises(InputError, match="labels: 2, if the last of its 3 embeddings means 'no label'"):
        diffusers_model(tmp_path, labels=labels)


def test_what_cannot_be_used_is_refused_by_name(tmp_path):
    saved(unet(), tmp_path / "a")
    with pytest.raises(InputError, match=r"schedule: expected scheduler_config\.json in .*or the key schedule"):
        diffusers_model(tmp_path / "a")
    saved(diffusers.EDMEulerScheduler(), tmp_path / "a")
    with pytest.raises(InputError, match=r"expected a scheduler with a table of betas, .* got EDMEulerScheduler"):
        diffusers_model(tmp_path / "a")
    (tmp_path / "a/diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"expected diffusion_pytorch_model\.safetensors or .*got none"):
        diffusers_model(tmp_path / "a")
    saved(diffusers.VQModel(in_channels=1, out_channels=1), tmp_path / "vq")
    with pytest.raises(InputError, match="expected diffusers' UNet2DModel or AutoencoderKL, got VQModel"):
        diffusers_model(tmp_path / "vq")
    for name in ("unet", "vqvae"):
        saved(unet(), tmp_path / "pipe" / name)
    with pytest.raises(InputError, match=r"expected a pipeline of unet, scheduler and vae, got \['vqvae'\] too"):
        diffusers_model(tmp_path / "pipe")


MONAI = {"schedule": "scaled_linear_beta", "num_train_timesteps": 100}


@pytest.mark.parametrize("given", [dict(scheduler().config), MONAI, {"num_train_timesteps": 100}])
@pytest.mark.parametrize("how", ["mapping", "file", "folder"])
def test_a_schedule_is_read_from_a_mapping_a_file_or_a_folder(given, how, tmp_path):
    expected = Schedule.from_monai(given) if given is MONAI else Schedule.from_diffusers(given)
    file = tmp_path / "scheduler_config.json"
    file.write_text(json.dumps(given))
    found = read_schedule({"mapping": given, "file": file, "folder": tmp_path}[how])
    assert torch.equal(found.alphas_cumprod, expected.alphas_cumprod)
    assert found.prediction == expected.prediction


def test_a_folder_of_another_kind_is_not_of_diffusers(tmp_path):
    assert not is_diffusers(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "vit"}')
    assert not is_diffusers(tmp_path)
    with pytest.raises(CheckpointError, match="expected a JSON object"):
        read_schedule(tmp_path / "nothing.json")

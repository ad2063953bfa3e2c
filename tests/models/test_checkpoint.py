"""A checkpoint gives back the very same function, proves its bytes, and diffusers can read its schedule."""

import json

import pytest
import torch

from cfx.core.denoiser import Denoiser
from cfx.core.errors import CheckpointError, InputError
from cfx.core.schedule import Schedule
from cfx.models import build, load, load_network, read_manifest, save
from cfx.models.checkpoint import verify_checkpoint
from cfx.models.features import PooledFeatures
from cfx.models.latent import LatentDiffusion
from cfx.models.regressor import Regressor
from cfx.runtime.files import digest

CONFIG = {
    "spatial_dims": 2, "in_channels": 1, "channels": (8, 16), "attention": (False, False), "patch": 2,
    "features": 4, "classes": 2,
}  # fmt: skip
SCHEDULE = {
    "num_train_timesteps": 50, "beta_schedule": "scaled_linear", "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": True, "timestep_spacing": "trailing",
}  # fmt: skip


@pytest.fixture
def denoiser():
    torch.manual_seed(1)
    network = build("patch-unet", **CONFIG)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.1)
    return Denoiser(network, Schedule.from_diffusers(SCHEDULE), classes=2, shape=(1, 8, 8))


@pytest.fixture
def folder(denoiser, tmp_path):
    facts = {"command": "python -m cfx.training x.yaml", "steps": 7, "figures": {"loss": 0.125}}
    save(tmp_path / "toy", denoiser, name="patch-unet", config=CONFIG, classes=("well", "ill"), provenance=facts)
    return tmp_path / "toy"


def test_denoiser_comes_back_as_the_same_function(denoiser, folder):
    back = load(folder)
    x, t, label = torch.randn(2, 1, 8, 8), torch.tensor([50, 3]), torch.tensor([0, 1])
    assert torch.equal(back(x, t, label).mean, denoiser(x, t, label).mean)
    assert torch.equal(back(x, 7).mean, denoiser(x, 7).mean)
    assert (back.classes, back.shape, back.training) == (2, (1, 8, 8), False)


def test_manifest_says_what_was_saved(folder):
    manifest = read_manifest(folder)
    assert (manifest.name, manifest.kind, manifest.labels) == ("patch-unet", "denoiser", 2)
    assert manifest.classes == ("well", "ill")
    assert manifest.provenance["steps"] == 7
    assert set(manifest.files) == {"model.safetensors", "scheduler_config.json", "README.md"}


def test_card_states_command_steps_and_figures(folder):
    card = (folder / "README.md").read_text()
    for words in ("python -m cfx.training x.yaml", "steps: 7", "loss: 0.125", "`well`, `ill`"):
        assert words in card


def test_diffusers_reads_the_schedule(denoiser, folder):
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_pretrained(folder)
    assert scheduler.config.prediction_type == "v_prediction"
    assert torch.allclose(scheduler.alphas_cumprod.double(), denoiser.schedule.alphas_cumprod, atol=1e-6)


def test_saving_again_replaces_the_folder_and_leaves_nothing_beside_it(denoiser, folder):
    with torch.no_grad():
        next(denoiser.network.parameters()).add_(1)
    save(folder, denoiser, name="patch-unet", config=CONFIG)
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(load(folder)(x, 5).mean, denoiser(x, 5).mean)
    assert [p.name for p in folder.parent.iterdir()] == ["toy"]


def test_a_failed_save_keeps_the_old_checkpoint(denoiser, folder):
    before = read_manifest(folder)
    with pytest.raises(InputError, match="JSON"):
        save(folder, denoiser, name="patch-unet", config=CONFIG, provenance={"when": object()})
    assert read_manifest(folder) == before


def test_config_that_builds_another_network_is_refused(denoiser, tmp_path):
    with pytest.raises(InputError, match="other tensors"):
        save(tmp_path / "x", denoiser, name="patch-unet", config=CONFIG | {"features": 8})
    with pytest.raises(InputError, match="expected a Denoiser"):
        save(tmp_path / "x", denoiser.network, name="patch-unet", config=CONFIG)


def harm(path, damage):
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-200] ^= 1
    path.write_bytes(data if damage == "flip" else data[:-100])
    if damage == "remove":
        path.unlink()


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_a_card_that_was_edited_is_named_and_stops_nobody(folder, damage):
    harm(folder / "README.md", damage)
    load(folder)
    (fault,) = verify_checkpoint(folder)
    assert "README.md" in fault


@pytest.mark.parametrize("file", ["model.safetensors", "scheduler_config.json", "cfx.json"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "remove"])
def test_damage_is_refused_by_name(folder, file, damage):
    harm(folder / file, damage)
    with pytest.raises(CheckpointError, match=file) as caught:
        load(folder)
    if damage != "remove" and file != "cfx.json":
        expected, found = str(caught.value).rsplit("SHA-256 ", 1)[1].split(", got ")
        assert len(expected) == len(found) == 64
        assert expected != found


def test_unknown_schema_is_refused(folder):
    values = json.loads((folder / "cfx.json").read_text()) | {"schema_version": 2}
    values.pop("sha256")
    (folder / "cfx.json").write_text(json.dumps(values | {"sha256": digest(values)}))
    with pytest.raises(CheckpointError, match="expected schema version 1, got 2"):
        load(folder)


def test_not_a_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match=r"cfx\.json: missing"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("cnn", {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": (8, 8)}),
        ("autoencoder-kl", {"spatial_dims": 2, "in_channels": 1, "channels": (8, 8), "attention": (False, False)}),
    ],
)
def test_other_kinds_come_back_as_the_same_function(tmp_path, name, config):
    network = build(name, **config)
    save(tmp_path / "net", network, name=name, config=config, shape=(1, 8, 8))
    back = load(tmp_path / "net")
    x = torch.randn(2, 1, *[8] * config["spatial_dims"])
    mine, theirs = network.eval()(x), back(x)
    assert torch.equal(mine[0], theirs[0])
    assert not back.training


CNN = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (8, 8)}
VAE = {"spatial_dims": 2, "in_channels": 1, "channels": (8, 8), "attention": (False, False), "latent_channels": 1}


def wrapped(kind, denoiser):
    """A model of a kind that wraps its network, and what `save` has to be told."""
    match kind:
        case "regressor":
            model = Regressor(build("cnn", **CNN), ["age", "dose"], [60.0, 3.0], [10.0, 0.5])
            return model, {"name": "cnn", "config": CNN}
        case "features":
            return PooledFeatures(build("cnn", **CNN)), {"name": "cnn", "config": CNN}
        case "latent":
            facts = {"autoencoder": {"name": "autoencoder-kl", "config": VAE}}
            model = LatentDiffusion(build("autoencoder-kl", **VAE), denoiser, 0.37, (1, 16, 16))
            return model, {"name": "patch-unet", "config": CONFIG, "facts": facts}


def answer(model):
    """What a model says of fixed images."""
    if isinstance(model, LatentDiffusion):
        z = model.encode(torch.linspace(-1, 1, 512).reshape(2, 1, 16, 16))
        return torch.cat([z, model(z, 9, torch.tensor([0, 1])).mean, model.decode(z)[..., :8, :8]])
    return model(torch.linspace(-1, 1, 512).reshape(2, 1, 16, 16))


@pytest.mark.parametrize("kind", ["regressor", "features", "latent"])
class TestWrapped:
    def test_it_comes_back_as_the_same_function(self, tmp_path, denoiser, kind):
        model, said = wrapped(kind, denoiser)
        manifest = save(tmp_path / "net", model, kind=kind, **said)
        back = load(tmp_path / "net")
        assert type(back) is type(model)
        assert torch.equal(answer(back), answer(model.eval()))
        assert manifest == read_manifest(tmp_path / "net")
        assert manifest.kind == kind

    def test_its_network_is_there_to_start_from(self, tmp_path, denoiser, kind):
        model, said = wrapped(kind, denoiser)
        save(tmp_path / "net", model, kind=kind, **said)
        mine = build(said["name"], **said["config"])
        mine.load_state_dict(load_network(tmp_path / "net").state_dict())
        inner = model.get_submodule({"latent": "denoiser.network", "features": "maps.network"}.get(kind, "network"))
        assert all(torch.equal(a, b) for a, b in zip(mine.parameters(), inner.parameters(), strict=True))

    def test_another_model_is_refused(self, tmp_path, denoiser, kind):
        _, said = wrapped(kind, denoiser)
        with pytest.raises(InputError, match=r"model: expected (a )?(Regressor|PooledFeatures|LatentDiffusion)"):
            save(tmp_path / "net", build(said["name"], **said["config"]), kind=kind, **said)


def test_every_part_of_a_latent_checkpoint_is_proved(tmp_path, denoiser):
    model, said = wrapped("latent", denoiser)
    save(tmp_path / "net", model, kind="latent", **said)
    path = tmp_path / "net" / "autoencoder.safetensors"
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"autoencoder\.safetensors: damaged"):
        load(tmp_path / "net")
    other = {"autoencoder": {"name": "autoencoder-kl", "config": VAE | {"latent_channels": 2}}}
    with pytest.raises(InputError, match="other tensors than model"):
        save(tmp_path / "x", model, kind="latent", **said | {"facts": other})
    with pytest.raises(InputError, match="expected scale and the autoencoder's name and config"):
        save(tmp_path / "x", model, kind="latent", name="patch-unet", config=CONFIG)


def test_manifests_without_facts_are_read(tmp_path):
    """As they were written before kinds had facts of their own."""
    save(tmp_path / "net", build("cnn", **CNN), name="cnn", config=CNN)
    values = json.loads((tmp_path / "net/cfx.json").read_text())
    del values["facts"], values["sha256"]
    (tmp_path / "net/cfx.json").write_text(json.dumps(values | {"sha256": digest(values)}))
    assert load(tmp_path / "net")(torch.zeros(1, 1, 16, 16)).shape == (1, 2)

"""Networks of MONAI and diffusers become checkpoints that give back the same function."""

import pytest
import torch

from cfx.core.errors import CfxError
from cfx.models import NetworkSpec, load, open_network, read_manifest
from cfx.models.importing import import_network
from cfx.models.registry import BUILDERS, kind
from tests.models import test_folders
from tests.models.networks import keywords, randomise, small
from tests.models.test_others import answer

NAMES = sorted(name for name in BUILDERS if kind(name) in ("denoiser", "vae", "classifier") and name != "shape-vae")
SCHEDULE = {"schedule": "cosine", "num_train_timesteps": 500}


def described(name, path):
    """A state dict of random weights, and its description."""
    network = randomise(small(name))
    torch.save(network.network.state_dict() if name == "diffusers-autoencoder-kl" else network.state_dict(), path)
    schedule = SCHEDULE if kind(name) == "denoiser" else None
    return NetworkSpec(path=str(path), network=name, keywords=keywords(name), schedule=schedule)


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_becomes_a_checkpoint(name, tmp_path):
    spec = described(name, tmp_path / "weights.pt")
    manifest = import_network(spec, tmp_path / "net")
    assert (manifest.name, manifest.kind) == (name, kind(name))
    assert "weights.pt" in manifest.provenance["files"]
    role = {"denoiser": "generator", "vae": "autoencoder", "classifier": "classifier"}[kind(name)]
    x = torch.randn(2, 1, 16, 16)
    torch.testing.assert_close(answer(name, load(tmp_path / "net"), x), answer(name, open_network(spec, role), x))
    assert read_manifest(tmp_path / "net") == manifest


def test_old_keywords_are_kept_as_today_s(tmp_path):
    spec = described("monai-diffusion-unet", tmp_path / "weights.pt")
    old = {("num_channels" if k == "channels" else k): v for k, v in spec.keywords.items()}
    assert import_network(spec.model_copy(update={"keywords": old}), tmp_path / "net").config["channels"] == [8, 16]


def test_classes_and_findings_are_kept(tmp_path):
    spec = described("monai-densenet121", tmp_path / "weights.pt")
    import_network(spec, tmp_path / "net", classes=("a", "b", "c"), multilabel=True)
    with pytest.raises(CfxError, match="one finding at a time; name one among 0 a, 1 b, 2 c"):
        open_network(tmp_path / "net")


def test_a_folder_of_a_unet_becomes_a_generator(tmp_path):
    test_folders.saved(test_folders.unet(num_class_embeds=3), tmp_path / "unet")
    test_folders.saved(test_folders.scheduler(), tmp_path / "scheduler")
    spec, x = NetworkSpec(path=str(tmp_path / "unet"), labels=2), torch.randn(2, 1, 16, 16)
    import_network(spec, tmp_path / "net", classes=("a", "b"))
    found, theirs = load(tmp_path / "net"), open_network(spec, "generator")
    assert (found.classes, found.shape, found.schedule.prediction) == (2, (1, 16, 16), "v")
    with torch.no_grad():
        torch.testing.assert_close(found(x, 9, torch.tensor([0, 1])).mean, theirs(x, 9, torch.tensor([0, 1])).mean)


def test_a_latent_pipeline_becomes_a_latent_generator(tmp_path):
    parts = {"unet": test_folders.unet(in_channels=2, out_channels=2, sample_size=8), "vae": test_folders.vae()}
    for name, part in (parts | {"scheduler": test_folders.scheduler()}).items():
        test_folders.saved(part, tmp_path / "pipe" / name)
    spec, x = NetworkSpec(path=str(tmp_path / "pipe")), torch.randn(2, 1, 16, 16)
    assert import_network(spec, tmp_path / "net").kind == "latent"
    found, theirs = load(tmp_path / "net"), open_network(spec, "generator")
    with torch.no_grad():
        z = theirs.encode(x)
        torch.testing.assert_close(found.encode(x), z)
        torch.testing.assert_close(found.decode(z), theirs.decode(z))
        torch.testing.assert_close(found(z, 9).mean, theirs(z, 9).mean)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": None}, "source.network: expected the registry name"),
        ({"pixels": {"range": (0, 1)}}, "source.pixels: a checkpoint keeps the network alone"),
        ({"output": {"kind": "binary"}}, "source.output: a checkpoint keeps the network alone"),
        ({"path": "nowhere"}, "source.path: expected a state dict or a folder of diffusers, got 'nowhere'"),
        ({"path": "tests.models.kinds:plain"}, "source.path: expected a state dict or a folder of diffusers"),
        ({"keywords": {"spatial_dims": 2}}, "network monai-densenet121: "),
    ],
)
def test_what_no_name_builds_again_is_refused(change, message, tmp_path):
    spec = described("monai-densenet121", tmp_path / "weights.pt")
    with pytest.raises(CfxError, match=message):
        import_network(NetworkSpec(**spec.model_dump() | change), tmp_path / "net")
    assert not (tmp_path / "net").exists()

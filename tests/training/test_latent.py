"""Latent diffusion is diffusion of standardised codes, and its checkpoint brings its autoencoder along."""

import shutil

import pytest
import torch

from cfx.core.denoiser import Latent
from cfx.core.errors import CheckpointError, InputError
from cfx.models import load, read_manifest
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.objectives import Batch
from tests.training.toys import OBJECTIVES, toy_cohort, toy_config


@pytest.fixture(scope="module", params=[(8, 8), (8, 8, 8)], ids=["2d", "3d"])
def cohort(request):
    return toy_cohort(24, request.param)


@pytest.fixture(scope="module")
def autoencoder(cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vae")
    return train(toy_config(folder, "vae", steps=10, optimizer={"lr": 1e-2, "warmup": 0}), cohort).checkpoint


def latent_config(out, autoencoder, **more):
    return toy_config(out, "latent", objective=OBJECTIVES["latent"] | {"autoencoder": str(autoencoder)}, **more)


def test_codes_are_of_unit_variance(tmp_path, cohort, autoencoder):
    objective = make_objective(latent_config(tmp_path, autoencoder), cohort)
    batch = Batch(cohort.x, cohort.y, torch.arange(24), 0, 0, torch.arange(24))
    z = objective.encoded(batch).x
    assert z.shape[1:] == (2, *[4] * len(cohort.space))
    assert float(z.std()) == pytest.approx(1, rel=1e-4)
    assert torch.allclose(z / objective.scale, load(autoencoder).encode(cohort.x)[0], atol=1e-5)


def test_it_comes_back_whole_without_the_autoencoders_folder(tmp_path, cohort, autoencoder):
    copy = tmp_path / "vae"
    shutil.copytree(autoencoder, copy)
    result = train(latent_config(tmp_path / "run", copy, steps=3), cohort)
    shutil.rmtree(copy)
    generator = load(result.checkpoint)
    assert isinstance(generator, Latent)
    assert (generator.classes, generator.shape, generator.training) == (2, cohort.shape, False)
    z = generator.encode(cohort.x)
    assert torch.allclose(generator.decode(z), load(autoencoder)(cohort.x)[0], atol=1e-5)
    assert generator(z, 10, cohort.y).mean.shape == z.shape
    manifest = read_manifest(result.checkpoint)
    assert manifest.kind == "latent"
    assert set(manifest.files) == {"model.safetensors", "autoencoder.safetensors", "scheduler_config.json", "README.md"}
    assert manifest.classes == ("dark", "bright")


def test_it_learns(tmp_path, cohort, autoencoder):
    first = train(latent_config(tmp_path / "a", autoencoder, steps=1, optimizer={"lr": 1e-9}), cohort).figures["loss"]
    fast = {"steps": 40, "optimizer": {"lr": 1e-2, "warmup": 0}}
    assert train(latent_config(tmp_path / "b", autoencoder, **fast), cohort).figures["loss"] < 0.9 * first


def test_parts_of_a_batch_are_the_batch(tmp_path, cohort, autoencoder):
    one, four = (
        train(latent_config(tmp_path / str(k), autoencoder, steps=4, accumulate=k), cohort).figures for k in (1, 4)
    )
    assert one == pytest.approx(four, rel=1e-4)


def test_what_is_no_autoencoder_is_refused(tmp_path, cohort, autoencoder):
    classifier = train(toy_config(tmp_path / "c", "classifier", steps=1), cohort).checkpoint
    with pytest.raises(InputError, match="expected an autoencoder's checkpoint"):
        make_objective(latent_config(tmp_path, classifier), cohort)
    with pytest.raises(CheckpointError, match="missing"):
        make_objective(latent_config(tmp_path, tmp_path / "none"), cohort)

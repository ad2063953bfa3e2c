"""A latent generator from the command line: autoencoder, diffusion of its codes, classifier, explanation and bench."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cfx.atlas import Atlas
from cfx.cli import app
from cfx.core.denoiser import Latent
from cfx.models import load

SIZE, SETTINGS = 32, {"steps": 4}


def cfx(words: list[str], file: Path, values: dict) -> None:
    """A command with its YAML file."""
    file.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, [*words, str(file)])
    assert result.exit_code == 0, result.output


def training(folder: Path, name: str, dims: int, network: dict, objective: dict) -> None:
    """Train a few steps on simulated brains."""
    data = {"kind": "brain", "n": 8, "seed": 3, "dims": dims, "size": SIZE}
    values = {"name": name, "out": str(folder / name), "data": data, "validation": 0.0, "network": network}
    values |= {"objective": objective, "batch_size": 4, "steps": 4, "optimizer": {"lr": 1e-2, "warmup": 0}}
    cfx(["train"], folder / f"{name}.yaml", values)


@pytest.fixture(scope="module", params=[2, 3], ids=["2d", "3d"])
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    """Checkpoints of an autoencoder, a generator of its codes and a classifier, in a folder."""
    dims, folder = request.param, tmp_path_factory.mktemp("latent")
    coarse = {"channels": [4, 8], "attention": [False, False]}
    training(
        folder, "vae", dims, {"name": "autoencoder-kl", "patch": 2, "latent_channels": 2, **coarse}, {"kind": "vae"}
    )
    objective = {"kind": "latent", "autoencoder": str(folder / "vae/checkpoint"), "classes": 2}
    training(folder, "generator", dims, {"name": "unet", "channels": [8], "attention": [False]}, objective)
    training(folder, "classifier", dims, {"name": "cnn", "channels": [4, 8]}, {"kind": "classifier"})
    return dims, folder


def run_of(trained: tuple[int, Path], out: Path) -> dict:
    """What an explanation and a bench have in common."""
    dims, folder = trained
    networks = {name: str(folder / name / "checkpoint") for name in ("classifier", "generator")}
    data = {"kind": "brain", "n": 3, "seed": 9, "dims": dims, "size": SIZE}
    return {"name": "latent", "out": str(out), "data": data, "batch_size": 2, **networks}


def test_the_checkpoint_is_a_latent_generator(trained: tuple[int, Path]) -> None:
    dims, folder = trained
    generator = load(folder / "generator/checkpoint")
    assert isinstance(generator, Latent)
    assert generator.shape == (1, *[SIZE] * dims)
    assert generator.encode(torch.zeros(1, *generator.shape)).shape == (1, 2, *[SIZE // 4] * dims)


def test_explain(trained: tuple[int, Path], tmp_path: Path) -> None:
    cfx(["explain"], tmp_path / "explain.yaml", run_of(trained, tmp_path / "out"))
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["n"] == 3
    assert summary["null_edit_error"] < 1e-5  # the codes of the untouched image stand for the image itself
    assert summary["outside_mask_error"] == 0
    found = Atlas(tmp_path / "out/atlas.zarr").read()
    assert found.x_cf.shape == (3, 1, *[SIZE] * trained[0])
    assert (found.nfe_unet_forward > 0).all()
    assert (tmp_path / "out/report.html").stat().st_size > 0


@pytest.mark.parametrize("trained", [2], indirect=True, ids=["2d"])
def test_bench(trained: tuple[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cfx.commands.bench.counterfactual.draw", lambda *_: b"")
    methods = [{"method": "minimal", "settings": SETTINGS, "reversible": True}]
    cfx(["bench", "counterfactual"], tmp_path / "bench.yaml", run_of(trained, tmp_path / "out") | {"methods": methods})
    rows = json.loads((tmp_path / "out/results.json").read_text())
    (row,) = [row for row in rows if row["method"] == "minimal"]
    assert "error" not in row
    assert row["n"] == 3

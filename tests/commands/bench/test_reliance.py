"""The bench of the reliance test on tiny settings: what it writes, and that its nulls are nulls."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cfx.atlas import read_atlas
from cfx.cli import app
from cfx.commands.bench.reliance import Design, RelianceBench, run_reliance, simulated_null
from cfx.confounder.intervention import Scores
from cfx.runtime.config import read_as


def tiny(out: Path) -> RelianceBench:
    values = {
        "name": "tiny", "out": str(out), "simulations": 20, "trained": 2, "images": 8, "seeds": 3, "pool": 3,
        "subsets": 5, "q": [1.0], "strength": [1.0],
        "designs": [{"networks": 4, "images": 20, "donors": 10, "s_seed": 0.1, "s_donor": 0.2}],
        "controls": [{"truth": 0.5, "networks": 3, "images": 8, "donors": 4}],
        "train": {
            "name": "net", "network": {"name": "cnn", "channels": [4, 8]}, "objective": {"kind": "classifier"},
            "data": {"kind": "brain", "n": 16, "seed": 4, "size": 32}, "batch_size": 8, "steps": 2, "ema": None,
        },
    }  # fmt: skip
    return RelianceBench.model_validate(values)


def test_all_three_parts_are_written(tmp_path: Path) -> None:
    rows = run_reliance(tiny(tmp_path))
    assert [row["part"] for row in rows] == ["simulated", "controls", "trained", "power"]
    assert json.loads((tmp_path / "results.json").read_text()) == rows
    assert "| simulated | 4 | 20 | 10 |" in (tmp_path / "table.md").read_text()
    assert (tmp_path / "figure.png").stat().st_size > 1000
    assert "| 0.5 | 0.0 | 0.0 | 3 | 8 | 4 | 20 |" in (tmp_path / "table.md").read_text()
    for name, images in (("null-0", 8), ("null-1", 8), ("tag-1-1", 16)):
        scores = read_atlas(tmp_path / name / "atlas.zarr", Scores)
        assert (len(scores), scores.networks) == (images, 3)
    effect = (scores.arm("opposite") - scores.arm("same")).double().mean()
    assert rows[-1]["effect"] == pytest.approx(float(effect))
    assert run_reliance(tiny(tmp_path)) == rows  # networks are kept, and nothing depends on when it ran


def test_the_crossed_test_keeps_its_level_where_others_do_not() -> None:
    row = simulated_null(Design(networks=8, images=60, donors=30, s_seed=0.2, s_donor=0.4), 400, seed=5)
    assert row["inside"]
    assert row["images_only"] > row["band_high"]
    assert row["pooled"] > 5 * row["band_high"]


def test_the_committed_bench_is_valid(tmp_path: Path) -> None:
    config = read_as(RelianceBench, "configs/bench/reliance.yaml")
    assert config.trained >= 40
    assert config.simulations >= 400
    (tmp_path / "bad.yaml").write_text("name: x\ndesigns: []\n")
    assert CliRunner().invoke(app, ["bench", "reliance", str(tmp_path / "bad.yaml")]).exit_code == 2


@pytest.fixture(autouse=True)
def _same_threads() -> None:
    torch.set_num_threads(1)

"""Whole runs of out-of-distribution detection: the files, resuming, what is warned of, what a check says, refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cfx.atlas import read_atlas
from cfx.cli import app
from cfx.commands.check import check
from cfx.commands.filling import lines
from cfx.commands.ood import SHOWN, OodConfig, ood_run
from cfx.core.errors import AtlasError, CfxWarning, InputError
from cfx.core.statistics import wilson_interval
from cfx.ood import Membership, OodScores, fit
from tests.ood.detectors import GaussianGenerator

GENERATOR = "tests.ood.detectors:GaussianGenerator"


def brains(n: int, start: int = 0, **more) -> dict:
    return {"kind": "brain", "n": n, "seed": 3, "start": start, "size": 16} | more


SETTINGS = {"levels": [0.3, 0.6], "clean": []}


def values(out: Path, **changes) -> dict:
    base = {
        "name": "run",
        "out": str(out),
        "generator": GENERATOR,
        "level": 0.1,
        "settings": {"levels": [0.3, 0.6], "clean": []},
    }
    return base | {"data": brains(5), "reference": brains(40, 100), "batch_size": 2} | changes


def config(out: Path, **changes) -> OodConfig:
    return OodConfig.model_validate(values(out, **changes))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("ood")
    return folder, ood_run(config(folder), "cfx ood run.yaml")


def test_a_run_leaves_a_whole_folder(run):
    folder, found = run
    summary = json.loads((folder / "summary.json").read_text())
    assert summary == json.loads(json.dumps(found))
    assert {"n", "out", "out_share", "level", "detector", "calibrated", "seconds_per_image"} <= summary.keys()
    assert (summary["out_share_low"], summary["out_share_high"]) == wilson_interval(summary["out_share"], 5)
    assert (summary["n"], summary["calibrated"], summary["nfe_unet_forward"]) == (5, 20, 2.0)
    assert f"{found['out']} of 5 images" in (folder / "report.html").read_text()
    assert yaml.safe_load((folder / "config.yaml").read_text())["settings"] == SETTINGS


def test_the_rows_are_those_that_python_gives(run):
    from cfx.commands.ood import built
    from cfx.data import load_cohort

    rows = read_atlas(run[0] / "atlas.zarr", OodScores)
    made = fit(
        load_cohort(brains(40, 100)), built("denoising", SETTINGS), generator=GaussianGenerator(),
        level=0.1,
    ).score(load_cohort(brains(5)))  # fmt: skip
    assert torch.allclose(rows.score, made.score, rtol=1e-4)
    assert torch.equal(rows.p, made.p)
    assert rows.row.tolist() == [0, 1, 2, 3, 4]
    assert ((rows.p <= 0.1) == (rows.verdict == int(Membership.OUT))).all()


def test_the_same_run_goes_on_and_another_is_refused(run, monkeypatch):
    folder, found = run
    asked = []
    monkeypatch.setattr("cfx.atlas.Atlas.write", lambda *_: asked.append(1))
    assert ood_run(config(folder))["out"] == found["out"]
    assert asked == []
    with pytest.raises(AtlasError, match="another run"):
        ood_run(config(folder, seed=1))


def test_the_first_rows_alone(tmp_path):
    assert ood_run(config(tmp_path, rows=2, resume=False))["n"] == 2


def test_images_that_were_fitted_to_are_named(tmp_path):
    with pytest.warns(CfxWarning, match=r"reference: images to score are among .*brain-3-100"):
        ood_run(config(tmp_path, data=brains(3, 100), rows=1))
    assert "brain-3-100" in (tmp_path / "report.html").read_text()


def test_too_few_calibration_images_for_the_level_are_named(tmp_path):
    with pytest.warns(CfxWarning, match="calibration: 20 images make no p-value below"):
        found = ood_run(config(tmp_path, level=0.01, rows=1))
    assert found["out"] == 0


def test_calibration_images_may_be_given(tmp_path):
    found = ood_run(config(tmp_path, calibration=brains(24, 300), rows=1))
    assert found["calibrated"] == 24


def test_a_network_that_is_not_there_is_named(tmp_path):
    with pytest.raises(InputError, match=r"denoising: expected .*generator"):
        ood_run(config(tmp_path, generator=None))


def test_a_check_says_what_would_be_done_and_writes_nothing(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path / "out")))
    words, problems = check(path, {})
    assert "cfx ood" in words
    assert "5 images by denoising, calibrated on 20 at level 0.1" in words
    assert "GaussianGenerator" in words
    assert problems == []
    assert not (tmp_path / "out").exists()
    with pytest.raises(InputError, match="expected generator in the configuration"):
        check(path, {"generator": "null"})
    _, problems = check(path, {"data.start": "100"})
    assert "among those fitted to" in problems[0]


def test_the_shipped_configuration_is_one_for_this_verb():
    from cfx.commands.config import verb_of

    for path in Path("configs/ood").glob("*.yaml"):
        assert verb_of(path)[0] == "ood"


def test_the_console_says_it_in_lines(run):
    text = "\n".join(lines(SHOWN, run[1]))
    assert "out of distribution" in text
    assert "calibrated on" in text


def test_a_wrong_detector_is_one_line_of_error(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path / "out", detector="denoise")))
    found = CliRunner().invoke(app, ["ood", str(path)])
    assert found.exit_code == 2
    assert "detector: expected one of" in found.output


def test_two_processes_write_the_same_rows_bit_for_bit(run, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path / "out")))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "cfx"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    done = subprocess.run(
        [*launch, "ood", str(path)], capture_output=True, text=True, env=environment, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    alone, shared = (read_atlas(folder / "atlas.zarr", OodScores) for folder in (run[0], tmp_path / "out"))
    for name in ("score", "p", "map", "row"):
        assert torch.equal(getattr(alone, name), getattr(shared, name)), name
    assert done.stdout.count("wrote") == 1

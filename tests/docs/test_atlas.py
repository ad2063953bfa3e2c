"""The page on atlases: its blocks run as they stand, and what it says of its files is so."""

import re
import shlex

import nibabel
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from cfx.atlas import write_atlas
from cfx.cli import app
from cfx.counterfactual.result import Counterfactuals
from cfx.data.config import load_cohort
from cfx.data.nifti import NiftiConfig

BLOCK = re.compile(r"```(python|sh)\n(.*?)```", re.DOTALL)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The folder in which the page is read: scans stored LPS with a slope, and a run that explained them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scans").mkdir()
    (tmp_path / "runs/mine").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for k in range(4):
        image = nibabel.Nifti1Image(rng.integers(0, 900, (16, 14, 12)).astype(np.int16), np.diag([-1.5, -1.5, 2, 1]))
        image.header.set_slope_inter(0.5, -100)
        nibabel.save(image, tmp_path / f"scans/sub-{k}.nii.gz")
    cohort = load_cohort(NiftiConfig(path=tmp_path / "scans", spacing=2.0))
    sizes = {"c": 1, "space": cohort.space, "k": 2}
    blank = Counterfactuals.blank(4, sizes, depth="typical", seed=0, x=cohort.x, row=torch.arange(4))
    x_cf = cohort.x.clone()
    x_cf[:, :, 4:8, 3:7, 5:9] *= -0.5
    result = blank.replace(x_cf=x_cf, edited=x_cf != cohort.x)
    write_atlas("runs/mine/atlas.zarr", result, cohort)
    return tmp_path


def test_the_blocks_of_the_page_run(root, mine, capsys):
    names: dict = {}
    blocks = BLOCK.findall((root / "docs/atlas.md").read_text())
    assert [kind for kind, _ in blocks] == ["python", "python", "sh", "python"]
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "docs/atlas.md", "exec"), names)
            continue
        for line in text.strip().splitlines():
            done = CliRunner().invoke(app, shlex.split(line)[1:])
            assert done.exit_code == 0, done.output
    assert names["sagittal"].dims == ("front", "top")
    assert np.array_equal(names["sagittal"].values, names["one"].counterfactual.values[0, 7])
    assert "('channel', 'right', 'front', 'top')" in capsys.readouterr().out
    assert names["edited"].any()
    assert names["in_file_units"].shape == names["result"].x_cf.shape[1:]
    for kind, suffix in (("grid", ".nii.gz"), ("native", ".nii.gz"), ("png", ".png")):
        files = {path.name.removesuffix(suffix) for path in (mine / "out" / kind / "sub-2").iterdir()}
        assert files == {"x", "x_cf", "difference", "edited"}


def test_the_page_names_the_arrays_of_an_atlas(root, mine):
    """Every array of the run's atlas stands in the table of the page, by name or as one of several."""
    table = (root / "docs/atlas.md").read_text().split("## In xarray")[0]
    named = {name.removesuffix("*") for name in re.findall(r"`([\w.*]+)`", table)}
    arrays = {path.name for path in (mine / "runs/mine/atlas.zarr").iterdir() if path.is_dir()}
    several = {"nfe_unet_forward", "nfe_unet_backward", "nfe_classifier", "nfe_classifier_backward", "seconds",
               "margin_after", "smaller", "consent"}  # fmt: skip
    assert {name for name in arrays - several if not any(name.startswith(known) for known in named)} == set()

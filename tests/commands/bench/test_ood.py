"""A whole bench of detectors on a tiny ladder: files, keys, what interrupted benches keep, who cannot run."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cfx.atlas import read_atlas
from cfx.commands.bench.ood import Bench, OodBench, run_bench
from cfx.core.errors import InputError
from cfx.ood import OodScores
from cfx.runtime.config import read_as
from cfx.runtime.processes import make_accelerator

GENERATOR = "tests.ood.detectors:GaussianGenerator"
RUNGS = ("gamma-low", "noise-6", "bias-4", "dark-lesion", "cortical-lesion", "tag")
KEYS = {
    "method", "n", "auroc_near", "auroc_near_min", "auroc_far", "fpr95_near", "false_alarm_tolerated",
    "nfe_unet_forward", "seconds_per_image", "comparisons", "shift.tag.auroc", "shift.tag.auroc_low",
    "shift.tag.auroc_high", "shift.tag.development", "map_auprc", "map_base_rate", "shift.cortical-lesion.map_auprc",
}  # fmt: skip


def config(out: Path, **changes) -> OodBench:
    values = {
        "name": "bench", "out": str(out), "generator": GENERATOR,
        "data": {"kind": "brain", "n": 6, "seed": 5, "size": 16},
        "reference": {"kind": "brain", "n": 30, "seed": 6, "size": 16},
        "ladder": {"rungs": list(RUNGS)},
        "shifts": {"bricks": {"kind": "far", "made": "textures"}},
        "methods": [
            {"detector": "denoising", "settings": {"levels": [0.3, 0.6], "clean": []}},
            {"detector": "denoising", "label": "few", "settings": {"levels": [0.5], "clean": []}, "rows": 4},
        ],
    }  # fmt: skip
    return OodBench.model_validate(values | changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict]]:
    folder = tmp_path_factory.mktemp("bench")
    return folder, run_bench(config(folder), "cfx bench ood it.yaml")


def test_a_bench_leaves_a_row_a_method_ours_first(run):
    folder, rows = run
    assert json.loads((folder / "results.json").read_text()) == rows
    assert [row["method"] for row in rows] == ["denoising", "few"]
    assert rows[0].keys() >= KEYS
    assert (rows[0]["n"], rows[1]["n"]) == (6, 4)
    assert (rows[0]["nfe_unet_forward"], rows[1]["nfe_unet_forward"]) == (2.0, 1.0)
    assert rows[0]["comparisons"] == {}
    assert rows[1]["comparisons"]["denoising"]["n"] == 4
    assert {"difference", "low", "high", "verdict"} == rows[1]["comparisons"]["denoising"]["auroc_near"].keys()
    for name in (*RUNGS, "bricks"):
        low, value, high = (rows[0][f"shift.{name}.auroc{end}"] for end in ("_low", "", "_high"))
        assert 0 <= low <= value <= high <= 1


def test_shifts_for_development_are_in_no_mean(run):
    row = run[1][0]
    near = [row[f"shift.{name}.auroc"] for name in ("cortical-lesion", "tag")]
    assert row["auroc_near"] == pytest.approx(sum(near) / 2)
    assert row["auroc_near_min"] == min(near)
    assert row["shift.dark-lesion.development"] is True
    assert row["auroc_beyond"] == row["shift.noise-6.auroc"]
    assert row["false_alarm_tolerated"] == row["shift.gamma-low.out"]


def test_table_and_figures_say_the_same(run):
    folder, rows = run
    text = (folder / "table.md").read_text()
    assert "Command: `cfx bench ood it.yaml`" in text
    assert f"{rows[0]['auroc_near']:.3f}" in text
    assert "dark-lesion *" in text
    assert "against" in text
    for name in ("figure.png", "maps.png"):
        assert (folder / name).read_bytes()[:4] == b"\x89PNG"


def test_maps_are_kept_where_something_was_planted(run):
    rows = run[0] / "rows" / "denoising"
    assert read_atlas(rows / "cortical-lesion.zarr", OodScores).map is not None
    assert read_atlas(rows / "tag.zarr", OodScores).map is None
    assert read_atlas(rows / "in-distribution.zarr", OodScores).map is None


def test_an_interrupted_bench_makes_what_is_missing_and_the_same_rows(run, monkeypatch):
    folder, rows = run
    made = []
    usual = Bench.fit
    monkeypatch.setattr(Bench, "fit", lambda self, method: made.append(method.name) or usual(self, method))
    shutil.rmtree(folder / "rows/few/tag.zarr")
    again = run_bench(config(folder), "cfx bench ood it.yaml")
    assert made == ["few"]
    skipped = {"seconds_per_image"}
    assert [{k: v for k, v in row.items() if k not in skipped} for row in again] == [
        {k: v for k, v in row.items() if k not in skipped} for row in rows
    ]


def test_a_method_that_cannot_run_is_a_row_that_says_why(tmp_path):
    methods = [{"detector": "denoising", "label": "ours"}, {"detector": "denoising", "generator": "no/such"}]
    rows = run_bench(config(tmp_path, methods=methods, ladder=None, rows=3))
    assert [("error" in row, row["n"]) for row in rows] == [(False, 3), (True, 0)]
    assert "no/such" in rows[1]["error"]
    assert "could not run" in (tmp_path / "table.md").read_text()


def test_a_method_asks_its_own_networks_or_those_of_the_bench_that_it_needs(tmp_path):
    given = config(tmp_path, classifier="checkpoints/brain64-classifier", rows=2)
    bench = Bench(given, make_accelerator())
    assert set(bench.networks(given.methods[0])) == {"generator"}
    own = given.methods[0].model_copy(update={"generator": "other"})
    assert bench.networks(own)["generator"] == "other"


def test_two_methods_of_one_name_are_refused(tmp_path):
    with pytest.raises(ValueError, match="distinct labels"):
        config(tmp_path, methods=[{"detector": "denoising"}] * 2)
    with pytest.raises(InputError, match="detector: expected one of"):
        run_bench(config(tmp_path, methods=[{"detector": "none"}]))


def test_the_shipped_configurations_are_of_this_bench():
    for path in sorted(Path("configs/bench").glob("*ood.yaml")):
        assert torch.tensor(read_as(OodBench, path).level) == 0.05

"""A whole bench of tiny untrained samplers: files, keys, what is kept, who cannot run, controls, a known truth."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from cfx.commands.bench import segmentation
from cfx.commands.bench.segmentation import SegmentationBench, run_bench
from cfx.core.errors import InputError
from cfx.models import build, save
from cfx.runtime.config import read_as

KEYS = {
    "method", "n", "ged_4", "ged_16", "ged_debiased", "ci_4", "d_max_4", "diversity", "nfe_unet_forward",
    "samples_per_second", "train_steps", "ged_4_low", "ged_4_high", "ged_debiased_low", "ged_debiased_high",
    "hm_iou_16", "ci_16", "d_max_16", "reader_diversity", "diversity_ratio", "reader_ece", "empty_ece", "parameters",
    "seconds", "truth_ged", "truth_ratio_4",
}  # fmt: skip
TINY = {
    "spatial_dims": 2,
    "in_channels": 1,
    "channels": (8, 8),
    "attention": (False, False),
    "features": 4,
    "hidden": 8,
}
TIMES = ("seconds", "samples_per_second")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("bench")
    for k, name in enumerate(("one", "two")):
        torch.manual_seed(k)
        save(found / name, build("mask-energy", **TINY), name="mask-energy", config=TINY, shape=(1, 32, 32),
             classes=("background", "lesion"), provenance={"steps": 10 + k})  # fmt: skip
    return found


def config(folder: Path, **changes) -> SegmentationBench:
    values = {
        "name": "it", "out": str(folder / "run"), "data": {"kind": "brain-readers", "n": 8, "seed": 3, "size": 32},
        "reference": {"kind": "brain-readers", "n": 6, "seed": 4, "size": 32}, "truth": 12,
        "methods": [
            {"name": "energy", "segmenter": str(folder / "one"), "samples": [16, 4]},
            {"name": "slow", "segmenter": str(folder / "two"), "rows": 5},
            {"name": "gone", "segmenter": str(folder / "none")},
        ],
        "controls": ["nearest", "majority", "union", "one-reader", "truth"],
    }  # fmt: skip
    return SegmentationBench.model_validate(values | changes)


@pytest.fixture(scope="module")
def run(folder) -> list[dict]:
    return run_bench(config(folder), "cfx bench segmentation it.yaml")


def test_a_bench_leaves_a_row_a_method_ours_first(folder, run):
    out = config(folder).folder
    assert json.loads((out / "results.json").read_text()) == run
    names = ["energy", "slow", "gone", "nearest", "majority", "union", "one-reader", "truth"]
    assert [row["method"] for row in run] == names
    assert run[0].keys() >= KEYS
    assert (run[0]["n"], run[1]["n"]) == (8, 5)
    assert (run[0]["train_steps"], run[1]["train_steps"]) == (10, 11)
    assert run[0]["parameters"] == sum(p.numel() for p in build("mask-energy", **TINY).parameters())
    assert run[0]["nfe_unet_forward"] == 1
    assert run[0]["samples_per_second"] == pytest.approx(16 / run[0]["seconds"])
    assert run[1]["n_vs_ours"] == 5
    assert "ged_debiased_vs_ours_low" in run[1]
    assert "cfx.json: missing" in run[2]["error"]
    assert "Command: `cfx bench segmentation it.yaml`" in (out / "table.md").read_text()
    assert (out / "figure.png").read_bytes()[:4] == b"\x89PNG"


def test_controls_are_what_they_say(run):
    rows = {row["method"]: row for row in run}
    for name in ("majority", "union"):
        assert rows[name]["diversity"] == 0
    assert rows["one-reader"]["ged_16"] < rows["energy"]["ged_16"]
    assert rows["one-reader"]["ged_debiased"] < 0.05
    assert rows["truth"]["truth_ged"] < 0.1 < rows["energy"]["truth_ged"]
    assert rows["truth"]["empty_ece"] < 0.3
    assert not rows["energy"]["control"]
    assert rows["nearest"]["control"]


def figures(rows: list[dict]) -> list[dict]:
    """Rows without what a clock says."""
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def test_an_interrupted_bench_draws_what_is_missing_and_the_same(folder, run, monkeypatch):
    drawn = []
    usual = segmentation.sample_masks
    monkeypatch.setattr(segmentation, "sample_masks", lambda x, *a, **k: drawn.append(len(x)) or usual(x, *a, **k))
    shutil.rmtree(config(folder).folder / "rows/slow.zarr")
    again = run_bench(config(folder))
    assert drawn == [5]
    assert figures(again) == figures(run)
    assert again[0]["seconds"] == run[0]["seconds"]
    config_of_others = config(folder, seed=1, controls=[], methods=[{"name": "slow", "segmenter": str(folder / "one")}])
    run_bench(config_of_others)
    assert drawn == [5, 8]


def test_what_cannot_be_compared_is_refused(folder):
    with pytest.raises(ValueError, match="distinct names"):
        config(folder, controls=["truth", "truth"])
    with pytest.raises(ValueError, match="reference: expected training images"):
        config(folder, reference=None)
    with pytest.raises(ValueError, match="truth: expected data of kind brain-readers"):
        config(folder, data={"kind": "brain", "n": 4})
    plain = {"data": {"kind": "brain", "n": 4, "size": 32}, "truth": None, "controls": []}
    with pytest.raises(InputError, match="two readers or more"):
        run_bench(config(folder, **plain))


def test_a_network_of_other_labels_is_a_row_that_says_so(folder):
    rows = run_bench(config(folder, name="labels", classes=3, controls=[], truth=None, out=str(folder / "labels")))
    assert "classes: expected those of the bench, 3, got 2" in rows[0]["error"]


def test_the_shipped_configurations_are_of_this_bench():
    names = ("lidc64-segmentation", "brain64-readers", "quick-segmentation")
    found = {name: read_as(SegmentationBench, Path(f"configs/bench/{name}.yaml")) for name in names}
    assert all(bench.methods[0].name == "energy" for bench in found.values())
    assert found["brain64-readers"].truth is not None
    slow = {m.name for m in found["lidc64-segmentation"].methods if m.rows}
    assert {"cimd", "ddpm-det", "ddpm-prob"} <= slow

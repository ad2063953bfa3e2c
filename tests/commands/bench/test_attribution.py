"""A whole bench of attributions on tiny networks: rows, keys, what is kept, and that the table has them."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from cfx.commands.bench import attribution as bench
from cfx.commands.bench.attribution import AttributionBench, AttributionMethod, run_attribution
from cfx.counterfactual import explain
from tests.tiny import SIZE, checkpoints

METHODS = [
    {"method": "difference", "baseline": "counterfactual", "label": "difference"},
    {"method": "input-x-gradient", "baseline": "counterfactual", "label": "gradient-x-change"},
    {"method": "input-x-gradient"},
    {"method": "saliency", "rows": 3},
    {"method": "random"},
]
KEYS = {
    "method", "family", "n", "classifiers", "verdicts", "auprc", "auprc_low", "auprc_high", "auprc_base", "insertion",
    "deletion", "insertion_cf", "deletion_cf", "faithfulness", "faithfulness_cf", "infidelity", "nfe_unet_forward",
    "nfe_classifier", "seconds_per_image", "pointing",
}  # fmt: skip


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> AttributionBench:
    folder = tmp_path_factory.mktemp("attribution")
    networks = checkpoints(folder)
    return AttributionBench.model_validate({
        "name": "bench", "out": str(folder / "out"), "data": {"kind": "brain", "n": 4, "seed": 5, "size": SIZE},
        "reference": {"kind": "brain", "n": 12, "seed": 6, "size": SIZE}, "generator": networks["generator"],
        "classifiers": {"one": networks["classifier"], "two": networks["oracle"]}, "methods": METHODS, "draws": 4,
        "explainer": "gradient-attack",
    })  # fmt: skip


@pytest.mark.filterwarnings("ignore::cfx.core.errors.CfxWarning")  # untrained classifiers are near chance
def test_a_bench_leaves_a_row_a_method_and_keeps_its_counterfactuals(config, monkeypatch):
    # an untrained classifier recognises no class in a reference
    monkeypatch.setattr(bench, "explain", lambda *given, reference, **more: explain(*given, **more))
    rows = run_attribution(config, "cfx bench attribution it.yaml")
    folder = Path(config.folder)
    assert json.loads((folder / "results.json").read_text()) == rows
    assert [row["method"] for row in rows] == [
        "difference",
        "gradient-x-change",
        "input-x-gradient",
        "saliency",
        "random",
    ]
    assert [row["family"] for row in rows] == ["engine", "engine", "classic", "classic", "control"]
    assert all(row.keys() >= KEYS for row in rows)
    assert [row["n"] for row in rows] == [8, 8, 8, 6, 8]
    assert rows[3]["verdicts"] == {"undefined": 6}
    assert rows[2]["completeness_error"] > 0
    assert "completeness_error" not in rows[3]
    assert rows[2]["nfe_classifier"] < rows[1]["nfe_classifier"]  # which has the counterfactual's in it
    table = (folder / "table.md").read_text()
    assert all(f"| {row['method']} |" in table for row in rows)
    assert (folder / "figure.png").stat().st_size > 1000
    kept = {p: p.stat().st_mtime_ns for p in (folder / "counterfactuals").glob("*.zarr/zarr.json")}
    assert len(kept) == 2
    again = run_attribution(config)
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    same = ("auprc", "deletion_cf", "infidelity", "nfe_unet_forward")
    assert [[row[k] for k in same] for row in again] == [[row[k] for k in same] for row in rows]


def test_labels_are_distinct_and_say_the_baseline(config):
    assert AttributionMethod(method="deeplift", baseline="black").name == "deeplift-black"
    with pytest.raises(ValidationError, match="expected distinct labels"):
        AttributionBench.model_validate(config.model_dump() | {"methods": [{"method": "cam"}, {"method": "cam"}]})

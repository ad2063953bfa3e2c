"""A whole bench on tiny untrained networks: what it leaves behind, what it does not do twice, what it survives."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from cfx.atlas import read_atlas
from cfx.cli import app
from cfx.commands import rows as rows_module
from cfx.commands.bench import counterfactual as bench
from cfx.commands.bench.counterfactual import CounterfactualBench, run_bench
from cfx.core.errors import CheckpointError, InputError
from cfx.counterfactual import explain
from cfx.models import load
from cfx.models.perceptual import Lpips
from cfx.runtime.config import read_as
from tests.tiny import SIZE, checkpoints

# untrained networks are at chance, and said to be
pytestmark = pytest.mark.filterwarnings(
    "ignore:(classifier|oracle). expected one that recognises:cfx.core.errors.CfxWarning"
)

QUICK = {"steps": 3}
METHODS = [
    {"method": "minimal", "settings": QUICK},
    {"method": "fastdime", "rows": 4, "settings": {"steps": 3, "warmup": 1, "scales": [8.0]}},
    {"method": "minimal", "label": "longer", "settings": {"steps": 4}},
    {"method": "latent-shift"},  # without an autoencoder
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return checkpoints(tmp_path_factory.mktemp("checkpoints"))


def config_of(trained: dict[str, str], out: Path, **more: object) -> CounterfactualBench:
    data = {"kind": "brain", "n": 8, "seed": 5, "size": SIZE}
    values = {"name": "tiny", "out": str(out), "data": data, "batch_size": 4, "depths": ["boundary"]}
    return CounterfactualBench.model_validate(values | {"methods": METHODS} | trained | more)


@pytest.fixture(scope="module")
def whole(trained: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[CounterfactualBench, list[dict]]:
    """One bench that is run once for all tests that only read it."""
    reference = {"kind": "brain", "n": 12, "seed": 9, "size": SIZE}
    methods = [METHODS[0] | {"reversible": True}, *METHODS[1:]]
    config = config_of(trained, tmp_path_factory.mktemp("bench") / "out", reference=reference, methods=methods)
    return config, run_bench(config)


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out the figure, which takes longest, where it is not what is tested."""
    monkeypatch.setattr(bench, "draw", lambda *_: b"")


def row_of(rows: list[dict], method: str) -> dict:
    (row,) = [row for row in rows if row["method"] == method]
    return row


def test_every_promised_key_is_there(whole) -> None:
    config, rows = whole
    assert json.loads((config.folder / "results.json").read_text()) == rows
    names = [row["method"] for row in rows]
    assert names == ["minimal", "fastdime", "longer", "latent-shift", "identity", "random-real", "ddim-reconstruction"]
    for row in rows:
        assert {"method", "depth", "n", "comparisons", "directions"} <= row.keys()
        if "error" in row:
            continue
        assert {"seconds_per_image", "peak_memory_mb", "nfe_unet_forward", "nfe_unet_backward"} <= row.keys()
        assert {"nfe_classifier", "nfe_classifier_backward"} <= row.keys()
        for metric in ("validity", "oracle_validity", "l1", "error_to_truth", "localisation_auprc", "cout"):
            if row["method"] != "ddim-reconstruction":
                assert row[f"{metric}_low"] <= row[metric] <= row[f"{metric}_high"]
    assert row_of(rows, "minimal")["peak_memory_mb"] >= 0
    assert row_of(rows, "minimal")["seconds_per_image"] > 0
    assert read_as(CounterfactualBench, config.folder / "config.yaml") == config


def test_the_reference_rows_are_what_they_say(whole) -> None:
    _, rows = whole
    nothing = row_of(rows, "identity")
    assert nothing["l1"] == 0
    assert nothing["error_to_truth_ratio"] == pytest.approx(1)
    assert nothing["nfe_unet_forward"] == nothing["seconds_per_image"] == 0
    assert row_of(rows, "random-real")["l1"] > 0


def test_reconstruction_spends_what_the_first_method_spent(whole) -> None:
    _, rows = whole
    first, plain = row_of(rows, "minimal"), row_of(rows, "ddim-reconstruction")
    assert abs(plain["nfe_unet_forward"] - first["nfe_unet_forward"]) <= 1
    assert first["seconds_over_reconstruction"] == pytest.approx(
        first["seconds_per_image"] / plain["seconds_per_image"]
    )
    assert "seconds_over_reconstruction" not in row_of(rows, "longer")


def test_a_slow_method_sees_fewer_rows_and_is_compared_on_these(whole) -> None:
    config, rows = whole
    slow = row_of(rows, "fastdime")
    assert slow["n"] == slow["comparisons"]["minimal"]["n"] == 4
    assert row_of(rows, "longer")["comparisons"]["minimal"]["n"] == 8
    a, b = (read_atlas(config.folder / "rows" / f"{name}-boundary.zarr") for name in ("minimal", "fastdime"))
    assert b.row.tolist() == [0, 1, 2, 3]
    l1 = [(v.x_cf[:4] - v.x[:4]).abs().flatten(1).mean(1).mean() for v in (a, b)]
    found = slow["comparisons"]["minimal"]["l1"]
    assert found["difference"] == pytest.approx(float(l1[0] - l1[1]), abs=1e-6)
    assert found["verdict"] == ("lower" if found["high"] < 0 else "higher" if found["low"] > 0 else "unclear")


def test_directions_share_out_the_rows(whole) -> None:
    _, rows = whole
    row = row_of(rows, "minimal")
    assert set(row["directions"]) <= {"healthy", "diseased"}
    assert sum(part["n"] for part in row["directions"].values()) == row["n"]
    mean = sum(part["n"] * part["l1"] for part in row["directions"].values()) / row["n"]
    assert mean == pytest.approx(row["l1"])


def test_the_laws_are_measured_where_asked_for(whole, trained) -> None:
    config, rows = whole
    row = row_of(rows, "minimal")
    kept = read_atlas(config.folder / "rows/minimal-boundary.zarr")
    laws = read_atlas(config.folder / "rows/minimal-boundary-laws.zarr")
    assert row["composition"] == pytest.approx(float(laws.values["composition"].mean()))
    assert 0 < row["composition_high"] <= 1e-5  # rounding, and no more
    back = explain(
        kept.x_cf, load(trained["classifier"]), load(trained["generator"]), 1 - kept.target, depth="boundary",
        method=config.methods[0].build(),
    )  # fmt: skip
    distance = (back.x_cf - kept.x).square().flatten(1).mean(1).sqrt()
    assert distance.max() > 0
    assert row["reversibility"] == pytest.approx(float(distance.mean()), abs=1e-5)
    assert row["reversibility_low"] <= row["reversibility"] <= row["reversibility_high"]
    assert row["nfe_unet_forward"] == pytest.approx(float(kept.nfe_unet_forward.double().mean()))  # the way there only
    for other in rows:
        assert other["method"] == "minimal" or not {"composition", "reversibility"} & other.keys()
    head, line = (next(v for v in table_lines(config) if v.startswith(f"| {m} |")) for m in ("method", "minimal"))
    columns = dict(zip(head.split(" | "), line.split(" | "), strict=True))
    assert columns["composition"].startswith(f"{row['composition']:.2g} [")
    assert columns["reversibility"] != "-"
    assert "counterfactual of its counterfactual" in table_lines(config)[-1]


def table_lines(config) -> list[str]:
    return (config.folder / "table.md").read_text().splitlines()


def test_laws_are_another_measurement_and_stay_with_it(
    trained, undrawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    for module, name in ((bench, "explain"), (rows_module, "explain_batches")):
        run = getattr(module, name)

        def counted(*args: object, run: Callable = run, **more: object) -> object:
            if more.get("batches") != []:  # no batch is asked for when a task is only checked
                calls.append(more["method"].name)
            return run(*args, **more)

        monkeypatch.setattr(module, name, counted)
    plain = [{"method": "gradient-attack", "rows": 2, "settings": {"steps": 2}}]
    (before, *_) = run_bench(config_of(trained, tmp_path, methods=plain))
    assert "counterfactual of its counterfactual" not in (tmp_path / "table.md").read_text()
    asked = config_of(trained, tmp_path, methods=[plain[0] | {"reversible": True}])
    (row, *_) = run_bench(asked)
    assert len(calls) == 3
    assert row.keys() - before.keys() == {f"reversibility{end}" for end in ("", "_low", "_high")}  # no null edit
    assert run_bench(asked)[0] == row
    assert len(calls) == 3


def test_a_method_that_cannot_run_is_a_row(whole) -> None:
    _, rows = whole
    failed = row_of(rows, "latent-shift")
    assert failed["n"] == 0
    assert "autoencoder: expected a checkpoint folder" in failed["error"]


def test_table_and_figure_are_written(whole) -> None:
    config, rows = whole
    table = (config.folder / "table.md").read_text()
    assert f"`cfx bench counterfactual {config.folder}/config.yaml`" in table
    assert "Hardware: " in table
    assert "## Depth boundary" in table
    assert f"| fastdime | {row_of(rows, 'fastdime')['n']} |" in table
    assert "`latent-shift` could not run" in table
    assert (config.folder / "figure.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_what_is_finished_is_not_done_again(trained, undrawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    explain = rows_module.explain_batches

    def counted(*args: object, **more: object) -> object:
        if more["batches"]:
            calls.append((more["method"].name, more["depth"]))
            if len(calls) == 2:
                raise KeyboardInterrupt
        return explain(*args, **more)

    monkeypatch.setattr(rows_module, "explain_batches", counted)
    trained, methods = {k: v for k, v in trained.items() if k != "oracle"}, METHODS[:2]
    with pytest.raises(KeyboardInterrupt):
        run_bench(config_of(trained, tmp_path, methods=methods))
    rows = run_bench(config_of(trained, tmp_path, methods=methods))
    assert calls == [("minimal", "boundary"), ("fastdime", "boundary"), ("fastdime", "boundary")]
    assert run_bench(config_of(trained, tmp_path, methods=methods)) == rows
    assert len(calls) == 3
    # another setting is another measurement; the other method's stays
    run_bench(config_of(trained, tmp_path, methods=[METHODS[0] | {"settings": {"steps": 2}}, METHODS[1]]))
    assert calls[3:] == [("minimal", "boundary")]


def test_a_damaged_measurement_is_made_again(trained, undrawn, tmp_path: Path) -> None:
    config = config_of(trained, tmp_path, methods=METHODS[:1])
    rows = run_bench(config)
    kept = tmp_path / "rows/minimal-boundary.zarr/counterfactual/c/0/0/0/0"
    kept.write_bytes(kept.read_bytes()[:-4])
    again = run_bench(config)
    assert row_of(again, "minimal")["l1"] == pytest.approx(row_of(rows, "minimal")["l1"])
    assert read_atlas(tmp_path / "rows/minimal-boundary.zarr").row.tolist() == list(range(8))


def test_lpips_is_a_column_of_its_own(trained, undrawn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Mean(Lpips):
        """Mean change in the place of trained weights, which no test machine has."""

        def __init__(self, weights: str) -> None:
            torch.nn.Module.__init__(self)
            assert weights == "alexnet.pth"

        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return (a - b).abs().flatten(1).mean(1)

    monkeypatch.setattr(bench, "Lpips", Mean)
    methods = [METHODS[0], METHODS[0] | {"label": "half", "rows": 4}]
    config = config_of(trained, tmp_path, methods=methods, lpips="alexnet.pth")
    rows = run_bench(config)
    for row in rows:
        if "l1" in row:
            assert row["lpips"] == pytest.approx(row["l1"])
            assert "feature_distance" in row
    found = row_of(rows, "half")["comparisons"]["minimal"]
    assert found["lpips"] == found["l1"] | {"difference": 0.0, "verdict": "unclear"}
    assert any("| LPIPS | feature distance |" in line for line in table_lines(config))


def test_lpips_without_its_weights_stops_the_bench_before_any_method(trained, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"LPIPS: expected the packages|expected a local file"):
        run_bench(config_of(trained, tmp_path, lpips=str(tmp_path / "none.pth")))
    assert not tmp_path.joinpath("tiny").exists()


def test_mistakes_in_the_configuration_stop_the_bench_at_once(trained, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="method: expected one of"):
        run_bench(config_of(trained, tmp_path, methods=[{"method": "minimax"}]))
    with pytest.raises(InputError, match="generator: expected a diffusion checkpoint"):
        run_bench(config_of(trained, tmp_path, generator=trained["classifier"]))
    with pytest.raises(ValueError, match=r"expected distinct labels .* got \['minimal'\] twice"):
        config_of(trained, tmp_path, methods=[METHODS[0], METHODS[0]])
    with pytest.raises(ValueError, match="distinct labels"):
        config_of(trained, tmp_path, methods=[METHODS[0] | {"label": "identity"}])


def test_the_verb_takes_overrides_and_says_where_it_wrote(trained, undrawn, tmp_path: Path) -> None:
    config = config_of(trained, tmp_path / "elsewhere", methods=METHODS[:1])
    (tmp_path / "bench.yaml").write_text(config.model_dump_json())
    out = tmp_path / "out"
    words = ["bench", "counterfactual", str(tmp_path / "bench.yaml"), "--out", str(out), "--data.n", "3"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert f"wrote {out}/results.json" in done.output
    assert f"--out {out} --data.n 3" in (out / "table.md").read_text()
    assert row_of(json.loads((out / "results.json").read_text()), "minimal")["n"] == 3
    assert CliRunner().invoke(app, [*words, "--metods", "[]"]).exit_code == 2

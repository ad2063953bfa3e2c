"""A run's files are written whole, by the main process alone; `summary.json` is strict JSON with flat, sorted names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cfx.core.errors import CfxError, InputError
from cfx.runtime import folder as module
from cfx.runtime.config import RunConfig, read_as
from cfx.runtime.folder import RunFolder, flatten, write_summary


def test_not_finite_becomes_null_and_keys_are_sorted(tmp_path: Path) -> None:
    metrics = {
        "validity": torch.tensor(0.5),
        "l1": np.float64(0.25),
        "bad": float("nan"),
        "worse": {"low": -np.inf, "n": np.int64(3)},
        "name": "brain64",
        "ok": True,
        "none": None,
    }
    expected = {"bad": None, "l1": 0.25, "name": "brain64", "none": None, "ok": True, "validity": 0.5}
    written = write_summary(tmp_path / "run" / "summary.json", metrics)
    assert written == expected | {"worse_low": None, "worse_n": 3}
    assert list(written) == sorted(written)

    def refuse(name: str) -> None:
        raise AssertionError(name)

    text = (tmp_path / "run" / "summary.json").read_text()
    assert json.loads(text, parse_constant=refuse) == written


@pytest.mark.parametrize("value", [[1, 2], torch.zeros(2), np.zeros((2, 2)), object()])
def test_not_a_scalar_is_named(tmp_path: Path, value: object) -> None:
    with pytest.raises(InputError, match=r"metrics\['odd'\]"):
        write_summary(tmp_path / "s.json", {"odd": value})
    assert list(tmp_path.iterdir()) == []


def test_two_values_under_one_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a_b"):
        write_summary(tmp_path / "s.json", {"a_b": 1, "a": {"b": 2}})


def test_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "s.json"
    target.mkdir()
    with pytest.raises(CfxError, match=r"s\.json: could not write"):
        write_summary(target, {"a": 1})
    assert [p.name for p in tmp_path.iterdir()] == ["s.json"]


def fill(folder: RunFolder) -> None:
    """Every kind of file that a run leaves behind."""
    folder.config(RunConfig(name="toy", out="there"))
    folder.results([{"method": "a", "l1": 0.5}])
    folder.table("| a |\n")
    folder.page("<html>")
    folder.figure(b"\x89PNG")
    folder.write("plan.json", "{}")


def test_a_run_leaves_its_files(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    assert list(tmp_path.iterdir()) == []  # naming a folder makes none
    fill(folder)
    assert folder.summary({"validity": torch.tensor(0.5), "by": {"n": 3}}) == {"by_n": 3, "validity": 0.5}
    names = ["config.yaml", "figure.png", "plan.json", "report.html", "results.json", "summary.json", "table.md"]
    assert sorted(p.name for p in folder.path.iterdir()) == names
    assert read_as(RunConfig, folder / "config.yaml") == RunConfig(name="toy", out="there")
    assert json.loads((folder / "results.json").read_text()) == [{"method": "a", "l1": 0.5}]
    assert (folder / "figure.png").read_bytes() == b"\x89PNG"
    assert folder.said("results.json") == f"| a |\n\nwrote {folder.path}/results.json, config.yaml"


def test_another_process_writes_nothing_and_is_told_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_main", lambda: False)
    folder = RunFolder(tmp_path / "run")
    fill(folder)
    assert folder.summary({"b": 1, "a": np.float32(0.5)}) == {"a": 0.5, "b": 1}
    assert list(tmp_path.iterdir()) == []


def test_results_are_strict_json(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunFolder(tmp_path).results([{"l1": float("nan")}])
    assert list(tmp_path.iterdir()) == []


def test_flat_names_keep_their_order() -> None:
    assert list(flatten({"b": {"y": 1, "x": {"z": 2}}, "a": 3})) == ["b_y", "b_x_z", "a"]

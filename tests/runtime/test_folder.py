"""`summary.json` is strict JSON with flat, sorted names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from cfx.core.errors import CfxError, InputError
from cfx.report import write_summary


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

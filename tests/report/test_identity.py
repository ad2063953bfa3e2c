"""What a result is of: everything that was recorded, and nothing that was not."""

from pathlib import Path
from typing import Any

import pytest

from cfx.atlas import write_atlas
from cfx.report.identity import identity, said
from tests.report.hand_made import make

CONFIG = {
    "classifier": "checkpoints/mine", "generator": None, "oracle": {"path": "torchvision:r", "pixels": None},
    "data": {"kind": "png", "folder": "scans", "lazy": False, "classes": ["a", "b"]}, "target": 0, "reference": None,
}  # fmt: skip
PRINTS = {"classifier": "mine 12ab", "images": "34cd", "settings": "Minimal(steps=11)", "generator": "none"}
MADE = {"date": "2026-01-02T03:04:05+00:00", "command": "cfx explain a.yaml", "versions": {"cfx": "9", "torch": "8"}}


def facts(path: Path, **attributes: Any) -> dict[str, tuple[str, str]]:
    result, cohort = make(2)
    prints = attributes.pop("prints", None)
    atlas = write_atlas(path / "a.zarr", result, cohort, attributes=attributes, fingerprint=prints)
    return {fact.name: (fact.value, fact.fingerprint) for fact in identity(result, atlas)}


def test_what_a_run_wrote_down_is_shown(tmp_path: Path) -> None:
    found = facts(tmp_path, config=CONFIG, made=MADE, prints=PRINTS)
    assert found["Classifier"] == ("checkpoints/mine", "mine 12ab")
    assert found["Generator"] == ("none", "none")
    assert found["Oracle"] == ("path torchvision:r", "")
    assert found["Data"] == ("kind png, folder scans, lazy no, classes [a, b]", "34cd")
    assert found["Method"] == ("minimal", "Minimal(steps=11)")
    assert found["Target class"] == ("0", "")
    assert found["Date"][0] == "2026-01-02 03:04:05 UTC"
    assert found["Command"][0] == MADE["command"]
    assert found["Versions"][0] == "cfx 9, torch 8"


def test_a_target_that_was_not_set_is_the_most_probable_one(tmp_path: Path) -> None:
    found = facts(tmp_path, config=CONFIG | {"target": None})
    assert found["Target class"][0] == "the most probable one besides the predicted"


def test_an_atlas_without_a_run_knows_its_version_and_no_networks(tmp_path: Path) -> None:
    assert list(facts(tmp_path)) == ["Method", "Depth and seed", "Versions"]


def test_a_result_in_memory_knows_its_settings_alone() -> None:
    found = {fact.name: fact.value for fact in identity(make(2)[0], None)}
    assert found == {"Method": "minimal", "Depth and seed": "typical, 3"}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"), (0, "0"), ({"a": 0, "b": None, "c": False, "d": {}}, "a 0, c no"),
        ({"a": {"b": [1, 2]}}, "a b [1, 2]"), ({}, ""),
    ],
)  # fmt: skip
def test_values_are_said_in_a_line(value: object, text: str) -> None:
    assert said(value) == text

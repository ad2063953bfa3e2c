"""A new capability is a room, a command file and a page, listed in two registries; nothing else is touched.

The toy in `tests/capability` has a result class, methods, a metric, a verb and a page of its own.
"""

import json

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cfx.atlas import KINDS, Atlas, read_atlas
from cfx.cli import build
from cfx.commands.registry import VERBS, Verb
from cfx.data import BrainConfig, load_cohort
from cfx.display.catalogue import metric

DATA = {"kind": "brain", "n": 10, "seed": 3, "size": 16}


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run of the new verb, and what it printed."""
    monkeypatch.setitem(KINDS, "Sharpness", "tests.capability.room")
    monkeypatch.setitem(VERBS, "sharpness", Verb("tests.capability.command", "How sharp are images?"))
    (tmp_path / "x.yaml").write_text(yaml.safe_dump({"name": "toy", "out": str(tmp_path / "run"), "data": DATA}))
    done = CliRunner().invoke(build(), ["sharpness", str(tmp_path / "x.yaml"), "--method", "backward"])
    assert done.exit_code == 0, done.output
    return tmp_path / "run", done.output


def test_the_verb_runs_with_overrides_and_says_what_came_out(run):
    folder, said = run
    assert said.startswith("sharpness ")
    assert "--method backward`" in said
    assert json.loads((folder / "summary.json").read_text())["sharpness_low"] > 0
    assert "method: backward" in (folder / "config.yaml").read_text()
    assert metric("sharpness").meaning in (folder / "report.html").read_text()


def test_the_result_comes_back_from_its_atlas_bit_for_bit(run):
    from tests.capability.room import Judgement, Sharpness, measure

    folder, _ = run
    whole = next(measure(load_cohort(BrainConfig(**DATA)), "backward", [range(10)]))
    back = read_atlas(folder / "atlas.zarr")
    assert type(back) is Sharpness
    assert back.plain() == whole.plain()
    for name, value in whole.parts().items():
        assert torch.equal(value, back.parts()[name]) if isinstance(value, torch.Tensor) else value == back.note
    array = Atlas(folder / "atlas.zarr")._arrays["judgement"]
    assert array.attrs["flag_meanings"] == "blurred sharp"
    assert array.attrs["flag_values"] == [int(v) for v in Judgement]
    assert array.attrs["long_name"] == "`Judgement` codes."


def test_images_can_be_left_unread(run):
    folder, _ = run
    light = Atlas(folder / "atlas.zarr").read(images=False)
    assert light.edges.shape == (10, 1, 0, 0)
    assert torch.equal(light.sharpness, read_atlas(folder / "atlas.zarr").sharpness)

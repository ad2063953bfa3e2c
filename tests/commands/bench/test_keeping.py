"""Cells of a bench that are there already: whole and of the same, or made anew."""

import shutil

import torch

from cfx.atlas import write_atlas
from cfx.commands.bench.keeping import kept, say
from cfx.counterfactual.metrics import Measurements

PRINTS = {"seed": "0"}
CELL = Measurements(torch.arange(3), {"a": torch.ones(3)})


def test_only_what_is_whole_and_of_the_same_is_kept(tmp_path):
    path = tmp_path / "cell.zarr"
    assert kept(path, Measurements, PRINTS) is None
    write_atlas(path, CELL, fingerprint=PRINTS)
    found = kept(path, Measurements, PRINTS)
    assert found is not None
    assert torch.equal(found.values["a"], CELL.values["a"])
    assert kept(path, Measurements, {"seed": "1"}) is None
    shutil.rmtree(next(p for p in path.iterdir() if p.is_dir()))
    assert kept(path, Measurements, PRINTS) is None


def test_a_bench_says_how_far_it_is(capfd):
    say("half")
    assert "bench: half" in "".join(capfd.readouterr())

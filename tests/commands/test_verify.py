"""`cfx verify` says what there is and names what is wrong: of a checkpoint, a state, an atlas."""

import pytest
import torch
from typer.testing import CliRunner

from cfx.atlas import write_atlas
from cfx.cli import app
from cfx.commands.verify import verified_atlas, verify
from cfx.counterfactual.metrics import Measurements
from cfx.models import build, save
from cfx.training.state import save_state

CNN = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": (8, 8)}


@pytest.fixture
def places(tmp_path):
    config = CNN
    torch.manual_seed(0)
    save(tmp_path / "c", build("cnn", **config), name="cnn", config=config)
    save_state(tmp_path, 3, {"net": {"w": torch.ones(3)}}, {"rate": 1})
    write_atlas(tmp_path / "a", Measurements(torch.arange(4), {"l1": torch.ones(4)}))
    return {"c": tmp_path / "c", "s": tmp_path / "step-3", "a": tmp_path / "a"}


def test_what_is_whole_is_said_to_be(places):
    for path in places.values():
        words, faults = verify(path)
        assert (words.split(": ")[0], faults) == (str(path), [])
        assert "as" in words
    assert verified_atlas(places["a"])[0].endswith("4 of 4 rows in 5 arrays, as they were written")


FILES = [("c", "model.safetensors"), ("c", "README.md"), ("c", "cfx.json"), ("s", "net.safetensors"),
         ("s", "state.json"), ("a", "zarr.json"), ("a", "values.l1/c/0")]  # fmt: skip


@pytest.mark.parametrize(("place", "file"), FILES)
def test_what_is_damaged_is_named_on_the_command_line(places, place, file):
    path = places[place] / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)
    done = CliRunner().invoke(app, ["verify", str(places[place])])
    assert done.exit_code == 1
    assert file in done.output.replace("\n", "")
    if place == "a":
        assert CliRunner().invoke(app, ["atlas", "verify", str(places["a"])]).exit_code == 1


def test_nothing_there_is_a_fault(tmp_path):
    assert "missing; expected a checkpoint folder" in verify(tmp_path / "none")[1][0]

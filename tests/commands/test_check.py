"""`cfx check`: tells the verb by its keys, says what is there, and names what is odd; it writes nothing."""

import re

import pytest
import torch
import yaml
from torch import nn
from typer.testing import CliRunner

from cfx.cli import app
from cfx.commands.check import check
from cfx.core.errors import CfxError, InputError
from tests.tiny import SIZE, checkpoints

BRAINS = {"kind": "brain", "n": 12, "seed": 5, "size": SIZE}
TRAIN = {
    "name": "t", "data": BRAINS, "validation": 0.25, "network": {"name": "cnn", "channels": [8, 8]}, "steps": 9000,
    "batch_size": 4, "objective": {"kind": "classifier"},
}  # fmt: skip


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    return checkpoints(tmp_path_factory.mktemp("networks"))


@pytest.fixture
def write(tmp_path):
    def written(values):
        (tmp_path / "c.yaml").write_text(yaml.safe_dump(values))
        return tmp_path / "c.yaml"

    return written


def test_an_explanation_is_looked_at(write, networks, tmp_path):
    words, problems = check(write({"name": "e", "data": BRAINS, "reference": BRAINS | {"seed": 6}, **networks}), {})
    found = dict(line.split(None, 1) for line in words.splitlines())
    assert found["verb"] == "cfx explain"
    assert re.match(rf"12 images, 1 x {SIZE} x {SIZE}, values -1.00 to .*; classes 0 \(healthy\) \d", found["data"])
    assert found["generator"].endswith(f"images 1 x {SIZE} x {SIZE}, knows 2 classes")
    assert re.search(r"decides 0: \d+, 1: \d+ of 12 images; on reference: balanced accuracy", found["accuracy"])
    assert [p for p in problems if "accuracy" not in p] == []  # networks at random may be near chance
    assert {path.name for path in tmp_path.iterdir()} == {"c.yaml"}


def test_a_training_is_rehearsed(write, tmp_path):
    words, problems = check(write(TRAIN), {"steps": "5000"})
    assert "cfx train" in words
    assert re.search(r"held out +3 images", words)
    assert re.search(r"time +\d+\.\d\d s a step here, 5000 steps: about \d+(\.\d)? \w+", words)
    assert problems == []
    assert {path.name for path in tmp_path.iterdir()} == {"c.yaml"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"name": "e", "data": BRAINS, "clasifier": "x"}, r"unknown key `clasifier`; did you mean `classifier`"),
        (TRAIN | {"data": {"kind": "png", "path": "nowhere"}}, "nowhere"),
        (TRAIN | {"batch_size": 0}, "batch_size"),
        (TRAIN | {"objective": {"kind": "regressor", "targets": ["weight"]}}, "weight"),
    ],
)
def test_what_would_stop_the_run_is_said(write, networks, values, said):
    with pytest.raises(CfxError, match=said):
        check(write(values), {})


def test_a_file_that_is_none(tmp_path):
    with pytest.raises(InputError, match="expected a YAML file of keys"):
        check(tmp_path / "none.yaml", {})


class Sigmoid(nn.Module):
    def forward(self, x):
        return torch.sigmoid(x.mean((1, 2, 3)) * 30)[:, None]


def make():
    return Sigmoid()


def test_problems_are_printed_and_are_the_exit_code(write, networks):
    odd = write({"name": "e", "data": BRAINS, "classifier": f"{__name__}:make", "generator": networks["generator"]})
    done = CliRunner().invoke(app, ["check", str(odd)])
    assert (done.exit_code, "look like probabilities" in done.stderr) == (1, True)
    assert re.search(r"problems +\d", done.stdout)
    fine = CliRunner().invoke(app, ["check", str(write(TRAIN))])
    assert (fine.exit_code, fine.stderr) == (0, "")
    assert fine.stdout.rstrip().endswith("none found")
    wrong = CliRunner().invoke(app, ["check", str(write(TRAIN)), "--steps", "many"])
    assert (wrong.exit_code, wrong.stderr.startswith("error: config")) == (2, True)

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
from cfx.models import build
from tests.tiny import SIZE, checkpoints

BRAINS = {"kind": "brain", "n": 12, "seed": 5, "size": SIZE}
TRAIN = {
    "name": "t", "data": BRAINS, "validation": 0.25, "network": {"name": "cnn", "channels": [8, 8]}, "steps": 9000,
    "batch_size": 4, "objective": {"kind": "classifier"},
}  # fmt: skip

EXPLAIN = {"name": "e", "data": BRAINS, "reference": BRAINS | {"seed": 6}, "depths": ["boundary"]}
"""At depth typical networks at random might recognise no image of a class, and the run be refused."""


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
    words, problems = check(write(EXPLAIN | networks), {})
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


class Ask(nn.Module):
    """A classifier of so many classes."""

    def __init__(self, k=5):
        super().__init__()
        self.head = nn.Linear(1, k)

    def forward(self, x):
        return self.head(x.mean((1, 2, 3))[:, None])


def many():
    return Ask()


def colour():
    """A classifier of colour images."""
    return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


class Shapeless(nn.Module):
    """A denoising network of three channels that does not say so."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x, timesteps):
        return self.conv(x)


def bare():
    return Shapeless()


def autoencoder():
    return build("autoencoder-kl", spatial_dims=2, in_channels=1)


HERE, SCHEDULE = __name__, {"num_train_timesteps": 1000, "beta_schedule": "linear"}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"generator": {"path": f"{HERE}:bare", "schedule": SCHEDULE}}, r"generator: .*expected input\[1, 1, 16, 16\]"),
        ({"data": BRAINS | {"size": 32}}, r"generator's shape \(1, 16, 16\), got \(1, 32, 32\)"),
        ({"generator": f"{HERE}:autoencoder"}, "generator: expected a diffusion "),
        ({"generator": None}, "generator: expected a diffusion model for minimal"),
        ({"target": 7}, r"target: expected classes in 0 \.\. 1, got \[7\]"),
        ({"target": "deceased"}, r"target: expected a class among \['healthy', 'diseased'\], got 'deceased'"),
        ({"reference": BRAINS | {"size": 32}, "depths": ["boundary"]}, "reference: expected images of the shape"),
        ({"classifier": f"{HERE}:colour"}, "classifier: failed on images of shape"),
        ({"oracle": f"{HERE}:colour"}, "oracle: failed on images of shape"),
        ({"oracle": f"{HERE}:many"}, "oracle: expected the 2 classes of the classifier, got 5"),
        ({"method": "minmal"}, "method: expected one of"),
    ],
)
def test_networks_and_images_that_do_not_go_together_are_refused(write, networks, values, said):
    with pytest.raises(CfxError, match=said):
        check(write({"name": "e", "data": BRAINS, **networks, **values}), {})


@pytest.mark.parametrize("target", [1, "diseased"])
def test_a_target_is_a_number_or_a_name(write, networks, target):
    words, _ = check(write({"name": "e", "data": BRAINS, "target": target, "rows": 5, **networks}), {})
    assert "to explain  5 images by minimal, typical" in words
    assert "judged      no; generator: does not know these images" in words  # whose weights are random


def test_all_that_is_missing_is_named(write, networks):
    gone = {"classifier": "no/c", "generator": "no/g", "oracle": "no/o"}
    with pytest.raises(CfxError, match=r"classifier: nothing at 'no/c'.*oracle: .*'no/o'.*generator: .*'no/g'"):
        check(write({"name": "e", "data": BRAINS, **gone}), {})
    with pytest.raises(CfxError, match=r"nowhere.*generator: nothing at 'no/g'"):
        check(write({"name": "e", "data": {"kind": "png", "path": "nowhere"}, **networks, "generator": "no/g"}), {})


PLAN = {"confounder": "tag", "seeds": 1, "doses": []}


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"plan": PLAN}, "plan.confounder: expected shape, or an object planted"),
        ({"plan": PLAN | {"confounder": "shape"}, "donors": BRAINS | {"size": 32}}, "donors: expected masks of shape"),
        ({"plan": PLAN | {"confounder": "shape"}, "classifiers": [f"{HERE}:colour"]}, "classifier: failed on"),
    ],
)
def test_an_audit_that_cannot_work_is_refused(write, networks, values, said):
    audit = {"name": "a", "data": BRAINS, "classifiers": [networks["classifier"]]}
    with pytest.raises(CfxError, match=said):
        check(write(audit | values), {})


def test_an_audit_is_looked_at(write, networks):
    data = BRAINS | {"confounders": [{"kind": "tag", "q": 0.9}]}
    words, _ = check(write({"name": "a", "plan": PLAN, "data": data, "classifiers": [networks["classifier"]]}), {})
    assert "to audit    12 images for tag in 1 networks" in words


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

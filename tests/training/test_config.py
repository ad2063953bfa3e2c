"""Configuration: one frozen object, precise refusals, overrides from text."""

import re

import pytest
from pydantic import ValidationError

from cfx.core.errors import InputError
from cfx.data import load_cohort
from cfx.models.registry import BUILDERS, WEIGHTS_ONLY
from cfx.runtime.config import split_overrides
from cfx.training import check_config, read_config, registry
from cfx.training.config import make_objective
from tests.training.toys import NETWORKS, OBJECTIVES

YAML = """
name: toy
steps: 10
network: {name: cnn, channels: [8, 8]}
objective: {kind: classifier}
optimizer: {lr: 1e-4}
"""


@pytest.fixture
def path(tmp_path):
    (tmp_path / "toy.yaml").write_text(YAML)
    return tmp_path / "toy.yaml"


def test_yaml_reads_an_exponent_as_text_and_the_config_heals_it(path):
    config = read_config(path)
    assert config.optimizer.lr == 1e-4
    assert config.network.keywords == {"channels": [8, 8]}
    assert str(config.folder) == "runs/toy"


def test_overrides_reach_into_the_file_and_beyond(path):
    words = ["--optimizer.lr", "3e-4", "--ema=null", "--network.channels", "[4, 4]", "--objective.flip", "true"]
    config = read_config(path, split_overrides(words))
    assert (config.optimizer.lr, config.ema, config.objective.flip) == (3e-4, None, True)
    assert config.network.keywords["channels"] == [4, 4]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"optimizer.rl": "1"},
            r"toy\.yaml: unknown key `optimizer\.rl`; did you mean `optimizer\.lr`\? Keys: lr",
        ),
        ({"objective.kind": "gan"}, r"objective\.kind: unknown choice 'gan'\. Choices: diffusion, vae, classifier"),
        ({"objective.gamma": "1"}, r"unknown key `objective\.gamma`\. Keys of kind classifier: kind, flip"),
        ({"steps": "0"}, "steps: .*greater than or equal to 1"),
        ({"batch_size": "9", "accumulate": "2"}, "expected a multiple of accumulate=2, got 9"),
        ({"steps.more": "1"}, r"override steps\.more: steps is neither a mapping nor a list"),
        ({"validation": "1.5"}, r"expected a share in \[0, 1\), got 1.5"),
    ],
)
def test_a_wrong_key_or_value_is_named_with_its_path(path, overrides, message):
    with pytest.raises(InputError, match=message):
        read_config(path, overrides)


def test_the_object_is_frozen_and_survives_a_round_trip(path):
    config = read_config(path)
    assert check_config(config.dump()) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3


def test_every_objective_has_a_toy():
    for kind, network in NETWORKS.items():
        config = check_config({"name": "t", "steps": 1, "network": network, "objective": OBJECTIVES[kind]})
        assert config.objective.kind == kind
    assert set(NETWORKS) == set(registry.OBJECTIVES)


TRAINED = {
    "denoiser": {"kind": "diffusion"}, "vae": {"kind": "vae"}, "classifier": {"kind": "classifier"},
    "segmenter": {"kind": "segmenter"}, "mask-sampler": {"kind": "masks", "region": "mask"},
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(BUILDERS.keys() - {"shape-vae"}))  # that one an audit trains
def test_a_network_is_trained_or_says_which_is(name):
    """Every name builds from what images say, or names what is trained in its place."""
    values = {
        "name": "t", "network": {"name": name}, "steps": 1, "batch_size": 2,
        "data": {"kind": "brain", "n": 4, "size": 16}, "objective": TRAINED[BUILDERS[name][0]],
    }  # fmt: skip
    config = check_config(values)
    rows = load_cohort(config.data)
    if name not in WEIGHTS_ONLY:
        assert make_objective(config, rows).players()
        return
    with pytest.raises(InputError, match=f"network.name: {name} is a name for weights .*; train {WEIGHTS_ONLY[name]}"):
        make_objective(config, rows)
    assert all(n in BUILDERS for n in re.split(r", | or ", WEIGHTS_ONLY[name]))


@pytest.mark.parametrize(("key", "value"), [("steps", 1e30), ("optimizer.warmup", 1e30), ("optimizer.warmup", 10**7)])
def test_runs_that_never_end_or_never_start_are_refused_by_name(key, value):
    values = {
        "name": "x", "steps": 100, "network": {"name": "cnn"}, "objective": {"kind": "classifier"},
        "data": {"kind": "brain", "n": 8},
    }  # fmt: skip
    check_config(values | {"optimizer": {"warmup": 500}, "steps": 3})
    inner, _, last = key.rpartition(".")
    (values.setdefault(inner, {}) if inner else values)[last] = value
    with pytest.raises(InputError, match=key):
        check_config(values)

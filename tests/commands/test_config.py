"""The page of all keys is complete and up to date, and the command prints parts of it."""

import re

import pytest
import yaml
from pydantic import BaseModel
from typer.testing import CliRunner

from cfx.cli import app
from cfx.commands.config import CONFIGS, another_verb, configuration, model, read_for, verb_of
from cfx.core.errors import InputError
from cfx.runtime.config import RunConfig, check
from cfx.runtime.keys import Keys


def test_the_page_is_up_to_date(root):
    assert (root / "docs" / "configuration.md").read_text() == configuration(), "run `make docs`"


@pytest.mark.parametrize("verb", CONFIGS)
def test_every_key_is_listed_and_has_a_meaning(verb):
    text = configuration(verb.split())
    listed = set(re.findall(r"^ *- `(\w+)(?:` \(|: )", text, re.MULTILINE))
    assert {path[-1] for path in Keys(model(verb)).paths()} == listed
    assert [line for line in text.splitlines() if re.search(r"\): *$", line)] == []
    assert "(any value" not in text


def test_every_configuration_of_a_run_is_listed():
    """A verb whose configuration is missing here has no reference."""

    def below(kind: type[BaseModel]) -> set[type]:
        return {kind}.union(*(below(inner) for inner in kind.__subclasses__()))

    listed = {model(verb) for verb in CONFIGS}
    assert {kind for kind in below(RunConfig) if kind.__module__.startswith("cfx.")} - {RunConfig} <= listed


@pytest.mark.parametrize("verb", ["train", "explain", "audit", "segment", "bench"])
def test_committed_files_stand_with_their_verb_and_are_valid(root, verb):
    """A bench's file is one of some bench."""
    models = [model(name) for name in CONFIGS if name.split()[0] == verb]
    files = sorted((root / "configs" / verb).glob("*.yaml"))
    assert files
    assert [path.name for path in files if not any(valid(m, yaml.safe_load(path.read_text())) for m in models)] == []


def valid(kind, values):
    """Whether values are a configuration of that class."""
    try:
        check(kind, values)
    except InputError:
        return False
    return True


def test_no_file_stands_elsewhere(root):
    found = {path.parent.relative_to(root / "configs").as_posix() for path in (root / "configs").rglob("*.yaml")}
    assert found == {"train", "explain", "audit", "bench", "ood", "segment", "attribute"}


def test_a_part_by_its_verb():
    assert configuration(["bench"]).count("\n## cfx bench ") + 1 == sum(verb.startswith("bench") for verb in CONFIGS)
    with pytest.raises(InputError, match=r"config: expected one of \['train', .*got 'exlain'"):
        configuration(["exlain"])


def test_the_command_prints_and_refuses():
    printed = CliRunner().invoke(app, ["config", "bench", "planted"])
    assert (printed.exit_code, printed.stdout) == (0, configuration(["bench", "planted"]))
    refused = CliRunner().invoke(app, ["config", "bench", "plated"])
    assert refused.exit_code == 2
    assert "got 'bench plated'" in refused.stderr


DATA, NETS = {"kind": "brain", "n": 4, "size": 16}, {"classifier": "c", "generator": "g"}
FILES = {
    "explain": {"name": "e", "data": DATA, **NETS, "rows": 4},
    "train": {
        "name": "t", "data": DATA, "network": {"name": "cnn"}, "objective": {"kind": "classifier"}, "steps": 1,
        "batch_size": 1, "validation": 0.1,
    },
    "audit": {"name": "a", "data": DATA, "plan": {"confounder": "shape", "seeds": 1}, "classifiers": ["c"]},
}  # fmt: skip


@pytest.mark.parametrize("given", FILES)
@pytest.mark.parametrize("verb", FILES)
def test_a_file_of_another_verb_is_told(tmp_path, given, verb):
    """In a line or two, with the first faults, and without every key of the command."""
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(FILES[given]))
    assert verb_of(tmp_path / "x.yaml")[0] == given
    if given == verb:
        assert another_verb(model(verb), tmp_path / "x.yaml") is None
        return
    done = CliRunner().invoke(app, [verb, str(tmp_path / "x.yaml")])
    assert done.exit_code == 2
    assert f"this looks like a file for cfx {given}: cfx {given} {tmp_path}/x.yaml" in done.stderr
    assert "unknown key" in done.stderr
    assert "Keys: " not in done.stderr
    assert len(done.stderr) < 400 + 3 * len(str(tmp_path))


def test_a_wrong_key_does_not_make_it_another_verbs(tmp_path):
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(FILES["train"] | {"batchsize": 2}))
    with pytest.raises(InputError, match=r"x\.yaml: unknown key `batchsize`; did you mean `batch_size`"):
        read_for(model("train"), tmp_path / "x.yaml")


@pytest.mark.parametrize("verb", ["train", "explain", "check"])
def test_a_folder_is_no_file(tmp_path, verb):
    done = CliRunner().invoke(app, [verb, str(tmp_path)])
    assert done.exit_code == 2
    assert verb == "train" or done.stderr == f"error: config {tmp_path}: expected a YAML file of keys, got a folder\n"

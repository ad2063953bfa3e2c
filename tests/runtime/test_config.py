"""Configuration of any run: overrides reach every value of a file, and what they cannot reach is named."""

import copy
import math
import os
import re
from pathlib import Path

import pytest
from pydantic import Field, ValidationError

from cfx.core.errors import InputError
from cfx.runtime.config import Frozen, RunConfig, UserPath, check, put, read_as, read_yaml, split_overrides


class Optimizer(Frozen):
    """Part of a run."""

    lr: float = Field(default=0.1, gt=0)
    """Learning rate."""


class Toy(RunConfig):
    """A run."""

    optimizer: Optimizer = Optimizer()
    """How it learns."""


VALUES = {
    "steps": 10,
    "optimizer": {"lr": 1e-4},
    "methods": [{"method": "ddim"}, {"method": "ace"}],
    "n": [],
}


@pytest.mark.parametrize(
    ("dotted", "text", "where"),
    [
        ("steps", "5", lambda v: v["steps"]),
        ("optimizer.lr", "5", lambda v: v["optimizer"]["lr"]),
        ("optimizer.beta.low", "5", lambda v: v["optimizer"]["beta"]["low"]),
        ("methods.0.rows", "5", lambda v: v["methods"][0]["rows"]),
        ("methods.1.settings.steps", "5", lambda v: v["methods"][1]["settings"]["steps"]),
        ("methods.1", "5", lambda v: v["methods"][1]),
    ],
)
def test_an_override_is_put_where_its_key_leads_and_nowhere_else(dotted, text, where):
    values = copy.deepcopy(VALUES)
    put(values, dotted, text)
    assert where(values) == 5
    assert str(values).count("5") == 1
    assert len(values["methods"]) == 2
    assert set(values) == set(VALUES)


@pytest.mark.parametrize(
    ("dotted", "text", "message"),
    [
        ("steps.more", "1", "override steps.more: steps is neither a mapping nor a list, so it has no 'more'"),
        ("methods.2.rows", "1", "override methods.2.rows: methods is a list; expected a position below 2, got '2'"),
        ("methods.-1.rows", "1", "expected a position below 2, got '-1'"),
        ("methods.ddim.rows", "1", "expected a position below 2, got 'ddim'"),
        ("methods.2", "1", "expected a position below 2, got '2'"),
        ("methods.0.method.x", "1", "methods.0.method is neither a mapping nor a list"),
        ("n.0", "1", "expected nothing: the list is empty, got '0'"),
        ("steps", "[1", "override steps: expected a value as in YAML, got '[1'"),
    ],
)
def test_an_override_that_leads_nowhere_is_refused(dotted, text, message):
    values = copy.deepcopy(VALUES)
    with pytest.raises(InputError) as error:
        put(values, dotted, text)
    assert message in str(error.value)
    assert values == VALUES


def test_a_file_with_overrides_on_top_is_the_object(tmp_path):
    (tmp_path / "toy.yaml").write_text("name: toy\noptimizer: {lr: 1e-4}\n")
    plain = read_as(Toy, tmp_path / "toy.yaml")
    assert plain == Toy(name="toy", optimizer=Optimizer(lr=1e-4))  # PyYAML reads 1e-4 as text
    words = ["--optimizer.lr=3e-4", "--out", "elsewhere"]
    assert read_as(Toy, str(tmp_path / "toy.yaml"), split_overrides(words)) == check(
        Toy, {"name": "toy", "out": "elsewhere", "optimizer": {"lr": 3e-4}}
    )


def test_where_a_run_writes():
    assert Toy(name="toy").folder == Path("runs/toy")
    assert Toy(name="toy", out="~/x").folder == Path.home() / "x"


def test_a_configuration_is_frozen_and_survives_a_round_trip():
    config = Toy(name="toy", optimizer=Optimizer(lr=3))
    assert check(Toy, config.model_dump(mode="json")) == config
    with pytest.raises(ValidationError, match="frozen"):
        config.name = "other"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("none.yaml", None, r"config .*none\.yaml: .*No such file"),
        ("list.yaml", "- 1", r"config .*list\.yaml: expected a mapping of keys, got list"),
        ("bad.yaml", "a: [", r"config .*bad\.yaml: while parsing"),
        ("toy.yaml", "name: toy\nota: 1", r"config .*toy\.yaml: unknown key `ota`; did you mean `out`\?"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, name, text, message):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_as(Toy, tmp_path / name)


def test_text_becomes_overrides():
    words = ["--optimizer.lr", "3e-4", "--steps=5", "--name", "a=b", "--text="]
    assert split_overrides(words) == {"optimizer.lr": "3e-4", "steps": "5", "name": "a=b", "text": ""}


@pytest.mark.parametrize("words", [["lr", "3"], ["--lr"], ["--", "3"], ["--=3"]])
def test_arguments_that_are_no_overrides(words):
    with pytest.raises(InputError, match="expected --key value or --key=value"):
        split_overrides(words)


class Placed(Frozen):
    """Somewhere."""

    path: UserPath
    """Where."""


@pytest.mark.parametrize("path", ["~", "~/a", "$HERE/a", "${HERE}/a/$HERE", "a", "/a/b", "a b~", "~a/x$HERE"])
@pytest.mark.parametrize("kind", [str, Path])
def test_paths_are_read_as_in_a_shell(tmp_path, monkeypatch, path, kind):
    monkeypatch.setenv("HOME", "/somewhere")
    monkeypatch.setenv("HERE", "there")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~a").mkdir()
    (tmp_path / "~a" / "x$HERE").touch()  # a file that is called so is meant
    wanted = {"~": "/somewhere", "~/a": "/somewhere/a", "$HERE/a": "there/a", "${HERE}/a/$HERE": "there/a/there"}
    assert Placed(path=kind(path)).path == Path(wanted.get(path, path))


@pytest.mark.parametrize(
    ("path", "message"), [("$NO_SUCH_NAME/a", "variables that are set, got"), ("~no-such-user/a", "home folder, got")]
)
def test_paths_that_lead_nowhere_are_refused(path, message):
    with pytest.raises(InputError, match=message):
        check(Placed, {"path": path})


class Place(Frozen):
    """Something at a path."""

    path: str
    """Where it is."""
    size: int = 1
    """How large."""


class Places(Frozen):
    """Texts that stand for a path, and one that does not."""

    one: str | Place
    """One."""
    several: tuple[str | Place, ...] = ()
    """Several."""
    word: str = ""
    """A word."""


def test_a_text_that_stands_for_a_path_opens_for_its_other_keys(tmp_path):
    (tmp_path / "a.yaml").write_text("{one: here, several: [there, {path: elsewhere}], word: x}")
    overrides = {"one.size": "3", "several.0.size": "4", "several.1.size": "5"}
    found = read_as(Places, tmp_path / "a.yaml", overrides)
    assert found.one == Place(path="here", size=3)
    assert found.several == (Place(path="there", size=4), Place(path="elsewhere", size=5))
    with pytest.raises(InputError, match=r"override word.size: word is neither a mapping nor a list"):
        read_as(Places, tmp_path / "a.yaml", {"word.size": "3"})


@pytest.mark.parametrize(
    ("out", "folder"),
    [
        ("~/x", "{home}/x"),
        ("~", "{home}"),
        ("$THERE/x", "/some/where/x"),
        ("${THERE}", "/some/where"),
        ("a/~b", "a/~b"),
    ],
)
def test_a_run_writes_where_a_shell_would(monkeypatch, out, folder):
    monkeypatch.setenv("THERE", "/some/where")
    assert str(Toy(name="toy", out=out).folder) == folder.format(home=Path.home())


@pytest.mark.parametrize("out", ["$NO_SUCH_NAME/a", "~no-such-user/a"])
def test_a_place_that_is_none_is_refused_by_name(out):
    with pytest.raises(InputError, match="config toy: out: expected"):
        check(Toy, {"name": "toy", "out": out}, "toy")


BOMB = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (BOMB, "values, got 4.9e+08 by aliases of aliases"),
        ("a: &a [*a]", "values inside values without end"),
        ("a: " + "[" * 5000 + "]" * 5000, "values inside values without end"),
    ],
)
def test_a_bomb_of_values_is_refused(tmp_path, text, said):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(InputError, match=re.escape(said)):
        read_yaml(tmp_path / "c.yaml")


def test_aliases_are_values_like_others(tmp_path):
    (tmp_path / "c.yaml").write_text("a: &a {x: 1}\nb: *a\nc: [*a, *a]\n")
    assert read_yaml(tmp_path / "c.yaml") == {"a": {"x": 1}, "b": {"x": 1}, "c": [{"x": 1}, {"x": 1}]}


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "c.yaml")
    with pytest.raises(InputError, match="got a pipe or a device"):
        read_yaml(tmp_path / "c.yaml")


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_no_number_is_infinite(value):
    class Numbers(Frozen):
        """Numbers."""

        x: float
        """One."""
        y: tuple[float, ...] = ()
        """Several."""

    for values in ({"x": value}, {"x": 1, "y": [1, value]}):
        with pytest.raises(InputError, match=r"(x|y\.1): Input should be a finite number"):
            check(Numbers, values)

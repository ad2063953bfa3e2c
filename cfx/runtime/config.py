"""Configuration of a run: frozen, complete, and the same object from YAML, the command line and Python."""

import os
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError, field_validator

from cfx.core.errors import InputError
from cfx.runtime.faults import faults
from cfx.runtime.files import resolved
from cfx.runtime.keys import Keys, follow

Config = TypeVar("Config", bound=BaseModel)
_MOST, _LONGEST, _DEEPEST = 100_000, 1_000_000, 200  # values, characters, and brackets that are open at a time


def user_path(path: str | Path) -> Path:
    """A path as a shell would read it: `~` is the home folder, `$NAME` and `${NAME}` are environment variables.

    Raises:
        ValueError: a variable or a user that does not exist, in a path that does not exist as it is written either.
    """
    if os.path.lexists(path):
        return Path(path)
    found = resolved(path)
    if str(found).startswith("~"):
        raise ValueError(f"expected an existing user's home folder, got {path}")
    if "$" in str(found):
        raise ValueError(f"expected environment variables that are set, got {path}")
    return found


def expanded(path: str | Path, name: str = "path") -> Path:
    """As `user_path`, of a path that is an argument.

    Raises:
        InputError: no such user or variable; it names the argument.
    """
    try:
        return user_path(path)
    except ValueError as error:
        raise InputError(f"{name}: {error}") from error


UserPath = Annotated[Path, AfterValidator(user_path)]
"""A path in a configuration, in which `~`, `$NAME` and `${NAME}` are what they are in a shell."""


class Frozen(BaseModel):
    """Base of the configuration: immutable, unknown keys and infinite numbers refused, docstrings as descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)


class RunConfig(Frozen):
    """What every run has: a name, and a folder for all that it leaves behind."""

    name: str
    """Name of the run."""
    out: str = ""
    """Folder to write; `runs/<name>` by default."""

    @field_validator("out")
    @classmethod
    def _there(cls, out: str) -> str:
        """A home folder or a variable that does not exist is no place to write."""
        return out if not out else str(user_path(out))

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.out or f"runs/{self.name}")


def read_as(model: type[Config], path: str | Path, overrides: Mapping[str, str] | None = None) -> Config:
    """Read a YAML file, put dotted overrides on top (`{"optimizer.lr": "3e-4"}`), and check the result.

    Raises:
        InputError: no such file, not YAML, or a key or value that is not part of `model`; the message names the file
            and the dotted key.
    """
    values = read_yaml(path)
    for key, text in (overrides or {}).items():
        _open_up(model, values, key)
        put(values, key, text)
    return check(model, values, str(path))


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The keys and values of a YAML file, unchecked.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    expected = f"config {path}: expected a YAML file of keys"
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InputError(f"{expected}, got a pipe or a device")
    try:
        text = Path(path).read_text()
        _check_depth(text, path)
        values = yaml.safe_load(text)
        _check_size(values, path)
    except FileNotFoundError as error:
        raise InputError(f"{expected}: No such file") from error
    except IsADirectoryError as error:
        raise InputError(f"{expected}, got a folder") from error
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{expected}, got values inside values without end") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise InputError(f"config {path}: {error}") from error
    if not isinstance(values, dict):
        got = "nothing" if values is None else type(values).__name__
        raise InputError(f"config {path}: expected a mapping of keys, got {got}")
    return values


def _check_depth(text: str, path: str | Path) -> None:
    """Refuse what the parser would take for ever over: its time grows with the square of the brackets that are open.

    Raises:
        InputError: more than a megabyte, or brackets inside brackets without end.
    """
    if len(text) > _LONGEST:
        raise InputError(f"config {path}: expected at most {_LONGEST} characters, got {len(text)}")
    steps = ({"[": 1, "{": 1, "]": -1, "}": -1}.get(letter, 0) for letter in text)
    if max(accumulate(steps), default=0) > _DEEPEST:
        raise InputError(f"config {path}: expected a YAML file of keys, got values inside values without end")


def _check_size(values: object, path: str | Path) -> None:
    """Refuse aliases inside aliases that stand for more values than anybody wrote.

    Raises:
        InputError: more than a hundred thousand.
        RecursionError: a value that is inside itself.
    """
    sizes: dict[int, int] = {}

    def size(value: object) -> int:
        if not isinstance(value, dict | list):
            return 1
        if id(value) not in sizes:
            sizes[id(value)] = 1 + sum(map(size, value.values() if isinstance(value, dict) else value))
        return sizes[id(value)]

    if (found := size(values)) > _MOST:
        raise InputError(f"config {path}: expected at most {_MOST} values, got {found:.3g} by aliases of aliases")


def _open_up(model: type[BaseModel], values: dict[str, Any], dotted: str) -> None:
    """Make `{path: text}` of a text on the way of a dotted key, where that may stand for it: `classifier: folder`."""
    parts = [int(part) if part.isdecimal() else part for part in dotted.split(".")]
    for depth in range(1, len(parts)):
        found = follow(values, parts[:depth])
        if isinstance(found, str):
            keys = Keys(model)
            if any("path" in mapping["properties"] for mapping in keys.mappings(keys.node(values, parts[:depth]))):
                follow(values, parts[: depth - 1])[parts[depth - 1]] = {"path": found}  # type: ignore[index]
            return


def check(model: type[Config], values: Mapping[str, Any], source: str = "values") -> Config:
    """A configuration of plain values.

    Raises:
        InputError: naming every offending dotted key of `source`, and the right key nearest to an unknown one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(f"config {source}: " + "; ".join(faults(model, values, error))) from error


def put(values: dict[str, Any], dotted: str, text: str) -> None:
    """Set `values[a][b] = text` for the key `a.b`, reading the text as YAML; `a.0.b` leads into a list.

    A mapping that is missing on the way is made; a list is never lengthened.

    Raises:
        InputError: a part of the key leads into something that has no parts, or past the end of a list, or the text is
            not YAML.
    """
    parts = dotted.split(".")
    try:
        new = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise InputError(f"override {dotted}: expected a value as in YAML, got {text!r}") from error
    inner: Any = values
    for depth, part in enumerate(parts):
        place = _place(inner, part, dotted, ".".join(parts[:depth]))
        if depth == len(parts) - 1:
            inner[place] = new
        elif isinstance(inner, dict):
            inner = inner.setdefault(place, {})
        else:
            inner = inner[place]


def _place(inner: object, part: str, dotted: str, path: str) -> str | int:
    """Where `part` stands in what `path` leads to: a key of a mapping, or a position in a list."""
    if isinstance(inner, dict):
        return part
    if not isinstance(inner, list):
        raise InputError(f"override {dotted}: {path} is neither a mapping nor a list, so it has no {part!r}")
    if not (part.isdecimal() and int(part) < len(inner)):
        given = f"a position below {len(inner)}" if inner else "nothing: the list is empty"
        raise InputError(f"override {dotted}: {path} is a list; expected {given}, got {part!r}")
    return int(part)


def split_overrides(arguments: Sequence[str]) -> dict[str, str]:
    """Turn `["--optimizer.lr", "3e-4", "--steps=5"]` into `{"optimizer.lr": "3e-4", "steps": "5"}`.

    Raises:
        InputError: something that is not `--key value` or `--key=value`.
    """
    found: dict[str, str] = {}
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key or not (equals or rest):
            raise InputError(f"arguments: expected --key value or --key=value, got {word!r}")
        found[key] = value if equals else rest.pop(0)
    return found

"""Configuration of a run: frozen, complete, and the same object from YAML, the command line and Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from cfx.core.errors import InputError

Config = TypeVar("Config", bound=BaseModel)


class Frozen(BaseModel):
    """Base of the configuration: immutable, unknown keys refused, attribute docstrings as descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class RunConfig(Frozen):
    """What every run has: a name, and a folder for all that it leaves behind."""

    name: str
    """Name of the run."""
    out: str = ""
    """Folder to write; `runs/<name>` by default."""

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        return Path(self.out or f"runs/{self.name}").expanduser()


def read_as(model: type[Config], path: str | Path, overrides: Mapping[str, str] | None = None) -> Config:
    """Read a YAML file, put dotted overrides on top (`{"optimizer.lr": "3e-4"}`), and check the result.

    Raises:
        InputError: no such file, not YAML, or a key or value that is not part of `model`; the message names the file
            and the dotted key.
    """
    try:
        values = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError) as error:
        raise InputError(f"config {path}: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"config {path}: expected a mapping of keys, got {type(values).__name__}")
    for key, text in (overrides or {}).items():
        put(values, key, text)
    return check(model, values, str(path))


def check(model: type[Config], values: Mapping[str, Any], source: str = "values") -> Config:
    """A configuration of plain values.

    Raises:
        InputError: naming every offending dotted key of `source`.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        parts = [f"{'.'.join(str(p) for p in e['loc']) or 'top level'}: {e['msg']}" for e in error.errors()]
        raise InputError(f"config {source}: " + "; ".join(parts)) from error


def put(values: dict[str, Any], dotted: str, text: str) -> None:
    """Set `values[a][b] = text` for the key `a.b`, reading the text as YAML.

    Raises:
        InputError: a part of the key leads into something that is not a mapping.
    """
    *path, last = dotted.split(".")
    inner = values
    for part in path:
        inner = inner.setdefault(part, {})
        if not isinstance(inner, dict):
            raise InputError(f"override {dotted}: {part} is not a mapping")
    inner[last] = yaml.safe_load(text)


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

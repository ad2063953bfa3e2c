"""What a run leaves behind: `config.yaml`, `summary.json`, `results.json`, `table.md`, pages and figures, in one place.

Every file is written whole or not at all, and by the main process alone.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from cfx.core.errors import InputError
from cfx.runtime.files import write_whole
from cfx.runtime.shares import is_main

Scalar = float | int | str | bool | None


class RunFolder:
    """The folder of one run. Every process may call every method; the main one writes.

    Attributes:
        path: The folder.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Name the folder; the first file that is written creates it."""
        self.path = Path(path)

    def __truediv__(self, name: str) -> Path:
        """The path of something in the folder."""
        return self.path / name

    def said(self, files: str) -> str:
        """The table and where everything is, for the console; the main process alone has a table to show."""
        table = self.path / "table.md"
        return f"{table.read_text() if table.exists() else ''}\nwrote {self.path}/{files}, config.yaml"

    def config(self, config: BaseModel) -> None:
        """`config.yaml`: the configuration as resolved."""
        self.write("config.yaml", yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))

    def begin(self, config: BaseModel) -> None:
        """`config.yaml` anew, and away with the summary and the page of what was here before."""
        self.config(config)
        for name in ("summary.json", "report.html") if is_main() else ():
            (self.path / name).unlink(missing_ok=True)

    def summary(self, metrics: Mapping[str, object]) -> dict[str, Scalar]:
        """`summary.json`: the numbers of the run; what `write_summary` takes, returns and raises."""
        if is_main():
            return write_summary(self.path / "summary.json", metrics)
        return dict(sorted(flatten(metrics).items()))

    def results(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """`results.json`: the rows of a comparison, JSON values; no NaN."""
        self.write("results.json", json.dumps(rows, indent=2, allow_nan=False) + "\n")

    def table(self, text: str, name: str = "table.md") -> None:
        """A table in markdown."""
        self.write(name, text)

    def page(self, text: str, name: str = "report.html") -> None:
        """A page of HTML."""
        self.write(name, text)

    def figure(self, data: bytes, name: str = "figure.png") -> None:
        """A picture."""
        self.write(name, data)

    def write(self, name: str, data: str | bytes) -> None:
        """Any other file of the run.

        Raises:
            CfxError: the file cannot be written.
        """
        if is_main():
            write_whole(self.path / name, data)


def write_summary(path: str | os.PathLike[str], metrics: Mapping[str, object]) -> dict[str, Scalar]:
    """Write metrics as one flat JSON object, keys sorted, NaN and infinities as null, the whole file or nothing.

    Args:
        path: File to write; its folder is created.
        metrics: Numbers (also one-element arrays and tensors), strings, booleans or None; a nested mapping
            contributes `outer_inner` keys.

    Returns:
        What was written.

    Raises:
        InputError: a value of another kind, or two values under one flat name.
        CfxError: the file cannot be written.
    """
    found = dict(sorted(flatten(metrics).items()))
    write_whole(Path(path), (json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())
    return found


def flatten(metrics: Mapping[str, object], prefix: str = "") -> dict[str, Scalar]:
    """Metrics with flat names and JSON values, in the order given.

    Raises:
        InputError: a value that is not a scalar, or two values under one flat name.
    """
    flat: dict[str, Scalar] = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        part = flatten(value, f"{name}_") if isinstance(value, Mapping) else {name: _scalar(name, value)}
        if double := sorted(flat.keys() & part.keys()):
            raise InputError(f"metrics: expected distinct flat names, got {double} twice")
        flat |= part
    return flat


def _scalar(name: str, value: object) -> Scalar:
    item = getattr(value, "item", None)
    if callable(item):
        try:
            value = item()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"metrics[{name!r}]: expected one number, got {type(value).__name__}: {error}") from error
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise InputError(f"metrics[{name!r}]: expected a number, a string or None, got {type(value).__name__}")

"""The table beside a folder of images: which file, which label, which covariates."""

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.errors import InputError


def some(values: Iterable[object], most: int = 8) -> str:
    """The first few values as text, and how many there are in all."""
    values = list(values)
    more = f", ... {len(values)} in all" if len(values) > most else ""
    return ", ".join(map(str, values[:most])) + more


@dataclass(frozen=True)
class Table:
    """A csv file with a header, every cell as text.

    Attributes:
        path: Where it was read.
        columns: Cells of every column, in the order of the rows.
    """

    path: Path
    columns: dict[str, list[str]]

    @classmethod
    def read(cls, path: Path) -> "Table":
        """Read a comma-separated file whose first line names the columns.

        Raises:
            InputError: no such file, one that is no text in UTF-8, no rows, a column named twice, or a row with more or
                fewer cells than the header.
        """
        if not path.is_file():
            raise InputError(f"table: expected a csv file, found none at {path}")
        try:
            with path.open(newline="", encoding="utf-8-sig") as file:
                rows = [[cell.strip() for cell in row] for row in csv.reader(file) if row]
        except (UnicodeDecodeError, csv.Error) as error:
            raise InputError(f"{path}: expected comma-separated text in UTF-8, {error}") from error
        if len(rows) < 2:
            raise InputError(f"{path}: expected a header and at least one row, got {len(rows)} lines")
        header, body = rows[0], rows[1:]
        if twice := {name for name in header if header.count(name) > 1}:
            raise InputError(f"{path}: columns named more than once: {some(sorted(twice))}")
        for number, row in enumerate(body, start=1):
            if len(row) != len(header):
                raise InputError(f"{path}: row {number} has {len(row)} cells, the header names {len(header)} columns")
        return cls(path, {name: [row[i] for row in body] for i, name in enumerate(header)})

    def column(self, name: str, what: str) -> list[str]:
        """The cells of a column, none of them empty.

        Args:
            name: The column.
            what: The setting that names it, for the error message.

        Raises:
            InputError: no such column (the message lists those there are), or empty cells.
        """
        if name not in self.columns:
            raise InputError(f"{what}: no column {name!r} in {self.path}; it has {some(self.columns, 40)}")
        cells = self.columns[name]
        if empty := [i for i, cell in enumerate(cells, start=1) if not cell]:
            raise InputError(f"{self.path}: column {name!r} is empty in rows {some(empty)}")
        return cells

    def names(self, column: str) -> tuple[str, ...]:
        """The file names, each once.

        Raises:
            InputError: as `column`, or a name that stands in two rows.
        """
        cells = self.column(column, "filename")
        if twice := sorted(name for name, times in Counter(cells).items() if times > 1):
            raise InputError(f"{self.path}: column {column!r} names these more than once: {some(twice)}")
        return tuple(cells)

    def covariates(self, without: Sequence[str]) -> dict[str, Float[Tensor, " n"]]:
        """Every other column of numbers, as float64 with NaN for an empty cell; columns of text are left out."""
        found = {}
        for name, cells in self.columns.items():
            values = [number(cell) if cell else float("nan") for cell in cells]
            if name not in without and any(cells) and None not in values:
                found[name] = torch.tensor(values, dtype=torch.float64)
        return found


def number(cell: str) -> float | None:
    """The cell as a number, None if it is not one."""
    try:
        return float(cell)
    except ValueError:
        return None


def encode(cells: Sequence[str], classes: Sequence[str], name: str) -> tuple[Int[Tensor, " n"], tuple[str, ...]]:
    """Class labels to integers.

    Names become their place in `classes`, or in alphabetical order where no classes are given. Whole numbers stand
    for themselves, so that a split which lacks a class keeps the numbering of the others.

    Args:
        cells: One label a row.
        classes: Names of the classes in label order, or empty.
        name: The column, for the error message.

    Returns:
        The labels, and the names of the classes (empty for whole numbers without names).

    Raises:
        InputError: a label outside the classes, a negative one, or numbers that are not whole.
    """
    if classes and set(cells) <= set(classes):
        return torch.tensor([list(classes).index(cell) for cell in cells]), tuple(classes)
    values = [number(cell) for cell in cells]
    numeric = [value for value in values if value is not None]
    if len(numeric) < len(cells):
        if classes:
            raise InputError(
                f"{name}: labels {some(sorted(set(cells) - set(classes)))} are not among the classes {classes}"
            )
        return encode(cells, sorted(set(cells)), name)
    if wrong := sorted({value for value in numeric if value < 0 or not value.is_integer()}):
        raise InputError(f"{name}: expected class names or whole numbers from 0, got {some(wrong)}")
    check_labels(y := torch.tensor([int(value) for value in numeric]), classes, name)
    return y, tuple(classes)


def labels_of(raw: npt.NDArray[Any], classes: Sequence[str], name: str) -> Int[Tensor, " n"] | Float[Tensor, "n k"]:
    """Labels of an array of numbers: classes `(n,)` of `(n,)` or `(n, 1)`, or 0/1 `(n, k)`.

    Args:
        raw: The array.
        classes: Names of the classes in label order, or empty.
        name: What the array is, for the error message.

    Raises:
        InputError: another shape, no whole numbers, or labels without a name among the classes.
    """
    if raw.ndim not in (1, 2) or raw.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected numbers (n,), (n, 1) or (n, k), got {raw.dtype} {raw.shape}")
    values = torch.from_numpy(raw.astype(np.float64))
    if raw.ndim == 2 and raw.shape[1] > 1:
        return _several(values, classes, name)
    y = values.flatten().long()
    if bool((y != values.flatten()).any()) or bool((y < 0).any()):
        raise InputError(f"{name}: expected whole numbers from 0, got {some(values.unique().tolist())}")
    check_labels(y, classes, name)
    return y


def _several(values: Float[Tensor, "n k"], classes: Sequence[str], name: str) -> Float[Tensor, "n k"]:
    """Several 0/1 labels a row."""
    if bool(((values != 0) & (values != 1)).any()):
        raise InputError(f"{name}: several labels a row must be 0 or 1, got {some(values.unique().tolist())}")
    if classes and len(classes) != values.shape[1]:
        raise InputError(f"{name}: {values.shape[1]} labels a row, but {len(classes)} classes {classes}")
    return values.float()


def check_labels(y: Int[Tensor, " n"], classes: Sequence[str], name: str) -> None:
    """Refuse labels that have no name among the classes; without names everything passes.

    Raises:
        InputError: a label that is not a place in `classes`.
    """
    if classes and int(y.max()) >= len(classes):
        raise InputError(f"{name}: label {int(y.max())} is outside the {len(classes)} classes {tuple(classes)}")


def find(folder: Path, names: Sequence[str], suffixes: Sequence[str], what: str) -> list[Path]:
    """The file of every name, which may be written with or without its suffix.

    Args:
        folder: Where the files lie.
        names: Names relative to the folder.
        suffixes: Suffixes to try, with their dot.
        what: The setting that names the folder, for the error message.

    Raises:
        InputError: the folder or some of the files do not exist; the message lists them.
    """
    if not folder.is_dir():
        raise InputError(f"{what}: expected a folder, found none at {folder}")
    tried = [[folder / f"{name}{suffix}" for suffix in ("", *suffixes)] for name in names]
    found = [next((path for path in paths if path.is_file()), None) for paths in tried]
    if missing := [name for name, path in zip(names, found, strict=True) if path is None]:
        raise InputError(f"{what}: no file in {folder} for {some(missing)} (tried the suffixes {some(suffixes)})")
    return [path for path in found if path is not None]

"""Reading an atlas: columns as their class has them, and damage named by its array and its rows.

Nothing that is gone, empty or cut off may be taken for the fill value: a chunk file must be there, its shard's index
must list the chunks that are asked for, and every chunk passes its CRC32C.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, get_origin, get_type_hints
from urllib.parse import unquote

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from cfx.atlas.layout import COMPLETE, thin
from cfx.core.errors import AtlasError
from cfx.core.rows import Column, Rows, Values

# What zarr, its codecs and the file system raise for a damaged or unreachable chunk.
FAILURES: Final = (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AssertionError)
_ABSENT = 2**64 - 1  # what the index of a shard says of a chunk that was never written


class Reader:
    """The arrays of an atlas on disk.

    Attributes:
        path: The folder of the store.
        arrays: Every array by name.
        space: Names of the spatial axes.
        rows: Row number of every sample, for messages; empty while it is not known.
    """

    def __init__(self, path: Path, arrays: "Mapping[str, zarr.Array[Any]]", space: Sequence[str]) -> None:
        self.path, self.arrays, self.space = path, arrays, tuple(space)
        self.rows: list[int] = []
        self.rows = self.read("row").tolist()

    def columns(self, kind: type[Rows]) -> dict[str, tuple[Column, "zarr.Array[Any]"]]:
        """The columns of a class that are stored here, by field, each with its array."""
        found: dict[str, tuple[Column, zarr.Array[Any]]] = {}
        for column in kind.columns():
            if column.mapping:
                start = f"{column.array}."
                inside = {name: array for name, array in self.arrays.items() if name.startswith(start)}
                found |= {f"{column.name}.{unquote(k.removeprefix(start))}": (column, v) for k, v in inside.items()}
            elif column.array in self.arrays:
                found[column.name] = (column, self.arrays[column.array])
        return found

    def value(
        self, kind: type[Rows], attributes: Mapping[str, Any], at: NDArray[np.int64], images: bool
    ) -> tuple[dict[str, Values], dict[str, Any]]:
        """What `kind.of` makes a value of these samples from, the root attributes among it."""
        parts: dict[str, Values] = {}
        for name, (column, array) in self.columns(kind).items():
            read = self._tensor if images or not self._spatial(array) else self._bare
            parts[name] = read(column, array, at)
        names = [f.name for f in fields(kind) if f.name in attributes]  # type: ignore[arg-type]
        hints = get_type_hints(kind)
        return parts, {name: _as_declared(attributes[name], hints[name]) for name in names}

    def read(self, name: str, at: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Values at these samples (default: all), or an error that names the damaged samples."""
        array = self.arrays.get(name)
        if array is None:
            raise AtlasError(f"{self.path}: array {name!r} is not there or its metadata is damaged")
        where = np.arange(array.shape[0]) if at is None else at
        try:
            return self._checked(array, name, where)
        except FAILURES as error:
            bad = [i for i in where.tolist() if not self._readable(array, name, i)]
            rows = [self.rows[i] for i in bad] if self.rows else bad
            message = f"array {name!r} is damaged at sample rows {rows}: {error or type(error).__name__}"
            raise AtlasError(f"{self.path}: {message}") from error

    def _spatial(self, array: "zarr.Array[Any]") -> bool:
        """Whether an array has spatial axes."""
        return any(name in self.space for name in _names(array))

    def _bare(self, column: Column, array: "zarr.Array[Any]", at: NDArray[np.int64]) -> Tensor:
        """A column of images without their pixels."""
        lengths = [0 if name in self.space else length for name, length in zip(_names(array), array.shape, strict=True)]
        found = torch.from_numpy(np.zeros([len(at), *lengths[1:]], array.dtype))
        return next(thick for shape in column.shapes if (thick := _thick(shape.axes, found)) is not None)

    def _tensor(self, column: Column, array: "zarr.Array[Any]", at: NDArray[np.int64]) -> Values:
        """A column of these samples as the class has it."""
        found = np.array(self.read(array.basename, at))
        if not column.shapes:
            return tuple(str(text) for text in found)
        value = torch.from_numpy(found)
        shape = next(shape for shape in column.shapes if shape.holds(value) and _thick(shape.axes, value) is not None)
        return _thick(shape.axes, value)  # type: ignore[return-value]

    def _checked(self, array: "zarr.Array[Any]", name: str, at: NDArray[np.int64]) -> NDArray[Any]:
        """Read, but never take what is gone for the fill value; only the flags of shards not begun may lack files."""
        size = (array.shards or array.chunks)[0]
        for shard in sorted({int(i) // size for i in at}):
            key = array.metadata.encode_chunk_key((shard, *[0] * (array.ndim - 1)))
            file = self.path / name / key
            if name == COMPLETE and not file.exists():
                continue
            if not file.is_file() or not file.stat().st_size:
                raise FileNotFoundError(f"chunk file {name}/{key} is {'empty' if file.is_file() else 'gone'}")
            if array.shards is not None:
                inside = [int(i) % size for i in at if int(i) // size == shard]
                _check_index(file, f"{name}/{key}", inside, size // array.chunks[0])
        return _get(array, at)

    def _readable(self, array: zarr.Array[Any], name: str, i: int) -> bool:
        try:
            self._checked(array, name, np.array([i]))
        except FAILURES:
            return False
        return True


def _check_index(file: Path, name: str, inside: Sequence[int], chunks: int) -> None:
    """Refuse a shard whose index lacks chunks; they would be read as the fill value."""
    with file.open("rb") as stream:
        stream.seek(-(16 * chunks + 4), os.SEEK_END)
        index = np.frombuffer(stream.read(16 * chunks), "<u8").reshape(chunks, 2)
    lost = [i for i in inside if index[i, 0] == _ABSENT]
    if lost:
        raise FileNotFoundError(f"chunk file {name} lacks the chunks {lost}")


def _thick(symbols: tuple[str, ...], value: Tensor) -> Tensor | None:
    """A stored tensor with the axes of length one that its class fixes; None if these are not its axes."""
    for place in thin(symbols):
        if place > value.ndim:
            return None
        value = value.unsqueeze(place)
    spatial = any(axis.startswith("*") for axis in symbols)
    fits = value.ndim > len(symbols) if spatial else value.ndim == 1 + len(symbols)
    return value if fits else None


def _as_declared(value: Any, hint: Any) -> Any:  # noqa: ANN401
    """A JSON value as its field declares it: JSON knows lists only."""
    return tuple(value) if isinstance(value, list) and get_origin(hint) is tuple else value


def _names(array: "zarr.Array[Any]") -> tuple[str, ...]:
    """Names of the axes of an array."""
    names: Sequence[str] = getattr(array.metadata, "dimension_names", None) or ()
    return tuple(names)


def runs(at: NDArray[np.int64]) -> list[slice]:
    """Where ascending-by-one runs of `at` begin and end; zarr's fancy indexing fails inside shards."""
    cuts = [0, *(np.flatnonzero(np.diff(at) != 1) + 1).tolist(), len(at)]
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]


def _get(array: zarr.Array[Any], at: NDArray[np.int64]) -> NDArray[Any]:
    if not len(at):
        return np.asarray(array[:0])
    return np.concatenate([np.asarray(array[at[run][0] : at[run][-1] + 1]) for run in runs(at)])

"""Reading an atlas: columns as their class has them, and damage named by its array and its rows.

Nothing that is gone, empty or cut off may be taken for the fill value: a chunk file must be there, its shard's index
must list the chunks that are asked for, every chunk passes its CRC32C, and every row the checksum of its place.
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

from cfx.atlas.layout import CHECKSUM, COMPLETE, SAMPLE, thin
from cfx.atlas.proof import Checks, Proof
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
        proof: What its rows are proved by; None up to schema 4.
        rows: Row number of every sample, for messages; empty while it is not known.
    """

    def __init__(
        self, path: Path, arrays: "Mapping[str, zarr.Array[Any]]", space: Sequence[str], proof: Proof | None = None
    ) -> None:
        self.path, self.arrays, self.space, self.proof = path, arrays, tuple(space), proof
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
        checks = self.checks(at)
        for name, (column, array) in self.columns(kind).items():
            bare = self._spatial(array) and not images
            parts[name] = self._bare(column, array, at) if bare else self._tensor(column, array, at, checks)
        names = [f.name for f in fields(kind) if f.name in attributes]  # type: ignore[arg-type]
        hints = get_type_hints(kind)
        return parts, {name: _as_declared(attributes[name], hints[name]) for name in names}

    def complete(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these samples are complete, as the disk says now; the checksums decide, which are written last."""
        flags, checks = self.read(COMPLETE, at), self.checks(at)
        if self.proof is None or checks is None:
            return flags
        data = [k for name, k in self.proof.at.items() if name not in (SAMPLE, CHECKSUM)]
        found: NDArray[np.bool_] = (checks[:, data] != self.proof.nothing(self._rows_at(at))[:, None]).any(1)
        if (wrong := found & ~flags).any():
            raise self._damage(self.arrays[COMPLETE], COMPLETE, at[wrong], "not what was written for these rows")
        return found

    def checks(self, at: NDArray[np.int64]) -> Checks | None:
        """The checksums of these samples as they are stored, which prove themselves; None where there are none."""
        if self.proof is None:
            return None
        found = self.read(CHECKSUM, at)
        return self._proved(CHECKSUM, at, found, found, found[:, :-1])

    def _proved(
        self, name: str, at: NDArray[np.int64], found: NDArray[Any], checks: Checks, values: NDArray[Any]
    ) -> NDArray[Any]:
        """What was found at these samples of an array, if its values are what their checksums say."""
        assert self.proof is not None
        wrong = self.proof.of(name, self._rows_at(at), values) != checks[:, self.proof.at[name]]
        if wrong.any():
            raise self._damage(self.arrays[name], name, at[wrong], "not what was written for these rows")
        return found

    def read(self, name: str, at: NDArray[np.int64] | None = None, checks: Checks | None = None) -> NDArray[Any]:
        """Values at these samples (default: all), or an error that names the damaged samples and their files.

        Args:
            name: The array.
            at: The samples.
            checks: Their stored checksums, where the values are to be proved by them.
        """
        array = self.arrays.get(name)
        if array is None:
            raise AtlasError(f"{self.path}: array {name!r} is not there or its metadata is damaged")
        where = np.arange(array.shape[0]) if at is None else at
        try:
            found = self._checked(array, name, where)
        except FAILURES as error:
            bad = np.array([i for i in where.tolist() if not self._readable(array, name, i)], dtype=np.int64)
            raise self._damage(array, name, bad, str(error) or type(error).__name__) from error
        return found if checks is None else self._proved(name, where, found, checks, found)

    def _rows_at(self, at: NDArray[np.int64]) -> list[int]:
        return [self.rows[i] for i in at.tolist()]

    def _damage(self, array: "zarr.Array[Any]", name: str, bad: NDArray[np.int64], why: str) -> AtlasError:
        """The error that names damaged samples, and their files."""
        rows = self._rows_at(bad) if self.rows else bad.tolist()
        files = sorted({chunk_file(array, name, i) for i in bad.tolist()})
        where = "" if len(files) == 1 and files[0] in why else f"; in {', '.join(files)}"
        return AtlasError(f"{self.path}: array {name!r} is damaged at sample rows {rows}: {why}{where}")

    def _spatial(self, array: "zarr.Array[Any]") -> bool:
        """Whether an array has spatial axes."""
        return any(name in self.space for name in _names(array))

    def _bare(self, column: Column, array: "zarr.Array[Any]", at: NDArray[np.int64]) -> Tensor:
        """A column of images without their pixels."""
        lengths = [0 if name in self.space else length for name, length in zip(_names(array), array.shape, strict=True)]
        found = torch.from_numpy(np.zeros([len(at), *lengths[1:]], array.dtype))
        return next(thick for shape in column.shapes if (thick := _thick(shape.axes, found)) is not None)

    def _tensor(self, column: Column, array: "zarr.Array[Any]", at: NDArray[np.int64], checks: Checks | None) -> Values:
        """A column of these samples as the class has it."""
        found = np.array(self.read(array.basename, at, checks))
        if not column.shapes:
            return tuple(str(text) for text in found)
        value = torch.from_numpy(found)
        shape = next(shape for shape in column.shapes if shape.holds(value) and _thick(shape.axes, value) is not None)
        return _thick(shape.axes, value)  # type: ignore[return-value]

    def _checked(self, array: "zarr.Array[Any]", name: str, at: NDArray[np.int64]) -> NDArray[Any]:
        """Read, but never take what is gone for the fill value; up to schema 4 flags of no row have no file."""
        size = shard_size(array)
        for shard in sorted({int(i) // size for i in at}):
            key = chunk_file(array, name, shard * size)
            file = self.path / key
            if name == COMPLETE and self.proof is None and not file.exists():
                continue
            if not file.is_file() or not file.stat().st_size:
                raise FileNotFoundError(f"chunk file {key} is {'empty' if file.is_file() else 'gone'}")
            if array.shards is not None:
                inside = [int(i) % size for i in at if int(i) // size == shard]
                _check_index(file, key, inside, size // array.chunks[0])
        return _get(array, at)

    def _readable(self, array: zarr.Array[Any], name: str, i: int) -> bool:
        try:
            self._checked(array, name, np.array([i]))
        except FAILURES:
            return False
        return True


def shard_size(array: "zarr.Array[Any]") -> int:
    """Samples in a file of an array."""
    return int((array.shards or array.chunks)[0])


def chunk_file(array: "zarr.Array[Any]", name: str, i: int) -> str:
    """The file that holds a sample of an array, in the store."""
    return f"{name}/{array.metadata.encode_chunk_key((i // shard_size(array), *[0] * (array.ndim - 1)))}"


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

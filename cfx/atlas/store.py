"""Results on disk: written shard by shard, by many processes, and read back bit for bit."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, get_args, get_origin, get_type_hints
from urllib.parse import unquote

import numpy as np
import torch
import zarr
from numpy.typing import NDArray
from torch import Tensor

from cfx.atlas.kinds import kind_of
from cfx.atlas.layout import (
    ALL_CHUNKS,
    COMPLETE,
    SAMPLE,
    SCHEMA,
    Stored,
    add_array,
    add_flags,
    add_names,
    stored,
    thin,
)
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, InputError
from cfx.core.rows import Column, Rows, Values

Exists = Literal["refuse", "resume", "overwrite"]
R = TypeVar("R", bound=Rows)
# What zarr, its codecs and the file system raise for a damaged or unreachable chunk.
_FAILURES = (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AssertionError)
_ANEW = "; name another path, or start anew (resume: false, exists='overwrite')"
_SPACE = ("z", "y", "x")
_ABSENT = 2**64 - 1  # what the index of a shard says of a chunk that was never written


class Atlas(Generic[R]):
    """A zarr v3 store of results, filled row by row; `cfx.atlas.layout` describes the arrays.

    Any `Rows` class with a column `row` can be stored. Rows go by their number there, the index in the user's input.
    One process may write the rows of a shard in any number of calls; two processes must never share a shard: each
    writes `shard_rows(rank, world)`.

    Attributes:
        path: The folder of the store.
        kind: Class of the results.
        rows: Row number of every sample, ascending.
        attributes: Root attributes: `cfx_schema`, `cfx_version`, `cfx_kind`, `cfx_fingerprint`, the plain values of the
            result (such as `depth` and `seed`) and of the cohort (`classes`), and the caller's own.
    """

    def __init__(self, path: str | os.PathLike[str], kind: type[R] | None = None) -> None:
        """Open an atlas for reading, and for writing what is missing.

        Args:
            path: Its folder.
            kind: Class of the results it should hold; any of `cfx.atlas.KINDS` by default.

        Raises:
            AtlasError: there is no atlas at `path`, its metadata is damaged or of another schema, or it holds results
                of another class.
        """
        self.path = Path(path)
        try:
            self._group = zarr.open_group(self.path, mode="r+", zarr_format=3, use_consolidated=False)
            self.attributes: dict[str, Any] = dict(self._group.attrs)
            self._arrays = {name: array.with_config(ALL_CHUNKS) for name, array in self._group.arrays()}
        except _FAILURES as error:
            raise AtlasError(f"{self.path}: expected a cfx atlas, got a path that does not open: {error}") from error
        if self.attributes.get("cfx_schema") != SCHEMA:
            found = self.attributes.get("cfx_schema")
            raise AtlasError(f"{self.path}: expected a cfx atlas of schema {SCHEMA}, got schema {found}")
        lost = sorted(set(self.attributes["cfx_arrays"]) - set(self._arrays))
        if lost:
            raise AtlasError(f"{self.path}: arrays that it was created with are gone: {lost}")
        holds = self.attributes["cfx_kind"]
        if kind is not None and kind.__name__ != holds:
            raise AtlasError(f"{self.path}: expected an atlas of {kind.__name__}, got one of {holds}")
        self.kind: type[R] = kind_of(holds) if kind is None else kind  # type: ignore[assignment]
        self.rows: list[int] = self._read("row").tolist()
        self._at = {row: i for i, row in enumerate(self.rows)}

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        like: R,
        *,
        rows: Iterable[int],
        cohort: Cohort | None = None,
        ids: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
        fingerprint: Mapping[str, str] | None = None,
        shard: int = 16,
        exists: Exists = "refuse",
    ) -> Self:
        """Create an empty atlas, all metadata or none: it is built beside `path` and moved there.

        Args:
            path: Folder to create.
            like: A result of the same run; its rows give the shapes and dtypes, and may be few or none.
            rows: Row numbers the atlas will hold.
            cohort: Images of `like`, when truth, lesions, labels and geometry are to be stored too.
            ids: Name of every row in `rows`, in that order; row numbers by default.
            attributes: JSON values to keep at the root, such as `config` and `provenance`.
            fingerprint: What the rows are made of, by name: hashes of data, networks and configuration. To resume, all
                of them must be the same.
            shard: Samples a shard, the unit of concurrent writing.
            exists: What to do when `path` holds an atlas: `refuse`, `resume` it (it must be of the same rows, plain
                values, shapes and fingerprint), or `overwrite` it. What is not an atlas is never overwritten.

        Raises:
            AtlasError: `path` exists and must not be touched, does not fit, or cannot be written.
            InputError: a result without a column `row`, repeated rows, other than one id a row, attributes that are not
                JSON, or another word for `exists`.
        """
        target = Path(path)
        table = _table(like, cohort)
        order, names = _order(rows, ids)
        root = _attributes(like, cohort, attributes, fingerprint) | {"cfx_arrays": sorted(table)}
        check_path(target, exists)
        if target.exists() and exists == "resume":
            return cls(target, type(like))._check_same(order, root, table)
        size = max(1, min(shard, len(order)))

        def build(group: zarr.Group) -> None:
            group.attrs.update(root)
            add_names(group, names, size)
            add_flags(group, len(order), size)
            for name, part in table.items():
                add_array(group, name, part, len(order), size)
            group["row"].with_config(ALL_CHUNKS)[:] = np.array(order)  # type: ignore[union-attr]

        _build_beside(target, build)
        return cls(target, type(like))

    def write(self, result: R, cohort: Cohort | None = None) -> None:
        """Write some rows; they count as complete once all of their data is on disk.

        Args:
            result: Any missing rows of this atlas, in any order.
            cohort: Images of the same rows, needed exactly when the atlas was created with a cohort.

        Raises:
            AtlasError: the disk refused (the result in memory is untouched, complete rows stay readable and the
                refused ones stay missing), or rows are unknown or already complete.
            InputError: the result does not look like what the atlas was created for.
        """
        numbers = _numbers(result)
        order = numbers.argsort()
        rows = numbers[order].tolist()
        table = _table(result, cohort)
        self._check_fits(table)
        unknown = sorted(set(rows) - set(self.missing(rows)))
        if unknown or len(set(rows)) != len(rows):
            raise AtlasError(f"{self.path}: expected distinct missing rows, got {unknown or rows}")
        at = np.array([self._at[row] for row in rows], dtype=int)
        with _refusals(self.path):
            for name, part in table.items():
                if name != "row":
                    _put(self._arrays[name], at, part.values[order.numpy()])
            _put(self._arrays[COMPLETE], at, np.ones(len(at), bool))

    def read(self, rows: Iterable[int] | None = None, *, images: bool = True) -> R:
        """The result of these rows, or of all complete rows, in ascending order of row.

        Args:
            rows: Row numbers.
            images: Whether to read what has spatial axes; without, these axes have length 0, and a result of any number
                of rows fits into memory.

        Raises:
            AtlasError: a row is unknown or missing, or a chunk is damaged (the array and the samples are named).
        """
        return self.kind.of(*self._value(self.kind, self._positions(rows), images))

    def read_cohort(self, rows: Iterable[int] | None = None, *, images: bool = True) -> Cohort:
        """The inputs of these rows (default: all complete rows), with what was stored of them; arguments as `read`."""
        return Cohort.of(*self._value(Cohort, self._positions(rows), images))

    def _columns(self, kind: type[Rows]) -> dict[str, tuple[Column, "zarr.Array[Any]"]]:
        """The columns of a class that are stored here, by field, each with its array."""
        found: dict[str, tuple[Column, zarr.Array[Any]]] = {}
        for column in kind.columns():
            if column.mapping:
                start = f"{column.array}."
                inside = {name: array for name, array in self._arrays.items() if name.startswith(start)}
                found |= {f"{column.name}.{unquote(k.removeprefix(start))}": (column, v) for k, v in inside.items()}
            elif column.array in self._arrays:
                found[column.name] = (column, self._arrays[column.array])
        return found

    def _value(self, kind: type[Rows], at: NDArray[np.int64], images: bool) -> tuple[dict[str, Values], dict[str, Any]]:
        """What `kind.of` makes a value of these samples from."""
        parts = {
            name: self._tensor(column, array, at) if images or not _spatial(array) else self._bare(column, array, at)
            for name, (column, array) in self._columns(kind).items()
        }
        names = [f.name for f in fields(kind) if f.name in self.attributes]  # type: ignore[arg-type]
        hints = get_type_hints(kind)
        return parts, {name: _as_declared(self.attributes[name], hints[name]) for name in names}

    def note(self, **attributes: Any) -> None:  # noqa: ANN401
        """Keep more JSON values at the root, such as what is known only when all rows are done.

        Raises:
            AtlasError: the disk refused.
        """
        with _refusals(self.path):
            self._group.attrs.update(attributes)
        self.attributes |= attributes

    def missing(self, rows: Iterable[int] | None = None) -> list[int]:
        """Row numbers that are not complete, as the disk says now; a preempted job goes on with these.

        Args:
            rows: Look at these only; rows that the atlas does not know are passed over.
        """
        some = self.rows if rows is None else [row for row in rows if row in self._at]
        done = self._read(COMPLETE, np.array([self._at[row] for row in some], dtype=np.int64))
        return [row for row, complete in zip(some, done.tolist(), strict=True) if not complete]

    @property
    def shard(self) -> int:
        """Samples a shard."""
        return int(self._arrays[COMPLETE].chunks[0])

    def shards(self) -> list[list[int]]:
        """Row numbers by shard, in order."""
        return [self.rows[i : i + self.shard] for i in range(0, len(self.rows), self.shard)]

    def shard_rows(self, rank: int, world: int) -> list[int]:
        """Row numbers that process `rank` of `world` may write: whole shards, dealt in turn.

        Raises:
            InputError: `rank` is not in `0 .. world - 1`.
        """
        if not 0 <= rank < world:
            raise InputError(f"rank: expected 0 <= rank < world = {world}, got {rank}")
        return [row for some in self.shards()[rank::world] for row in some]

    def _positions(self, rows: Iterable[int] | None) -> NDArray[np.int64]:
        """Sample positions of complete rows, ascending."""
        wanted = self.rows if rows is None else sorted(rows)
        missing = set(self.missing(wanted))
        wanted = [row for row in wanted if row not in missing] if rows is None else wanted
        absent = [row for row in wanted if row in missing or row not in self._at]
        if absent:
            raise AtlasError(f"{self.path}: expected complete rows, got rows that are missing or unknown: {absent}")
        return np.array([self._at[row] for row in wanted], dtype=np.int64)

    def _bare(self, column: Column, array: "zarr.Array[Any]", at: NDArray[np.int64]) -> Tensor:
        """A column of images without their pixels."""
        lengths = [0 if name in _SPACE else length for name, length in zip(_names(array), array.shape, strict=True)]
        found = torch.from_numpy(np.zeros([len(at), *lengths[1:]], array.dtype))
        return next(thick for shape in column.shapes if (thick := _thick(shape.axes, found)) is not None)

    def _tensor(self, column: Column, array: "zarr.Array[Any]", at: NDArray[np.int64]) -> Values:
        """A column of these samples as the class has it."""
        found = np.array(self._read(array.basename, at))
        if not column.shapes:
            return tuple(str(text) for text in found)
        value = torch.from_numpy(found)
        shape = next(shape for shape in column.shapes if shape.holds(value) and _thick(shape.axes, value) is not None)
        return _thick(shape.axes, value)  # type: ignore[return-value]

    def _read(self, name: str, at: NDArray[np.int64] | None = None) -> NDArray[Any]:
        """Values at these samples (default: all), or an error that names the damaged samples."""
        array = self._arrays.get(name)
        if array is None:
            raise AtlasError(f"{self.path}: array {name!r} is not there or its metadata is damaged")
        where = np.arange(array.shape[0]) if at is None else at
        try:
            return self._checked(array, name, where)
        except _FAILURES as error:
            bad = [i for i in where.tolist() if not self._readable(array, name, i)]
            rows = [self.rows[i] for i in bad] if hasattr(self, "rows") else bad
            message = f"array {name!r} is damaged at sample rows {rows}: {error or type(error).__name__}"
            raise AtlasError(f"{self.path}: {message}") from error

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
        except _FAILURES:
            return False
        return True

    def _check_fits(self, table: Mapping[str, Stored]) -> None:
        known = set(self._arrays) - {SAMPLE, COMPLETE}
        if set(table) != known:
            odd = sorted(set(table) ^ known)
            raise InputError(f"result: expected the arrays the atlas has, got a difference in {odd}")
        for name, part in table.items():
            array, values = self._arrays[name], part.values
            if (array.shape[1:], array.dtype) != (values.shape[1:], values.dtype):
                wanted, got = f"{array.shape[1:]} {array.dtype}", f"{values.shape[1:]} {values.dtype}"
                raise InputError(f"{name}: expected rows of {wanted} as in the atlas, got {got}")

    def _check_same(self, rows: list[int], root: Mapping[str, Any], table: Mapping[str, Stored]) -> Self:
        """This atlas, if it is one of the same run."""
        mine, theirs = self.attributes["cfx_fingerprint"], root["cfx_fingerprint"]
        values = {f.name for kind in (self.kind, Cohort) for f in fields(kind)}  # type: ignore[arg-type]
        pairs = {key: (self.attributes.get(key), root[key]) for key in sorted(values & root.keys())}
        pairs |= {key: (mine.get(key), theirs.get(key)) for key in sorted(mine.keys() | theirs.keys())}
        odd = [f"{key}: stored {a!r}, now {b!r}" for key, (a, b) in pairs.items() if a != b]
        if odd:
            raise AtlasError(f"{self.path}: cannot resume an atlas of another run ({'; '.join(odd)}){_ANEW}")
        if self.rows != rows:
            raise AtlasError(f"{self.path}: cannot resume: stored {len(self.rows)} other rows, now {len(rows)}{_ANEW}")
        self._check_fits(table)
        return self


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


def _spatial(array: "zarr.Array[Any]") -> bool:
    """Whether an array has spatial axes."""
    return any(name in _SPACE for name in _names(array))


def _names(array: "zarr.Array[Any]") -> tuple[str, ...]:
    """Names of the axes of an array."""
    names: Sequence[str] = getattr(array.metadata, "dimension_names", None) or ()
    return tuple(names)


def _numbers(result: Rows) -> Tensor:
    """The row numbers of a result."""
    row = getattr(result, "row", None)
    if not isinstance(row, Tensor):
        raise InputError(f"result: expected a class with a column `row`, got {type(result).__name__}")
    return row


def _table(result: Rows, cohort: Cohort | None) -> dict[str, Stored]:
    """Everything an atlas stores of these rows; names are kept when it is created.

    Raises:
        InputError: a result without row numbers, or a cohort of other images.
    """
    _numbers(result)
    images = getattr(result, "x", None)
    if cohort is not None and (len(cohort) != len(result) or (images is not None and cohort.x.shape != images.shape)):
        wanted = f"{len(result)} rows" if images is None else f"images {tuple(images.shape)}"
        raise InputError(f"cohort: expected {wanted} as in the result, got {tuple(cohort.x.shape)}")
    return {name: part for name, part in stored(result, cohort).items() if name != SAMPLE}


def write_atlas(
    path: str | os.PathLike[str],
    result: R,
    cohort: Cohort | None = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, str] | None = None,
    exists: Exists = "refuse",
) -> Atlas[R]:
    """Write a whole result, with the cohort of the same rows if given (ids, truth, geometry); see `Atlas`."""
    ids = cohort.ids if cohort is not None else None
    rows = _numbers(result).tolist()
    atlas = Atlas.create(
        path, result, rows=rows, cohort=cohort, ids=ids, attributes=attributes, fingerprint=fingerprint, exists=exists
    )
    wanted = set(atlas.missing())
    left = [i for i, row in enumerate(rows) if row in wanted]
    if left:
        atlas.write(result[left], cohort[left] if cohort is not None else None)
    return atlas


def read_atlas(path: str | os.PathLike[str], kind: type[R] | None = None) -> R:
    """All complete rows of an atlas, in ascending order of row; see `Atlas.read`."""
    return Atlas(path, kind).read()


def check_path(path: str | os.PathLike[str], exists: Exists = "refuse") -> None:
    """Refuse a path where an atlas could not be written, before any work is done for it.

    Raises:
        AtlasError: the path exists and `exists` does not allow that, or its parent folder cannot be written.
        InputError: another word for `exists`.
    """
    if exists not in get_args(Exists):
        raise InputError(f"exists: expected one of {list(get_args(Exists))}, got {exists!r}")
    target = Path(path)
    if target.exists():
        if exists == "refuse":
            raise AtlasError(f"{target}: exists; choose another path, or ask to resume or overwrite it")
        if exists == "resume" or not _is_atlas(target):
            Atlas(target)  # never resume or overwrite what is not an atlas; one of an older schema may be overwritten
    with _refusals(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        probe = _beside(target)
        probe.mkdir()
        probe.rmdir()


def _is_atlas(path: Path) -> bool:
    """Whether a folder says that it is an atlas, of whatever schema."""
    try:
        return "cfx_schema" in zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False).attrs
    except _FAILURES:
        return False


def _runs(at: NDArray[np.int64]) -> list[slice]:
    """Where ascending-by-one runs of `at` begin and end; zarr's fancy indexing fails inside shards."""
    cuts = [0, *(np.flatnonzero(np.diff(at) != 1) + 1).tolist(), len(at)]
    return [slice(a, b) for a, b in pairwise(cuts) if b > a]


def _put(array: zarr.Array[Any], at: NDArray[np.int64], values: NDArray[Any]) -> None:
    for run in _runs(at):
        array[at[run][0] : at[run][-1] + 1] = values[run]


def _get(array: zarr.Array[Any], at: NDArray[np.int64]) -> NDArray[Any]:
    if not len(at):
        return np.asarray(array[:0])
    return np.concatenate([np.asarray(array[at[run][0] : at[run][-1] + 1]) for run in _runs(at)])


def _beside(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")


def _build_beside(target: Path, build: Callable[[zarr.Group], None]) -> None:
    """Build a group next to `target` and move it there; on failure nothing is left and an old atlas stays."""
    new, old = _beside(target), _beside(target)
    with _refusals(target):
        try:
            build(zarr.create_group(new, zarr_format=3))
            if target.exists():
                target.rename(old)
            new.rename(target)
        except BaseException:
            if old.exists():
                old.rename(target)
            shutil.rmtree(new, ignore_errors=True)
            raise
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an `AtlasError` that says what is safe."""
    try:
        yield
    except _FAILURES as error:
        safe = "the result in memory is intact and rows already complete on disk stay readable"
        raise AtlasError(f"{path}: could not write: {error}; {safe}") from error


def _order(rows: Iterable[int], ids: Sequence[str] | None) -> tuple[list[int], tuple[str, ...]]:
    """Rows in ascending order, with their names."""
    given = [int(row) for row in rows]
    names = [str(row) for row in given] if ids is None else list(ids)
    if len(set(given)) != len(given):
        raise InputError("rows: expected distinct row numbers, got repeated ones")
    if len(names) != len(given):
        raise InputError(f"ids: expected one name a row, {len(given)}, got {len(names)}")
    pairs = sorted(zip(given, names, strict=True))
    return [row for row, _ in pairs], tuple(name for _, name in pairs)


def _attributes(
    like: Rows, cohort: Cohort | None, extra: Mapping[str, Any] | None, fingerprint: Mapping[str, str] | None
) -> dict[str, Any]:
    try:
        release = version("cfx")
    except PackageNotFoundError:
        release = "unknown"
    ours = {"classes": []} | ({} if cohort is None else cohort.plain()) | like.plain()
    ours |= {"cfx_schema": SCHEMA, "cfx_version": release, "cfx_kind": type(like).__name__}
    ours["cfx_fingerprint"] = dict(fingerprint or {})
    try:
        return dict(json.loads(json.dumps({**(extra or {}), **ours}, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"attributes: expected JSON values, got {error}") from error

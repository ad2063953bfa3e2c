"""Counterfactuals on disk: written shard by shard, by many processes, and read back bit for bit."""

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
import zarr
from numpy.typing import NDArray

from cfx.atlas.layout import ALL_CHUNKS, COHORT, FLAT, RESULT, SCHEMA, add_array, add_text, columns
from cfx.core.errors import AtlasError, InputError
from cfx.core.values import Cohort, Counterfactuals

Exists = Literal["refuse", "resume", "overwrite"]
# What zarr, its codecs and the file system raise for a damaged or unreachable chunk.
_FAILURES = (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AssertionError)


class Atlas:
    """A zarr v3 store of `Counterfactuals`, filled row by row; `cfx.atlas.layout` describes the arrays.

    Rows go by their number in the user's input (`Counterfactuals.row`). One process may write the rows of a shard in
    any number of calls; two processes must never share a shard: each writes `shard_rows(rank, world)`.

    Attributes:
        path: The folder of the store.
        rows: Row number of every sample, ascending.
        attributes: Root attributes: `cfx_schema`, `cfx_version`, `depth`, `seed`, `method`, `classes`, and
            the caller's own.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Open an atlas for reading, and for writing what is missing.

        Raises:
            AtlasError: there is no atlas at `path`, or its metadata is damaged or of another schema.
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
        self.rows: list[int] = self._read("row").tolist()
        self._at = {row: i for i, row in enumerate(self.rows)}

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        like: Counterfactuals,
        *,
        rows: Iterable[int],
        cohort: Cohort | None = None,
        ids: Sequence[str] | None = None,
        attributes: Mapping[str, Any] | None = None,
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
            shard: Samples a shard, the unit of concurrent writing.
            exists: What to do when `path` holds an atlas: `refuse`, `resume` it (it must be of the same rows, seed,
                depth, method and shapes), or `overwrite` it. What is not an atlas is never overwritten.

        Raises:
            AtlasError: `path` exists and must not be touched, does not fit, or cannot be written.
            InputError: repeated rows, other than one id a row, or attributes that are not JSON.
        """
        target = Path(path)
        table = columns(like, cohort)
        order, names = _order(rows, ids)
        root = _attributes(like, cohort, attributes)
        check_path(target, exists)
        if target.exists() and exists == "resume":
            return cls(target)._check_same(order, root, table)
        size = max(1, min(shard, len(order)))

        def build(group: zarr.Group) -> None:
            group.attrs.update(root)
            add_text(group, "sample", names, size)
            for name, column in (table | {"complete": np.zeros(0, bool)}).items():
                add_array(group, name, column, len(order), size)
            group["row"].with_config(ALL_CHUNKS)[:] = np.array(order)  # type: ignore[union-attr]

        _build_beside(target, build)
        return cls(target)

    def write(self, result: Counterfactuals, cohort: Cohort | None = None) -> None:
        """Write some rows; they count as complete once all of their data is on disk.

        Args:
            result: Any missing rows of this atlas, in any order.
            cohort: Images of the same rows, needed exactly when the atlas was created with a cohort.

        Raises:
            AtlasError: the disk refused (the result in memory is untouched, complete rows stay readable and the
                refused ones stay missing), or rows are unknown or already complete.
            InputError: the result does not look like what the atlas was created for.
        """
        order = result.row.argsort()
        rows = result.row[order].tolist()
        table = {name: column[order.numpy()] for name, column in columns(result, cohort).items()}
        self._check_fits(table)
        unknown = sorted(set(rows) - set(self.missing()))
        if unknown or len(set(rows)) != len(rows):
            raise AtlasError(f"{self.path}: expected distinct missing rows, got {unknown or rows}")
        at = np.array([self._at[row] for row in rows], dtype=int)
        with _refusals(self.path):
            for name, column in table.items():
                if name != "row":
                    _put(self._arrays[name], at, column)
            _put(self._arrays["complete"], at, np.ones(len(at), bool))

    def read(self, rows: Iterable[int] | None = None) -> Counterfactuals:
        """The result of these rows, or of all complete rows, in ascending order of row.

        Raises:
            AtlasError: a row is unknown or missing, or a chunk is damaged (the array and the samples are named).
        """
        at = self._positions(rows)
        named: dict[str, Any] = {f: self._tensor(array, at) for f, array in RESULT.items() if array in self._arrays}
        seconds = float(self._read("seconds", at).sum())
        plain = {name: self.attributes[name] for name in ("depth", "seed", "method")}
        return Counterfactuals(**named, **plain, seconds=seconds)

    def read_cohort(self, rows: Iterable[int] | None = None) -> Cohort:
        """The inputs of these rows (default: all complete rows), with the truth and geometry that were stored."""
        at = self._positions(rows)
        named: dict[str, Any] = {f: self._tensor(array, at) for f, array in COHORT.items() if array in self._arrays}
        ids = tuple(str(name) for name in self._read("sample", at))
        return Cohort(self._tensor("factual", at), **named, ids=ids, classes=self.attributes["classes"])

    def missing(self) -> list[int]:
        """Row numbers that are not complete, as the disk says now; a preempted job goes on with these."""
        done = self._read("complete")
        return [row for row, complete in zip(self.rows, done.tolist(), strict=True) if not complete]

    def shard_rows(self, rank: int, world: int) -> list[int]:
        """Row numbers that process `rank` of `world` may write: whole shards, dealt in turn.

        Raises:
            InputError: `rank` is not in `0 .. world - 1`.
        """
        if not 0 <= rank < world:
            raise InputError(f"rank: expected 0 <= rank < world = {world}, got {rank}")
        shard = self._arrays["complete"].chunks[0]
        return [row for i, row in enumerate(self.rows) if i // shard % world == rank]

    def _positions(self, rows: Iterable[int] | None) -> NDArray[np.int64]:
        """Sample positions of complete rows, ascending."""
        missing = set(self.missing())
        wanted = [row for row in self.rows if row not in missing] if rows is None else sorted(rows)
        absent = [row for row in wanted if row in missing or row not in self._at]
        if absent:
            raise AtlasError(f"{self.path}: expected complete rows, got rows that are missing or unknown: {absent}")
        return np.array([self._at[row] for row in wanted], dtype=np.int64)

    def _tensor(self, name: str, at: NDArray[np.int64]) -> torch.Tensor:
        found = torch.from_numpy(np.array(self._read(name, at)))
        return found[:, None] if name in FLAT else found

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

    def _checked(self, array: zarr.Array[Any], name: str, at: NDArray[np.int64]) -> NDArray[Any]:
        """Read, but never take a file that is gone for the fill value; only `complete` may lack files."""
        size = (array.shards or array.chunks)[0]
        for shard in sorted({int(i) // size for i in at}) if name != "complete" else []:
            key = array.metadata.encode_chunk_key((shard, *[0] * (array.ndim - 1)))
            if not (self.path / name / key).is_file():
                raise FileNotFoundError(f"chunk file {name}/{key} is gone")
        return _get(array, at)

    def _readable(self, array: zarr.Array[Any], name: str, i: int) -> bool:
        try:
            self._checked(array, name, np.array([i]))
        except _FAILURES:
            return False
        return True

    def _check_fits(self, table: Mapping[str, NDArray[Any]]) -> None:
        stored = set(self._arrays) - {"sample", "complete"}
        if set(table) != stored:
            odd = sorted(set(table) ^ stored)
            raise InputError(f"result: expected the arrays the atlas has, got a difference in {odd}")
        for name, column in table.items():
            array = self._arrays[name]
            if (array.shape[1:], array.dtype) != (column.shape[1:], column.dtype):
                wanted, got = f"{array.shape[1:]} {array.dtype}", f"{column.shape[1:]} {column.dtype}"
                raise InputError(f"{name}: expected rows of {wanted} as in the atlas, got {got}")

    def _check_same(self, rows: list[int], root: Mapping[str, Any], table: Mapping[str, NDArray[Any]]) -> Self:
        """This atlas, if it is one of the same run."""
        for key in ("seed", "depth", "method", "classes"):
            if self.attributes[key] != root[key]:
                stored = f"stored {self.attributes[key]!r}, now {root[key]!r}"
                raise AtlasError(f"{self.path}: cannot resume an atlas of another {key}: {stored}")
        if self.rows != rows:
            raise AtlasError(f"{self.path}: cannot resume: stored {len(self.rows)} other rows, now {len(rows)}")
        self._check_fits(table)
        return self


def write_atlas(
    path: str | os.PathLike[str],
    result: Counterfactuals,
    cohort: Cohort | None = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    exists: Exists = "refuse",
) -> Atlas:
    """Write a whole result, with the cohort of the same rows if given (ids, truth, geometry); see `Atlas`."""
    ids = cohort.ids if cohort is not None else None
    rows = result.row.tolist()
    atlas = Atlas.create(path, result, rows=rows, cohort=cohort, ids=ids, attributes=attributes, exists=exists)
    wanted = set(atlas.missing())
    left = [i for i, row in enumerate(rows) if row in wanted]
    if left:
        atlas.write(result[left], cohort[left] if cohort is not None else None)
    return atlas


def read_atlas(path: str | os.PathLike[str]) -> Counterfactuals:
    """All complete rows of an atlas, in ascending order of row; see `Atlas.read`."""
    return Atlas(path).read()


def check_path(path: str | os.PathLike[str], exists: Exists = "refuse") -> None:
    """Refuse a path where an atlas could not be written, before any work is done for it.

    Raises:
        AtlasError: the path exists and `exists` does not allow that, or its parent folder cannot be written.
    """
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


def _attributes(like: Counterfactuals, cohort: Cohort | None, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        release = version("cfx")
    except PackageNotFoundError:
        release = "unknown"
    ours = {"cfx_schema": SCHEMA, "cfx_version": release, "depth": like.depth, "seed": like.seed}
    ours["method"] = like.method
    ours["classes"] = list(cohort.classes) if cohort is not None else []
    try:
        return dict(json.loads(json.dumps(dict(extra or {}), allow_nan=False))) | ours
    except (TypeError, ValueError) as error:
        raise InputError(f"attributes: expected JSON values, got {error}") from error

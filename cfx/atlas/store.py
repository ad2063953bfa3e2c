"""Results on disk: written shard by shard, by many processes, and read back bit for bit."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Generic, Literal, Self, TypeVar, get_args

import numpy as np
import zarr
from numpy.typing import NDArray
from torch import Tensor

from cfx.atlas.disk import Disk
from cfx.atlas.kinds import kind_of
from cfx.atlas.layout import (
    ALL_CHUNKS,
    CHECKSUM,
    COMPLETE,
    KEPT,
    READABLE,
    SAMPLE,
    SCHEMA,
    Stored,
    add_array,
    add_checks,
    add_flags,
    add_names,
    spatial_axes,
    stored,
)
from cfx.atlas.proof import DIGESTS, KEY, PROVED, ROWS, Checks, Proof, array_digests, prove, read_root, row_digests
from cfx.atlas.reading import FAILURES, Reader, chunk_file, runs
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, InputError
from cfx.core.rows import Rows
from cfx.runtime.files import digest, resolved
from cfx.runtime.places import beside, make_folders, new_folder, recover, sweep

Exists = Literal["refuse", "resume", "overwrite"]
R = TypeVar("R", bound=Rows)
_ANEW = "; name another path, or start anew (resume: false, exists='overwrite')"


class Atlas(Generic[R]):
    """A zarr v3 store of results, filled row by row; `cfx.atlas.layout` describes the arrays.

    One of an older schema is read as that says, and never written to.

    Any `Rows` class with a column `row` can be stored. Rows go by their number there, the index in the user's input.
    One process may write the rows of a shard in any number of calls; two processes must never share a shard: each
    writes `shard_rows(rank, world)`.

    Attributes:
        path: The folder of the store.
        kind: Class of the results.
        rows: Row number of every sample, ascending.
        attributes: Root attributes: `cfx_schema`, `cfx_version`, `cfx_kind`, `cfx_fingerprint`, what proves it
            (`cfx.atlas.proof`), the plain values of the result (such as `depth` and `seed`) and of the cohort
            (`classes`, `axes`), and the caller's own.
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
        self.path = resolved(path)
        recover(self.path)
        self.attributes: dict[str, Any] = read_root(self.path)
        if (found := self.attributes.get("cfx_schema")) not in READABLE:
            wanted = " or ".join(map(str, READABLE))
            raise AtlasError(f"{self.path}: expected a cfx atlas of schema {wanted}, got schema {found}")
        self._disk = Disk(self.path)
        self._arrays = self._opened()
        holds = str(self.attributes.get("cfx_kind"))
        if kind is not None and kind.__name__ != holds:
            raise AtlasError(f"{self.path}: expected an atlas of {kind.__name__}, got one of {holds}")
        self.kind: type[R] = kind_of(holds) if kind is None else kind  # type: ignore[assignment]
        self._reader = Reader(self.path, self._arrays, spatial_axes(self.attributes), self._proof())
        self.rows: list[int] = self._reader.rows
        self._check_rows()
        self._at = {row: i for i, row in enumerate(self.rows)}

    def _opened(self) -> "dict[str, zarr.Array[Any]]":
        """The arrays that the root lists.

        Raises:
            AtlasError: one of them is gone, or zarr does not open it.
        """
        try:
            group = zarr.open_group(self._disk, mode="r+", zarr_format=3, use_consolidated=False)
            names = [*self.attributes["cfx_arrays"], *sorted(KEPT - ({CHECKSUM} if self._unproved else set()))]
            lost = sorted(name for name in names if not (self.path / name / "zarr.json").exists())
            if lost:
                raise AtlasError(f"{self.path}: arrays that it was created with are gone: {lost}")
            return {name: group[name].with_config(ALL_CHUNKS) for name in names}  # type: ignore[union-attr]
        except (*FAILURES, AttributeError) as error:
            raise AtlasError(f"{self.path}: expected a cfx atlas, got a path that does not open: {error}") from error

    @property
    def _unproved(self) -> bool:
        """Whether it is of a schema without digests and checksums."""
        return bool(self.attributes["cfx_schema"] < PROVED)

    def _check_rows(self) -> None:
        """Refuse other row numbers than it was created for."""
        if self._unproved:
            return
        pairs = zip(row_digests(self.rows, self.shard), self.attributes[ROWS], strict=True)
        odd = [chunk_file(self._arrays["row"], "row", k * self.shard) for k, (a, b) in enumerate(pairs) if a != b]
        if odd:
            raise AtlasError(f"{self.path}: array 'row' is damaged: not what it was created for; in {', '.join(odd)}")

    def _proof(self) -> Proof | None:
        """What proves its rows."""
        columns = (*self.attributes["cfx_arrays"], SAMPLE, CHECKSUM)
        return None if self._unproved else Proof(self.attributes[KEY], columns)

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
        target = resolved(path)
        table = _table(like, cohort)
        order, names = _order(rows, ids)
        root = _attributes(like, cohort, attributes, fingerprint) | {"cfx_arrays": sorted(table)}
        check_path(target, exists, type(like))
        if target.exists() and exists == "resume":
            found = cls(target, type(like))._check_same(order, root, table)
            sweep(target.parent, target.name)  # what was being written when a run was killed
            return found
        with _refusals(target), new_folder(target) as folder:
            _build(folder, root, table, order, names, max(1, min(shard, len(order))))
        return cls(target, type(like))

    def write(self, result: R, cohort: Cohort | None = None) -> None:
        """Write some rows; they count as complete once all of their data is on disk.

        Args:
            result: Any missing rows of this atlas, in any order.
            cohort: Images of the same rows, needed exactly when the atlas was created with a cohort.

        Raises:
            AtlasError: the disk refused (the result in memory is untouched, complete rows stay readable and the
                refused ones stay missing), rows are unknown or already complete, or the atlas is of an older schema.
            InputError: the result does not look like what the atlas was created for.
        """
        self._check_current()
        numbers = _numbers(result)
        order = numbers.argsort()
        rows = numbers[order].tolist()
        table = _table(result, cohort)
        self._check_fits(table)
        unknown = sorted(set(rows) - set(self.missing(rows)))
        if unknown or len(set(rows)) != len(rows):
            raise AtlasError(f"{self.path}: expected distinct missing rows, got {unknown or rows}")
        at = np.array([self._at[row] for row in rows], dtype=int)
        values = {name: part.values[order.numpy()] for name, part in table.items()}
        with _refusals(self.path):
            checks = self._checks(values, rows, at)
            self._settle({name: part for name, part in values.items() if name != "row"}, at)
            self._settle({COMPLETE: np.ones(len(at), bool)}, at)
            self._settle({CHECKSUM: checks}, at)

    def _checks(self, values: Mapping[str, NDArray[Any]], rows: list[int], at: NDArray[np.int64]) -> Checks:
        """The checksums of rows that are to be written; those of their names stay."""
        proof, checks = self._reader.proof, self._reader.checks(at)
        assert proof is not None
        assert checks is not None
        for name, part in values.items():
            checks[:, proof.at[name]] = proof.of(name, rows, part)
        return proof.closed(rows, checks)

    def _settle(self, values: Mapping[str, NDArray[Any]], at: NDArray[np.int64]) -> None:
        """Write samples of some arrays, and return when they are on the disk."""
        for name, part in values.items():
            _put(self._arrays[name], at, part)
        self._disk.settle()

    def read(self, rows: Iterable[int] | None = None, *, images: bool = True) -> R:
        """The result of these rows, or of all complete rows, in ascending order of row.

        Args:
            rows: Row numbers.
            images: Whether to read what has spatial axes; without, these axes have length 0, and a result of any number
                of rows fits into memory.

        Raises:
            AtlasError: a row is unknown or missing, or a chunk is damaged (the array and the samples are named).
        """
        return self.kind.of(*self._reader.value(self.kind, self.attributes, self._positions(rows), images))

    def read_cohort(self, rows: Iterable[int] | None = None, *, images: bool = True) -> Cohort:
        """The inputs of these rows (default: all complete rows), with what was stored of them; arguments as `read`."""
        return Cohort.of(*self._reader.value(Cohort, self.attributes, self._positions(rows), images))

    def note(self, **attributes: Any) -> None:  # noqa: ANN401
        """Keep more JSON values at the root, such as what is known only when all rows are done.

        Raises:
            AtlasError: the disk refused, or the atlas is of an older schema.
        """
        self._check_current()
        with _refusals(self.path):
            prove(self.path, attributes)
        self.attributes = read_root(self.path)

    def missing(self, rows: Iterable[int] | None = None) -> list[int]:
        """Row numbers that are not complete, as the disk says now; a preempted job goes on with these.

        Args:
            rows: Look at these only; rows that the atlas does not know are passed over.
        """
        some = self.rows if rows is None else [row for row in rows if row in self._at]
        done = self._reader.complete(np.array([self._at[row] for row in some], dtype=np.int64))
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

    def _check_current(self) -> None:
        """Refuse to write to an atlas of an older schema."""
        if (found := self.attributes["cfx_schema"]) != SCHEMA:
            raise AtlasError(
                f"{self.path}: an atlas of schema {found} can be read, but not continued; this version writes schema "
                f"{SCHEMA}: choose another path, or ask to overwrite it"
            )

    def _check_fits(self, table: Mapping[str, Stored]) -> None:
        known = set(self._arrays) - KEPT
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
        self._check_current()
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
    space = () if cohort is None else cohort.axes
    return {name: part for name, part in stored(result, cohort, space=space).items() if name != SAMPLE}


def write_atlas(
    path: str | os.PathLike[str],
    result: R,
    cohort: Cohort | None = None,
    *,
    attributes: Mapping[str, Any] | None = None,
    fingerprint: Mapping[str, str] | None = None,
    exists: Exists = "refuse",
) -> Atlas[R]:
    """Write a whole result and the cohort of its rows, by default its own (ids, truth, geometry); see `Atlas`."""
    cohort = getattr(result, "cohort", None) if cohort is None else cohort
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
    """All complete rows of an atlas, in ascending order of row, with what is known of the inputs; see `Atlas.read`."""
    atlas = Atlas(path, kind)
    found = atlas.read()
    kept = atlas.attributes.get("axes", True)  # which a cohort always has, and older schemas do not say
    if not kept or not any(f.name == "cohort" for f in fields(found)):  # type: ignore[arg-type]
        return found
    return found.replace(cohort=atlas.read_cohort().replace(x=found.x))  # type: ignore[attr-defined]


def check_path(path: str | os.PathLike[str], exists: Exists = "refuse", kind: type[Rows] | None = None) -> None:
    """Refuse a path where an atlas could not be written, before any work is done for it.

    Args:
        path: Its folder.
        exists: What to do when there is one, as in `Atlas.create`.
        kind: Class of the results; any of `cfx.atlas.KINDS` by default.

    Raises:
        AtlasError: the path exists and `exists` does not allow that, or its parent folder cannot be written.
        InputError: another word for `exists`.
    """
    if exists not in get_args(Exists):
        raise InputError(f"exists: expected one of {list(get_args(Exists))}, got {exists!r}")
    target = resolved(path)
    recover(target)
    if target.exists():
        if exists == "refuse":
            raise AtlasError(f"{target}: exists; choose another path, or ask for it: exists='resume' or 'overwrite'")
        if exists == "resume" or not _is_atlas(target):
            Atlas(target, kind)  # never resume or overwrite what is not an atlas; an older one may be overwritten
    with _refusals(target):
        make_folders(target.parent)
        probe = beside(target)
        probe.mkdir()
        probe.rmdir()


def _is_atlas(path: Path) -> bool:
    """Whether a folder says that it is an atlas, of whatever schema."""
    try:
        return "cfx_schema" in zarr.open_group(path, mode="r", zarr_format=3, use_consolidated=False).attrs
    except FAILURES:
        return False


def _put(array: zarr.Array[Any], at: NDArray[np.int64], values: NDArray[Any]) -> None:
    for run in runs(at):
        array[at[run][0] : at[run][-1] + 1] = values[run]


def _build(
    path: Path,
    root: Mapping[str, Any],
    table: Mapping[str, Stored],
    rows: list[int],
    names: tuple[str, ...],
    shard: int,
) -> None:
    """An atlas without a complete row."""
    group = zarr.create_group(path, zarr_format=3)
    group.attrs.update(root)
    add_names(group, names, shard)
    add_flags(group, len(rows), shard)
    for name, part in table.items():
        add_array(group, name, part, len(rows), shard)
    group["row"].with_config(ALL_CHUNKS)[:] = np.array(rows)  # type: ignore[union-attr]
    made_of = {name: root[name] for name in ("cfx_kind", "cfx_fingerprint", "cfx_arrays")}
    key = digest(made_of | {"rows": rows})
    proof = Proof(key, (*sorted(table), SAMPLE, CHECKSUM))
    checks = np.tile(proof.nothing(rows)[:, None], len(proof.columns))
    checks[:, proof.at[SAMPLE]] = proof.of(SAMPLE, rows, np.array(names, dtype=object))
    add_checks(group, proof.closed(rows, checks), shard)
    arrays = array_digests(path, [*table, *KEPT])
    prove(path, {KEY: key, ROWS: row_digests(rows, shard), DIGESTS: arrays})


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what the disk refuses into an `AtlasError` that says what is safe."""
    try:
        yield
    except FAILURES as error:
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
    ours = {"classes": [], "axes": []} | ({} if cohort is None else cohort.plain()) | like.plain()
    ours |= {"cfx_schema": SCHEMA, "cfx_version": release, "cfx_kind": type(like).__name__}
    ours["cfx_fingerprint"] = dict(fingerprint or {})
    try:
        return dict(json.loads(json.dumps({**(extra or {}), **ours}, allow_nan=False)))
    except (TypeError, ValueError) as error:
        raise InputError(f"attributes: expected JSON values, got {error}") from error

"""All of an atlas read once, to say what is wrong with it: every fault by its array, rows and file."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cfx.atlas.layout import CHECKSUM, COMPLETE, SAMPLE
from cfx.atlas.proof import ROOT
from cfx.atlas.reading import Reader, chunk_file
from cfx.atlas.store import Atlas
from cfx.core.errors import AtlasError
from cfx.core.rows import Rows


@dataclass(frozen=True)
class Verified:
    """What is known of an atlas once all of it was read.

    Attributes:
        faults: What is wrong, a sentence each; none if it is as it was written.
        rows: Rows it is of.
        missing: Row numbers that are not complete.
        arrays: Arrays it has.
        proved: Whether digests and checksums prove it (schema 5); without, only what zarr itself notices is noticed.
    """

    faults: list[str] = field(default_factory=list)
    rows: int = 0
    missing: list[int] = field(default_factory=list)
    arrays: int = 0
    proved: bool = False


def verify_atlas(path: str | os.PathLike[str], kind: type[Rows] | None = None) -> Verified:
    """Read everything in an atlas, and name what is damaged, gone, out of its place, or no part of it.

    Args:
        path: Its folder.
        kind: Class of its results; any of `cfx.atlas.KINDS` by default.
    """
    try:
        atlas = Atlas(path, kind)
    except AtlasError as error:
        return Verified([str(error)])
    reader = atlas._reader
    faults, missing = [*_bookkeeping(reader)], []
    for k in range(0, len(atlas.rows), atlas.shard):
        at = np.arange(k, min(k + atlas.shard, len(atlas.rows)))
        try:
            done = reader.complete(at)
        except AtlasError:  # which is among the faults already, or is about to be
            done = np.ones(len(at), bool)
        missing += [atlas.rows[i] for i in at[~done].tolist()]
        faults += [*_of_rows(reader, at[done])]
    faults += [f"{atlas.path / name}: no part of the atlas" for name in _strays(reader)]
    return Verified(list(dict.fromkeys(faults)), len(atlas.rows), missing, len(reader.arrays), reader.proof is not None)


def _bookkeeping(reader: Reader) -> Iterator[str]:
    """What is wrong with what every row has from the start."""
    for name in sorted({SAMPLE, COMPLETE, CHECKSUM} & reader.arrays.keys()):
        try:
            reader.read(name, checks=reader.checks(np.arange(len(reader.rows))) if name == SAMPLE else None)
        except AtlasError as error:
            yield str(error)


def _of_rows(reader: Reader, at: NDArray[np.int64]) -> Iterator[str]:
    """What is wrong with complete samples of one shard."""
    try:
        checks = reader.checks(at)
        reader.complete(at)
    except AtlasError as error:
        yield str(error)
        return
    for name in sorted(reader.arrays.keys() - {COMPLETE, CHECKSUM}):
        try:
            reader.read(name, at, checks)
        except AtlasError as error:
            yield str(error)


def _strays(reader: Reader) -> list[str]:
    """Files that are in an atlas and belong to nothing of it."""
    known = {ROOT} | {f"{name}/{ROOT}" for name in reader.arrays}
    for name, array in reader.arrays.items():
        known |= {chunk_file(array, name, i) for i in range(len(reader.rows))}
    found = (p.relative_to(reader.path).as_posix() for p in Path(reader.path).rglob("*") if not p.is_dir())
    return sorted(set(found) - known)

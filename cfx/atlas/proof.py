"""What proves that an atlas is as it was written, and that every part of it is in its place.

The root `zarr.json` has a digest of itself (`cfx_digest`), of the row numbers (`cfx_rows`), and of the `zarr.json` of
every array (`cfx_digests`): no class name, depth, code or codec can change unseen. The array `checksum` has a CRC-32
for every row of every array, of its bytes behind the name of the atlas's run, the array and the row: a chunk that was
copied over another one, of any array, row or run, does not pass. Until a row is complete its checksums are those of
nothing, of that row: so neither can complete rows be taken for missing ones.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from cfx.core.errors import AtlasError
from cfx.runtime.files import digest, sha256
from cfx.runtime.places import put, sync

ROOT: Final = "zarr.json"
DIGEST, DIGESTS, ROWS, KEY = "cfx_digest", "cfx_digests", "cfx_rows", "cfx_key"
PROVED: Final = 5
"""Version of the schema from which on an atlas proves itself."""

Checks = NDArray[np.uint32]


@dataclass(frozen=True)
class Proof:
    """Checksums of the rows of one atlas.

    Attributes:
        key: What tells its run from others.
        columns: Names of the arrays that are proved, in the order of the second axis of `checksum`, which is the last.
    """

    key: str
    columns: tuple[str, ...]

    @cached_property
    def at(self) -> Mapping[str, int]:
        """Place of every array among the checksums of a row."""
        return {name: k for k, name in enumerate(self.columns)}

    def of(self, name: str, rows: Iterable[int], values: NDArray[Any]) -> Checks:
        """Checksums of what an array holds of these rows."""
        start = crc32(f"{self.key} {name}".encode())
        if values.dtype.kind in "TOU":
            parts = [str(text).encode() for text in values]
        else:
            plain = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
            parts = list(plain.reshape(len(plain), -1).view(np.uint8)) if plain.size else [b""] * len(plain)
        found = [crc32(part, crc32(b"%d" % row, start)) for row, part in zip(rows, parts, strict=True)]
        return np.array(found, np.uint32)

    def nothing(self, rows: Iterable[int]) -> Checks:
        """Checksum that a row has, of any array, before it is written."""
        start = crc32(f"{self.key} nothing".encode())
        return np.array([crc32(b"%d" % row, start) for row in rows], np.uint32)

    def closed(self, rows: Iterable[int], checks: Checks) -> Checks:
        """Checksums of rows with the last of each, which proves the others of its row."""
        checks[:, -1] = self.of(self.columns[-1], rows, checks[:, :-1])
        return checks


def row_digests(rows: Sequence[int], shard: int) -> list[str]:
    """SHA-256 of the row numbers of every shard, in its place."""
    return [digest({"at": i, "rows": list(rows[i : i + shard])}) for i in range(0, len(rows), shard)]


def read_root(path: Path) -> dict[str, Any]:
    """The root attributes of an atlas, proved where they say that they can be.

    Raises:
        AtlasError: no atlas, a damaged one, or arrays that are gone or damaged; the file is named.
    """
    file = path / ROOT
    try:
        root = json.loads(file.read_bytes())
        attributes = dict(root["attributes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise AtlasError(f"{path}: expected a cfx atlas, got a path that does not open: {ROOT}: {error}") from error
    if DIGEST in attributes or attributes.get("cfx_schema") == PROVED:
        if (found := _digest(root)) != attributes.get(DIGEST):
            raise AtlasError(f"{file}: damaged; expected SHA-256 {attributes.get(DIGEST)}, got {found}")
        _check_arrays(path, attributes[DIGESTS])
    return attributes


def prove(path: Path, attributes: Mapping[str, Any]) -> None:
    """Add attributes to a root that has them on the disk as one whole, with the digest that goes with them.

    Raises:
        OSError: the disk refused.
    """
    root = json.loads((path / ROOT).read_bytes())
    root["attributes"] |= attributes
    root["attributes"][DIGEST] = _digest(root)
    put(path / ROOT, json.dumps(root, indent=2, allow_nan=False).encode(), near=path)
    sync(path)


def array_digests(path: Path, names: Iterable[str]) -> dict[str, str]:
    """Digest of the metadata of every array."""
    return {name: sha256(path / name / ROOT) for name in sorted(names)}


def _digest(root: Mapping[str, Any]) -> str:
    """SHA-256 of everything that a root says but the digest itself."""
    return digest({**root, "attributes": {k: v for k, v in root["attributes"].items() if k != DIGEST}})


def _check_arrays(path: Path, digests: Mapping[str, str]) -> None:
    """Refuse arrays whose metadata is gone or other than it was."""
    lost = [name for name in digests if not os.path.isfile(path / name / ROOT)]
    if lost:
        raise AtlasError(f"{path}: arrays that it was created with are gone: {lost}")
    for name, expected in digests.items():
        if (found := sha256(path / name / ROOT)) != expected:
            raise AtlasError(f"{path / name / ROOT}: damaged; expected SHA-256 {expected}, got {found}")

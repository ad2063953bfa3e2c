"""Drawn masks as files: every one as labels, the most representative, the probability of each class and the entropy."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

from torch import Tensor

from cfx.atlas import Atlas
from cfx.commands.row_files import (
    Writer,
    Writers,
    masks_of,
    native_of,
    save_grey,
    upright,
    write_labels,
    write_nifti,
    write_parts,
)
from cfx.core.cohort import Cohort
from cfx.display import images
from cfx.segmentation import Segmentations
from cfx.segmentation.summary import entropy, medoid, probability


def _labels(result: Segmentations) -> Iterator[tuple[str, Tensor]]:
    """Masks of a row, as class numbers."""
    yield "samples", result.masks[0]
    yield "medoid", result.masks[0, medoid(result.masks, len(result.labels))]


def _maps(result: Segmentations) -> dict[str, Tensor]:
    """Maps of a row."""
    masks, classes = result.masks, len(result.labels)
    return {"probability": probability(masks, classes)[0], "entropy": entropy(masks, classes)}


def _as_nifti(result: Segmentations, cohort: Cohort, folder: Path) -> None:
    """A row on the grid that the network saw."""
    every = [("x", cohort.x[0]), *_labels(result), *_maps(result).items(), *masks_of(cohort)]
    write_nifti(iter(every), cohort, folder)


def _into_files(result: Segmentations, cohort: Cohort, folder: Path) -> None:
    """A row in its original file's grid."""
    native = native_of(cohort)
    native.save(native.file.data, folder / "x.nii.gz")
    write_labels(iter([*_labels(result), *masks_of(cohort)]), native, folder)
    for name, image in _maps(result).items():
        write_parts([native.laid(part) for part in image], native, folder / f"{name}.nii.gz")


def _pictures(atlas: Atlas[Segmentations], rows: Sequence[int]) -> Writer:
    """What writes a row as PNG."""

    def write(result: Segmentations, cohort: Cohort, folder: Path) -> None:
        maps, most = _maps(result), math.log(len(result.labels))
        shown = {
            "x": cohort.x[0], "medoid": dict(_labels(result))["medoid"],
            "probability": maps["probability"].sum(0, keepdim=True) * 2 - 1, "entropy": maps["entropy"] / most * 2 - 1,
        } | dict(masks_of(cohort))  # fmt: skip
        pixels = {name: upright(image, cohort.axes) for name, image in shown.items()}
        at = images.centre(pixels["probability"][0] + 1)
        for name, image in pixels.items():
            save_grey(name, image, at, folder)

    return write


WRITERS = Writers(("x", "samples", "medoid", "probability", "entropy"), _as_nifti, _into_files, _pictures)
"""How drawn masks are written."""

"""What any row of an atlas is written with: masks of its cohort, its place in the original file, and pictures."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from torch import Tensor

from cfx.atlas import Atlas
from cfx.core.axes import PLAIN
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.data.export import to_nifti
from cfx.data.native import Native
from cfx.display import images

MASKS: Final = ("mask", "lesion", "readings")
"""Masks of a cohort that are written beside the images, where they are known."""

Writer = Callable[[Any, Cohort, Path], None]
"""Writes what is known of one row, a result of one row and its image, into a folder."""


@dataclass(frozen=True)
class Writers:
    """How rows of one kind of result are written.

    Attributes:
        names: What is always among the files.
        nifti: On the grid that the networks saw.
        native: In the original file's grid and intensities.
        png: As pictures, given the atlas and the rows that will be written.
    """

    names: tuple[str, ...]
    nifti: Writer
    native: Writer
    png: Callable[[Atlas[Any], Sequence[int]], Writer]


def masks_of(cohort: Cohort) -> Iterator[tuple[str, Tensor]]:
    """Every mask `(c, *space)` that is known of a row, by the name of its file."""
    for name in MASKS:
        if (mask := getattr(cohort, name)) is not None:
            yield name, mask[0]


def write_nifti(found: Iterator[tuple[str, Tensor]], cohort: Cohort, folder: Path) -> None:
    """Images or masks of a row as NIfTI files on the grid that the networks saw."""
    affine = None if cohort.affine is None else cohort.affine[0]
    for name, image in found:
        to_nifti(image, affine, folder / f"{name}.nii.gz")


def write_labels(found: Iterator[tuple[str, Tensor]], native: Native, folder: Path) -> None:
    """Masks `(c, *space)` of a row as NIfTI files on the grid of its original file; several along a fourth axis."""
    for name, mask in found:
        write_parts([native.labels(part) for part in mask], native, folder / f"{name}.nii.gz")


def write_parts(parts: Sequence[npt.NDArray[Any]], native: Native, path: Path) -> None:
    """Volumes on the grid of the original file; several along a fourth axis."""
    native.save(parts[0] if len(parts) == 1 else np.stack(parts, -1), path, alike=False)


def native_of(cohort: Cohort) -> Native:
    """A row's place in its original file.

    Raises:
        InputError: what is needed was not kept, or the images are no longer those of one channel that were read.
    """
    if cohort.file is None or cohort.sha256 is None or cohort.intensity is None or cohort.affine is None:
        raise InputError(f"native: the original file of {cohort.ids[0]} was not kept; write without native")
    if cohort.shape[0] != 1:
        raise InputError(f"native: expected images of one channel, as in NIfTI, got {cohort.shape[0]}")
    low, high = cohort.intensity[0].tolist()
    sha, affine = bytes(cohort.sha256[0].tolist()), cohort.affine[0].double().numpy()
    return Native.of(Path(cohort.file[0]), sha, affine, cohort.space, (low, high))


def upright(image: Tensor, axes: Sequence[str]) -> images.Pixels:
    """An image `(c, *space)` in [-1, 1] as `cfx.display` wants it: planes, rows and columns run like a RAS volume's.

    Of a mask, what is not background is 1.
    """
    pixels = images.array(image) if image.is_floating_point() else images.array(image != 0) * 2 - 1
    return pixels.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1] if tuple(axes) == PLAIN[3] else pixels


def save_grey(name: str, pixels: images.Pixels, at: tuple[int, ...], folder: Path) -> None:
    """An upright image as a picture; masks, and images of another number of channels than 1 and 3, as their mean."""
    shown = pixels if len(pixels) in (1, 3) and name not in MASKS else pixels.mean(0, keepdims=True)
    save(images.picture(shown, at), folder / f"{name}.png", grey=len(shown) == 1)


def save(colours: images.Pixels, path: Path, *, grey: bool) -> None:
    """Colours as 8 bits; grey ones as one channel. What lies between slices is black.

    Raises:
        InputError: the path cannot be written.
    """
    from PIL import Image

    pixels = ((colours[..., :3] * colours[..., 3:]) * 255).round().astype(np.uint8)
    try:
        Image.fromarray(pixels[..., 0] if grey else pixels).save(path)
    except OSError as error:
        raise InputError(f"path: cannot write {path} ({error})") from error

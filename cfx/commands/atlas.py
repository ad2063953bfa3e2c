"""Every image of an atlas as files: NIfTI on its own grid or back in the original file's, and PNG; a folder a row."""

import re
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cfx.atlas import Atlas
from cfx.commands import mask_files
from cfx.commands.row_files import (
    Writer,
    Writers,
    masks_of,
    native_of,
    save,
    save_grey,
    upright,
    write_labels,
    write_nifti,
)
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, CfxWarning, InputError
from cfx.counterfactual.result import Counterfactuals
from cfx.data.table import some
from cfx.data.volume_file import stem
from cfx.display import images
from cfx.runtime.config import expanded
from cfx.segmentation import Segmentations

_LONGEST = 100  # letters of a folder's name
_SUFFIX = re.compile(r"\.(png|jpe?g|bmp|tiff?)$", re.IGNORECASE)


def export(path: Path, *, nifti: Path | None = None, native: bool = False, png: Path | None = None) -> list[str]:
    """Write every complete row of an atlas as files, and what else is known of it, a folder a row under its name.

    Of counterfactuals these are `x`, `x_cf`, `difference` and `edited`; of drawn masks `x`, `samples` (class numbers, a
    mask at each place of the fourth axis), `medoid`, `probability` and `entropy`. As NIfTI images are in [-1, 1] on the
    grid that the networks saw; with `native` they are the original files with nothing changed but what a counterfactual
    changes, and masks and maps are in the files' grid and affine (`cfx.data.native` says how).

    Args:
        path: Folder of an atlas of counterfactuals or of drawn masks.
        nifti: Folder for the NIfTI files, new or empty.
        native: Write into the original files' grids and intensities.
        png: Folder for pictures, new or empty; volumes as three slices through the change.

    Returns:
        Names of the rows' folders.

    Raises:
        AtlasError: no atlas of counterfactuals or drawn masks, or a damaged one.
        InputError: nothing to write, nowhere to write it, or, with `native`, rows whose original files are not known,
            are gone or are others than they were.
    """
    if nifti is None and png is None:
        raise InputError("nifti, png: expected a folder for at least one of them, got neither")
    if native and nifti is None:
        raise InputError("native: expected a folder for NIfTI files too (--nifti DIR), got none")
    nifti, png = (f if f is None else expanded(f, name) for name, f in (("nifti", nifti), ("png", png)))
    for name, folder in (("nifti", nifti), ("png", png)):
        _check_empty(name, folder)
    atlas, writers = opened(path)
    known = atlas.read_cohort(images=False)
    folders = _complete(atlas, known.ids)
    if native:
        _check_files(path, known)
    elif nifti is not None and known.affine is None:
        said = f"{path}: where its images lie in the world is not known, and their NIfTI files say so"
        warnings.warn(said, CfxWarning, stacklevel=2)
    if nifti is not None:
        _written(atlas, folders, nifti, writers.native if native else writers.nifti)
    if png is not None:
        _written(atlas, folders, png, writers.png(atlas, list(folders)))
    return list(folders.values())


def opened(path: Path) -> tuple[Atlas[Any], Writers]:
    """An atlas, and how its rows are written.

    Raises:
        AtlasError: none, a damaged one, or one of results that are no images.
    """
    atlas: Atlas[Any] = Atlas(expanded(path, "atlas"))
    if atlas.kind not in WRITERS:
        wanted = " or ".join(kind.__name__ for kind in WRITERS)
        raise AtlasError(f"{atlas.path}: expected an atlas of {wanted}, got one of {atlas.kind.__name__}")
    return atlas, WRITERS[atlas.kind]


def _check_files(path: Path, known: Cohort) -> None:
    """Refuse rows without an original file, before anything is written."""
    if known.file is None:
        why = "they were not read from NIfTI files, or by an older version"
        raise InputError(f"native: the rows of {path} have no original files ({why}); write without native")
    if gone := [file for file in known.file if not Path(file).is_file()]:
        raise InputError(f"native: original files are not there: {some(gone)}; put them back, or write without native")


def _check_empty(name: str, folder: Path | None) -> None:
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{name}: expected a new or empty folder, got {folder}; what is there is never replaced")


def _complete(atlas: Atlas[Any], ids: Sequence[str]) -> dict[int, str]:
    """The complete rows and their folders; warns of rows that are left out.

    Raises:
        InputError: there is none.
    """
    missing = set(atlas.missing())
    rows = [row for row in atlas.rows if row not in missing]
    if not rows:
        raise InputError(f"{atlas.path}: expected complete rows, got none; explain them first")
    if missing:
        said = f"{atlas.path}: {len(missing)} of {len(atlas.rows)} rows are not complete yet and are left out"
        warnings.warn(said, CfxWarning, stacklevel=3)
    return dict(zip(rows, folder_names(ids, rows), strict=True))


def folder_names(ids: Sequence[str], rows: Sequence[int]) -> list[str]:
    """A folder name for every row: its name in letters that any disk takes, and its number where names are alike."""
    bare = [_SUFFIX.sub("", stem(name)).strip("./ ") for name in ids]
    plain = [re.sub(r"[^\w.-]+", "_", name)[:_LONGEST].strip(".") or "row" for name in bare]
    times = Counter(name.casefold() for name in plain)
    alike = [times[name.casefold()] > 1 or name == "row" for name in plain]
    found = [f"{name}-{row}" if same else name for name, row, same in zip(plain, rows, alike, strict=True)]
    twice = len({name.casefold() for name in found}) < len(found)
    return [f"{name}-{row}" for name, row in zip(plain, rows, strict=True)] if twice else found


def _written(atlas: Atlas[Any], folders: dict[int, str], out: Path, write: Writer) -> None:
    """Write the rows, one at a time.

    Raises:
        InputError: a folder cannot be made.
    """
    for row, name in folders.items():
        try:
            (out / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(f"cannot make the folder {out / name} ({error})") from error
        write(atlas.read([row]), atlas.read_cohort([row]), out / name)


def _images(result: Counterfactuals, cohort: Cohort) -> Iterator[tuple[str, Tensor]]:
    """Everything of a row that is an image, by the name of its file."""
    yield from (("x", result.x[0]), ("x_cf", result.x_cf[0]), ("difference", (result.x_cf - result.x)[0]))
    yield "edited", result.edited[0]
    if cohort.x_true is not None:
        yield "x_true", cohort.x_true[0]
    yield from masks_of(cohort)


def _as_nifti(result: Counterfactuals, cohort: Cohort, folder: Path) -> None:
    """A row on the grid that the networks saw."""
    write_nifti(_images(result, cohort), cohort, folder)


def _into_files(result: Counterfactuals, cohort: Cohort, folder: Path) -> None:
    """A row in its original file's grid and intensities."""
    native = native_of(cohort)
    x = native.file.data
    found = {"x": x}
    for name, other in (("x_cf", result.x_cf), ("x_true", cohort.x_true)):
        if other is not None:
            change, where = (other - result.x)[0], (other != result.x)[0].any(0)
            found[name] = native.changed(change[0], where)
    found["difference"] = found["x_cf"] - x
    for name, values in found.items():
        native.save(values, folder / f"{name}.nii.gz", alike=name != "difference")
    native.save(native.edited(result.edited[0, 0]), folder / "edited.nii.gz", alike=False)
    write_labels(masks_of(cohort), native, folder)


def _limit(atlas: Atlas[Counterfactuals], rows: Sequence[int]) -> float:
    """The one symmetric colour limit of all differences."""
    limits = []
    for row in rows:
        result = atlas.read([row])
        if not torch.equal(result.x, result.x_cf):
            limits.append(images.symmetric_limit([images.array(result.x_cf - result.x)]))
    return max(limits, default=1.0)


def _pictures(atlas: Atlas[Counterfactuals], rows: Sequence[int]) -> Writer:
    """What writes a row as PNG."""
    limit = _limit(atlas, rows)

    def write(result: Counterfactuals, cohort: Cohort, folder: Path) -> None:
        pixels = {name: upright(image, cohort.axes) for name, image in _images(result, cohort)}
        at = images.centre(pixels["difference"].mean(0))
        for name, image in pixels.items():
            if name == "difference":
                save(images.difference(image, at, limit), folder / f"{name}.png", grey=False)
            else:
                save_grey(name, image, at, folder)

    return write


WRITERS: dict[type, Writers] = {
    Counterfactuals: Writers(("x", "x_cf", "difference", "edited"), _as_nifti, _into_files, _pictures),
    Segmentations: mask_files.WRITERS,
}
"""How rows are written, by their class."""

"""Every image of an atlas as files: NIfTI on its own grid or back in the original file's, and PNG; a folder a row."""

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor

from cfx.atlas import Atlas
from cfx.core.axes import PLAIN
from cfx.core.cohort import Cohort
from cfx.core.errors import CfxWarning, InputError
from cfx.counterfactual.result import Counterfactuals
from cfx.data.export import to_nifti
from cfx.data.native import Native
from cfx.data.table import some
from cfx.data.volume_file import stem
from cfx.display import images
from cfx.runtime.config import expanded

MASKS: Final = ("mask", "lesion", "readings")
"""Masks of a cohort that are written beside the images, where they are known."""
_LONGEST = 100  # letters of a folder's name
_SUFFIX = re.compile(r"\.(png|jpe?g|bmp|tiff?)$", re.IGNORECASE)

Writer = Callable[[Counterfactuals, Cohort, Path], None]
"""Writes what is known of one row into a folder."""


def export(path: Path, *, nifti: Path | None = None, native: bool = False, png: Path | None = None) -> list[str]:
    """Write every complete row of an atlas as files: `x`, `x_cf`, `difference`, `edited`, and what else is known.

    Each row has a folder of its own, under its name. As NIfTI the images are in [-1, 1] on the grid that the networks
    saw; with `native` they are the original files with nothing changed but what the counterfactual changes, in the
    files' grid, affine and intensities (`cfx.data.native` says how).

    Args:
        path: Folder of an atlas of counterfactuals.
        nifti: Folder for the NIfTI files, new or empty.
        native: Write into the original files' grids and intensities.
        png: Folder for pictures, new or empty; volumes as three slices through the change.

    Returns:
        Names of the rows' folders.

    Raises:
        AtlasError: no atlas of counterfactuals, or a damaged one.
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
    atlas = Atlas(expanded(path, "atlas"), Counterfactuals)
    known = atlas.read_cohort(images=False)
    folders = _complete(atlas, known.ids)
    if native:
        _check_files(path, known)
    elif nifti is not None and known.affine is None:
        said = f"{path}: where its images lie in the world is not known, and their NIfTI files say so"
        warnings.warn(said, CfxWarning, stacklevel=2)
    if nifti is not None:
        _written(atlas, folders, nifti, _into_files if native else _as_nifti)
    if png is not None:
        _written(atlas, folders, png, _pictures(_limit(atlas, list(folders))))
    return list(folders.values())


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


def _complete(atlas: Atlas[Counterfactuals], ids: Sequence[str]) -> dict[int, str]:
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


def _written(atlas: Atlas[Counterfactuals], folders: dict[int, str], out: Path, write: Writer) -> None:
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
    for name in MASKS:
        if (mask := getattr(cohort, name)) is not None:
            yield name, mask[0]


def _as_nifti(result: Counterfactuals, cohort: Cohort, folder: Path) -> None:
    """A row on the grid that the networks saw."""
    affine = None if cohort.affine is None else cohort.affine[0]
    for name, image in _images(result, cohort):
        to_nifti(image, affine, folder / f"{name}.nii.gz")


def _into_files(result: Counterfactuals, cohort: Cohort, folder: Path) -> None:
    """A row in its original file's grid and intensities."""
    native = _native(cohort)
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
    for name in MASKS:
        if (mask := getattr(cohort, name)) is not None:
            parts = [native.inside(part) for part in mask[0]]
            native.save(parts[0] if len(parts) == 1 else np.stack(parts, -1), folder / f"{name}.nii.gz", alike=False)


def _native(cohort: Cohort) -> Native:
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


def _limit(atlas: Atlas[Counterfactuals], rows: Sequence[int]) -> float:
    """The one symmetric colour limit of all differences."""
    limits = []
    for row in rows:
        result = atlas.read([row])
        if not torch.equal(result.x, result.x_cf):
            limits.append(images.symmetric_limit([images.array(result.x_cf - result.x)]))
    return max(limits, default=1.0)


def _pictures(limit: float) -> Writer:
    """What writes a row as PNG."""

    def write(result: Counterfactuals, cohort: Cohort, folder: Path) -> None:
        upright = [(name, _upright(image, cohort.axes)) for name, image in _images(result, cohort)]
        at = images.centre(dict(upright)["difference"].mean(0))
        for name, pixels in upright:
            if name == "difference":
                _save(images.difference(pixels, at, limit), folder / f"{name}.png", grey=False)
                continue
            shown = pixels if len(pixels) in (1, 3) and name not in MASKS else pixels.mean(0, keepdims=True)
            _save(images.picture(shown, at), folder / f"{name}.png", grey=len(shown) == 1)

    return write


def _upright(image: Tensor, axes: Sequence[str]) -> images.Pixels:
    """An image `(c, *space)` in [-1, 1] as `cfx.display` wants it: planes, rows and columns run like a RAS volume's."""
    pixels = images.array(image) * 2 - 1 if image.dtype == torch.bool else images.array(image)
    return pixels.transpose(0, 3, 2, 1)[:, :, ::-1, ::-1] if tuple(axes) == PLAIN[3] else pixels


def _save(colours: images.Pixels, path: Path, *, grey: bool) -> None:
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

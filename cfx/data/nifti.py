"""A folder of NIfTI volumes with a table of labels and covariates, in world coordinates that never move."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Shaped
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from cfx.core.axes import RAS
from cfx.core.errors import InputError
from cfx.data.classes import ClassNames
from cfx.data.grid import SLICE_AXES, Affine, Array, Axis, Volume, resample, slice_at, target_grid
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.listing import Listing, find, listed, say_unread, subjects_in
from cfx.data.pixels import stack
from cfx.data.table import some
from cfx.data.volume_file import SUFFIXES, VolumeFile, stem, warn_of
from cfx.runtime.config import UserPath

_LEAST = 1e-38  # what float32 can scale to [-1, 1]


class NiftiConfig(BaseModel):
    """A folder of NIfTI volumes, one a row."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False)

    kind: Literal["nifti"] = "nifti"
    path: UserPath
    """The folder of `.nii` or `.nii.gz` files."""
    table: UserPath | None = None
    """A csv file with one row a volume; the cohort keeps its order. Columns of numbers become covariates. Without it,
    every volume of the folder is read, in sorted order and without label."""
    filename: str = "filename"
    """Column of file names (or ids) relative to the folder, with or without their suffix."""
    label: str | None = "label"
    """Column of labels (class names, or whole numbers from 0); null for a table without labels."""
    subject: str | None = None
    """Column that says whose a volume is, where one subject has several; by default `subject`, `subject_id`,
    `participant_id` or `patient_id`, if there is one. Subjects are held out whole."""
    classes: ClassNames = ()
    """Names of the classes, in label order; by default names in alphabetical order."""
    masks: UserPath | None = None
    """Folder of masks (non-zero inside) under the names of the volumes."""
    percentiles: tuple[float, float] = (0.5, 99.5)
    """Percentiles of the intensities, inside the mask or else of the non-zero voxels, that become -1 and 1. Voxels
    beyond them are clipped."""
    window: tuple[float, float] | None = None
    """Fixed intensities that become -1 and 1 instead (a CT window in HU, say). Voxels beyond them are clipped."""
    spacing: PositiveFloat | None = None
    """Resample to isotropic voxels of this size in mm."""
    shape: tuple[PositiveInt, PositiveInt, PositiveInt] | None = None
    """Voxels to the right, front and top. With `spacing`, crop or pad to it about the centre; alone, resample to the
    finest isotropic voxels at which the whole field of view fits. Voxels beyond the field of view become -1."""
    slice_axis: Axis | None = None
    """Take one 2D slice across this axis, after any resampling."""
    slice_mm: float | None = None
    """World coordinate of that slice in mm; by default the middle one."""
    lazy: bool = False
    """Read a volume when it is asked for, instead of all at once (`cfx train`, `cfx explain`)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """A slice coordinate needs an axis, a window or percentile pair two values in order."""
        if self.slice_mm is not None and self.slice_axis is None:
            raise ValueError("slice_mm: needs slice_axis (sagittal, coronal or axial)")
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window: expected (low, high) with low < high, got {self.window}")
        if not 0 <= self.percentiles[0] < self.percentiles[1] <= 100:
            raise ValueError(f"percentiles: expected 0 <= low < high <= 100, got {self.percentiles}")
        return self


def open_nifti(config: NiftiConfig) -> LazyCohort:
    """The folder in RAS order, scaled to [-1, 1], with affine, spacing and masks, each volume read when asked for.

    The axes of `x` beyond the channel are (right, front, top), so that `affine @ (i, j, k, 1)` is the place of voxel
    `x[n, 0, i, j, k]` in mm; a slice has axes (row, column), and its affine takes (row, column, 0, 1). Whatever is
    done to the grid, a structure keeps its world coordinates. Each volume is scaled on its own; `intensity` keeps what
    became -1 and 1, `file` and `sha256` where it came from, so that a result can be written back into it.

    Raises:
        InputError: missing files (listed), files of one name, a missing label column (with the columns there are); when
            it is read: an unreadable file, NaN or infinite or constant intensities (with the file), volumes or masks
            that do not fit together.
    """
    found = _listing(config)
    ids, files = found.ids, found.files
    masks: Sequence[Path | None] = [None] * len(files)
    if config.masks is not None:
        # A name in the table may be a full path, which would otherwise lead back to the image.
        names = [Path(name).name if Path(name).is_absolute() else name for name in ids]
        masks = _find(config.masks, [stem(name) for name in names], "masks")
    warned = False

    def read(rows: slice) -> Columns:
        nonlocal warned
        found = [_read(*pair, config) for pair in zip(files[rows], masks[rows], strict=True)]
        warned = warned or warn_of([item.file for item in found])
        return _columns(found)

    axes = RAS if config.slice_axis is None else SLICE_AXES[config.slice_axis]
    paths = tuple(str(file.absolute()) for file in files)
    known, classes = found.covariates, list(found.classes)
    return LazyCohort(read, ids, found.y, known.columns, classes, list(axes), paths, known.categories)


@dataclass(frozen=True)
class _Read:
    """A volume as the configuration asks for it, its file, and the intensities that became -1 and 1."""

    volume: Volume
    file: VolumeFile
    ends: tuple[float, float]


def _columns(read: Sequence[_Read]) -> dict[str, Tensor]:
    """What is read of some rows."""
    volumes = [item.volume for item in read]
    found = {
        "x": stack([_tensor(v.data) for v in volumes], [v.name for v in volumes], "give `shape` to make them alike"),
        "affine": torch.from_numpy(np.stack([v.affine for v in volumes])),
        "spacing": torch.tensor([v.spacing for v in volumes], dtype=torch.float64),
        "intensity": torch.tensor([item.ends for item in read], dtype=torch.float64),
        "sha256": torch.tensor([list(item.file.sha256) for item in read], dtype=torch.uint8),
    }
    masks = [_tensor(v.mask) for v in volumes if v.mask is not None]
    return found | {"mask": torch.stack(masks)} if masks else found


def _listing(config: NiftiConfig) -> Listing:
    """Names, files, labels, class names and covariates of the volumes."""
    if config.table is None:
        files = _walk(config.path)
        ids = tuple(stem(file.name) for file in files)
        return Listing(ids, files, None, config.classes, subjects_in(ids))
    found = listed(
        config.table, config.path, SUFFIXES, filename=config.filename, label=config.label, subject=config.subject,
        classes=config.classes,
    )  # fmt: skip
    return replace(found, files=_find(config.path, found.ids, "path"))


def _walk(folder: Path) -> list[Path]:
    """The volumes of a folder in sorted order; hidden files are none, and what else may be an image is said aloud.

    Raises:
        InputError: no folder, no volume in it, or two under one name.
    """
    if not folder.is_dir():
        raise InputError(f"path: expected a folder, found none at {folder}")
    seen = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    files = [path for path in seen if path.name.lower().endswith(SUFFIXES) and path.is_file()]
    if not files:
        below = any(path.name.lower().endswith(SUFFIXES) for path in folder.glob("*/**/*"))
        where = ", but some in its subfolders; name those in a table" if below else f"; it holds {_names(seen)}"
        raise InputError(f"path: expected .nii or .nii.gz files, found none in {folder}{where}")
    say_unread(folder, {path for path in seen if path.is_file()} - set(files))
    names = Counter(stem(file.name) for file in files)
    if twice := [file.name for file in files if names[stem(file.name)] > 1]:
        raise InputError(f"path: files under one name in {folder}: {some(twice)}; keep one of each, or give a table")
    return files


def _names(files: Sequence[Path]) -> str:
    return some([file.name for file in files]) or "nothing"


def _find(folder: Path, names: Sequence[str], what: str) -> list[Path]:
    """The file of every name, with or without its suffix.

    Raises:
        InputError: no folder, some files are not there, or both `.nii` and `.nii.gz` are; the message lists them.
    """
    files = find(folder, names, SUFFIXES, what)
    bare = [name for name, file in zip(names, files, strict=True) if file != folder / name]
    if both := [name for name in bare if all((folder / f"{name}{suffix}").is_file() for suffix in SUFFIXES)]:
        raise InputError(f"{what}: both .nii.gz and .nii in {folder} for {some(both)}; name the file with its suffix")
    return files


def _read(path: Path, mask_path: Path | None, config: NiftiConfig) -> _Read:
    """One volume as the configuration asks for it."""
    file = VolumeFile.read(path)
    raw, affine = canonical(file)
    mask = None if mask_path is None else _load_mask(mask_path, path, raw, affine)
    ends = _ends(raw, mask, config, path)
    volume = Volume(_scale(raw, ends), mask, affine, str(path))
    volume = resample(volume, *target_grid(volume, config.shape, config.spacing))
    if config.slice_axis is not None:
        volume = slice_at(volume, config.slice_axis, config.slice_mm)
    return _Read(volume, file, ends)


def canonical(file: VolumeFile) -> tuple[npt.NDArray[Any], Affine]:
    """Intensities and affine in RAS order."""
    from nibabel import orientations

    turn = orientations.io_orientation(file.affine)
    affine: Affine = file.affine @ orientations.inv_ornt_aff(turn, file.data.shape)
    return orientations.apply_orientation(file.data, turn), affine


def _load_mask(path: Path, of: Path, raw: npt.NDArray[Any], affine: Affine) -> npt.NDArray[np.bool_]:
    """The mask of a volume, on the volume's own grid."""
    values, mask_affine = canonical(VolumeFile.read(path))
    if values.shape != raw.shape or not np.allclose(mask_affine, affine, atol=1e-2):
        raise InputError(f"{path}: the mask is on another grid ({values.shape}) than {of} ({raw.shape})")
    if not values.any():
        raise InputError(f"{path}: the mask is empty")
    inside: npt.NDArray[np.bool_] = values != 0
    return inside


def _ends(
    raw: npt.NDArray[Any], mask: npt.NDArray[np.bool_] | None, config: NiftiConfig, path: Path
) -> tuple[float, float]:
    """The intensities that become -1 and 1."""
    if config.window is not None:
        if not ((raw >= config.window[0]) & (raw <= config.window[1])).any():
            came = f"intensities from {raw.min():g} to {raw.max():g}"
            raise InputError(f"window: no voxel of {path} lies in {config.window}; it has {came}")
        return config.window
    inside = raw[raw != 0] if mask is None else raw[mask]
    low, high = np.percentile(inside, config.percentiles) if inside.size else (0.0, 0.0)
    if not high - low > _LEAST:
        raise InputError(f"{path}: intensities are constant ({low:g}) between the percentiles {config.percentiles}")
    return float(low), float(high)


def _scale(raw: npt.NDArray[Any], ends: tuple[float, float]) -> Array:
    """Intensities in [-1, 1]."""
    low, high = ends
    scaled: Array = np.clip((raw - low) * (2 / (high - low)) - 1, -1, 1).astype(np.float32)
    return scaled


def _tensor(values: npt.NDArray[Any]) -> Shaped[Tensor, "1 *space"]:
    """An array with a channel axis, in memory of its own."""
    # Of an axis of length one numpy keeps a negative stride, however contiguous the array is.
    return torch.from_numpy(np.array(values, order="C")).unsqueeze(0)

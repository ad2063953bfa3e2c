"""A folder of NIfTI volumes with a table of labels and covariates, in world coordinates that never move."""

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Int, Shaped
from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, model_validator
from torch import Tensor

from cfx.core.errors import InputError
from cfx.data.grid import Affine, Array, Axis, Volume, resample, slice_at, target_grid
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.pixels import stack
from cfx.data.table import Table, encode, find

SUFFIXES = (".nii.gz", ".nii")


class NiftiConfig(BaseModel):
    """A folder of NIfTI volumes, one a row."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["nifti"] = "nifti"
    path: Path
    """The folder of `.nii` or `.nii.gz` files."""
    table: Path | None = None
    """A csv file with one row a volume; the cohort keeps its order. Columns of numbers become covariates. Without it,
    every volume of the folder is read, in sorted order and without label."""
    filename: str = "filename"
    """Column of file names (or ids) relative to the folder, with or without their suffix."""
    label: str | None = "label"
    """Column of labels (class names, or whole numbers from 0); null for a table without labels."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in label order; by default names in alphabetical order."""
    masks: Path | None = None
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
    finest isotropic voxels at which the whole field of view fits."""
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
    done to the grid, a structure keeps its world coordinates. Each volume is scaled on its own.

    Raises:
        InputError: missing files (listed), a missing label column (with the columns there are); when it is read: an
            unreadable file, NaN or infinite or constant intensities (with the file), volumes or masks that do not fit
            together.
    """
    ids, files, y, classes, covariates = _listing(config)
    masks: Sequence[Path | None] = [None] * len(files)
    if config.masks is not None:
        # A name in the table may be a full path, which would otherwise lead back to the image.
        names = [Path(name).name if Path(name).is_absolute() else name for name in ids]
        masks = find(config.masks, [_stem(name) for name in names], SUFFIXES, "masks")

    def read(rows: slice) -> Columns:
        return _columns([_read(*pair, config) for pair in zip(files[rows], masks[rows], strict=True)])

    return LazyCohort(read, ids, y, covariates, list(classes))


def _columns(volumes: Sequence[Volume]) -> dict[str, Tensor]:
    """What is read of some rows."""
    found = {
        "x": stack([_tensor(v.data) for v in volumes], [v.name for v in volumes], "give `shape` to make them alike"),
        "affine": torch.from_numpy(np.stack([v.affine for v in volumes])),
        "spacing": torch.tensor([v.spacing for v in volumes], dtype=torch.float64),
    }
    masks = [_tensor(v.mask) for v in volumes if v.mask is not None]
    return found | {"mask": torch.stack(masks)} if masks else found


Listing = tuple[tuple[str, ...], list[Path], Int[Tensor, " n"] | None, tuple[str, ...], dict[str, Shaped[Tensor, " n"]]]


def _listing(config: NiftiConfig) -> Listing:
    """Names, files, labels, class names and covariates of the volumes."""
    if config.table is None:
        if not config.path.is_dir():
            raise InputError(f"path: expected a folder, found none at {config.path}")
        files = sorted(file for file in config.path.iterdir() if file.name.endswith(SUFFIXES))
        return tuple(_stem(file.name) for file in files), files, None, config.classes, {}
    table = Table.read(config.table)
    ids = table.names(config.filename)
    y, classes = None, config.classes
    if config.label is not None:
        y, classes = encode(table.column(config.label, "label"), config.classes, f"column {config.label!r}")
    used = [name for name in (config.filename, config.label) if name is not None]
    return ids, find(config.path, ids, SUFFIXES, "path"), y, classes, table.covariates(without=used)


def _stem(name: str) -> str:
    """The name without `.nii` or `.nii.gz`."""
    return next((name.removesuffix(suffix) for suffix in SUFFIXES if name.endswith(suffix)), name)


def _read(file: Path, mask_file: Path | None, config: NiftiConfig) -> Volume:
    """One volume as the configuration asks for it."""
    raw, affine = _load(file)
    mask = None if mask_file is None else _load_mask(mask_file, file, raw, affine)
    volume = Volume(_scale(raw, mask, config, file), mask, affine, str(file))
    volume = resample(volume, *target_grid(volume, config.shape, config.spacing))
    return volume if config.slice_axis is None else slice_at(volume, config.slice_axis, config.slice_mm)


def _load(file: Path) -> tuple[Array, Affine]:
    """Intensities `(x, y, z)` and affine in RAS order."""
    import nibabel

    try:
        image = nibabel.as_closest_canonical(nibabel.load(file))
        data: Array = np.asarray(image.get_fdata(dtype=np.float32))
    except (OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise InputError(f"{file} is not a readable NIfTI file ({error})") from error
    shape = data.shape
    if data.ndim > 3 and set(shape[3:]) == {1}:
        data = data.reshape(shape[:3])
    if data.ndim != 3 or not data.size:
        raise InputError(f"{file}: expected one volume (x, y, z), got shape {shape}")
    if not np.isfinite(data).all():
        raise InputError(f"{file}: {int((~np.isfinite(data)).sum())} voxels are NaN or infinite")
    return data, np.asarray(image.affine, dtype=np.float64)


def _load_mask(file: Path, of: Path, raw: Array, affine: Affine) -> npt.NDArray[np.bool_]:
    """The mask of a volume, on the volume's own grid."""
    values, mask_affine = _load(file)
    if values.shape != raw.shape or not np.allclose(mask_affine, affine, atol=1e-2):
        raise InputError(f"{file}: the mask is on another grid ({values.shape}) than {of} ({raw.shape})")
    if not values.any():
        raise InputError(f"{file}: the mask is empty")
    inside: npt.NDArray[np.bool_] = values != 0
    return inside


def _scale(raw: Array, mask: npt.NDArray[np.bool_] | None, config: NiftiConfig, file: Path) -> Array:
    """Intensities in [-1, 1]."""
    if config.window is not None:
        low, high = config.window
    else:
        inside: npt.NDArray[Any] = raw[raw != 0] if mask is None else raw[mask]
        low, high = np.percentile(inside, config.percentiles) if inside.size else (0.0, 0.0)
        if not low < high:
            raise InputError(f"{file}: intensities are constant ({low:g}) between the percentiles {config.percentiles}")
    scaled: Array = np.clip((raw - low) * (2 / (high - low)) - 1, -1, 1).astype(np.float32)
    return scaled


def _tensor(values: npt.NDArray[Any]) -> Shaped[Tensor, "1 *space"]:
    """An array with a channel axis, in memory of its own."""
    return torch.from_numpy(np.ascontiguousarray(values)).unsqueeze(0)

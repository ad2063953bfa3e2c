"""MedMNIST-style `.npz` files: `{train,val,test}_images` and `_labels`, 2D or 3D, grey or colour (Yang et al. 2023)."""

import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.data.pixels import full_range, resize, scale
from cfx.data.table import check_labels, some


class NpzConfig(BaseModel):
    """A split of a MedMNIST-style `.npz` file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["npz"] = "npz"
    path: Path
    """The file."""
    split: str = "train"
    """Reads the arrays `<split>_images` and `<split>_labels`."""
    labelled: bool = True
    """False for a file without labels."""
    size: int | tuple[int, ...] | None = None
    """Resize to this many pixels along every axis."""
    value_range: tuple[float, float] | None = None
    """The values that become -1 and 1; needed unless the images are uint8, uint16 or boolean."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in label order."""


def load_npz(config: NpzConfig) -> Cohort:
    """Read one split, rows in the file's order, `ids` `<split>-<row>`.

    Images are `(n, h, w)`, `(n, h, w, 1 or 3)`, `(n, d, h, w)` or `(n, d, h, w, 1 or 3)`; a last axis of 1 or 3 is
    read as channels. Labels are `(n,)` or `(n, 1)` classes, or `(n, k)` 0/1 for several labels a row.

    Raises:
        InputError: no such file, not an `.npz` of plain arrays, a key that is not there (the message lists the keys),
            images or labels of another shape or range.
    """
    with _open(config.path) as arrays:
        raw = _array(arrays, f"{config.split}_images", config.path)
        labels = _array(arrays, f"{config.split}_labels", config.path) if config.labelled else None
    if labels is not None and len(labels) != len(raw):
        raise InputError(f"{config.path}: {len(raw)} images, but {len(labels)} labels in split {config.split!r}")
    x = _images(raw, config)
    y = None if labels is None else _labels(labels, config)
    ids = tuple(f"{config.split}-{row}" for row in range(len(x)))
    return Cohort(x=x if config.size is None else resize(x, config.size), y=y, ids=ids, classes=list(config.classes))


def _open(path: Path) -> np.lib.npyio.NpzFile:
    """The archive, never unpickled."""
    if not path.is_file():
        raise InputError(f"path: expected an .npz file, found none at {path}")
    try:
        arrays = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"path: {path} is not a readable .npz file ({error})") from error
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise InputError(f"path: {path} holds a single array, expected an .npz file of named arrays")
    return arrays


def _array(arrays: np.lib.npyio.NpzFile, key: str, path: Path) -> npt.NDArray[Any]:
    """One array by name."""
    if key not in arrays.files:
        raise InputError(f"split: no array {key!r} in {path}; it has {some(sorted(arrays.files), 40)}")
    try:
        value: npt.NDArray[Any] = arrays[key]
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{key}: {path} is damaged or holds Python objects ({error})") from error
    return value


def _images(raw: npt.NDArray[Any], config: NpzConfig) -> Float[Tensor, "n c *space"]:
    """Images in [-1, 1], channels first."""
    name = f"{config.split}_images"
    coloured = raw.ndim > 3 and raw.shape[-1] in (1, 3)
    if raw.ndim - coloured not in (3, 4) or not raw.size:
        raise InputError(f"{name}: expected (n, h, w) or (n, d, h, w), with or without channels, got {raw.shape}")
    value_range = config.value_range or full_range(raw.dtype)
    if value_range is None:
        raise InputError(f"{name}: images of dtype {raw.dtype} need a value_range (the values that become -1 and 1)")
    x = scale(raw, value_range, name)
    return x.movedim(-1, 1).contiguous() if coloured else x.unsqueeze(1)


def _labels(raw: npt.NDArray[Any], config: NpzConfig) -> Int[Tensor, " n"] | Float[Tensor, "n k"]:
    """Classes `(n,)` or 0/1 `(n, k)`."""
    name = f"{config.split}_labels"
    if raw.ndim not in (1, 2) or raw.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected numbers (n,), (n, 1) or (n, k), got {raw.dtype} {raw.shape}")
    values = torch.from_numpy(raw.astype(np.float64))
    if raw.ndim == 2 and raw.shape[1] > 1:
        return _several(values, config.classes, name)
    y = values.flatten().long()
    if bool((y != values.flatten()).any()) or bool((y < 0).any()):
        raise InputError(f"{name}: expected whole numbers from 0, got {some(values.unique().tolist())}")
    check_labels(y, config.classes, name)
    return y


def _several(values: Float[Tensor, "n k"], classes: tuple[str, ...], name: str) -> Float[Tensor, "n k"]:
    """Several 0/1 labels a row."""
    if bool(((values != 0) & (values != 1)).any()):
        raise InputError(f"{name}: several labels a row must be 0 or 1, got {some(values.unique().tolist())}")
    if classes and len(classes) != values.shape[1]:
        raise InputError(f"{name}: {values.shape[1]} labels a row, but {len(classes)} classes {classes}")
    return values.float()

"""MedMNIST-style `.npz` files: `{train,val,test}_images` and `_labels`, 2D or 3D, grey or colour (Yang et al. 2023)."""

import math
import struct
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cfx.core.errors import InputError
from cfx.data.lazy import LazyCohort
from cfx.data.pixels import full_range, resize, scale
from cfx.data.table import labels_of, some


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
    lazy: bool = False
    """Read an image when it is asked for, instead of all at once (`cfx train`, `cfx explain`); needs a file that is
    not compressed (`numpy.savez`)."""


def open_npz(config: NpzConfig) -> LazyCohort:
    """One split, rows in the file's order, `ids` `<split>-<row>`.

    Images are `(n, h, w)`, `(n, h, w, 1 or 3)`, `(n, d, h, w)` or `(n, d, h, w, 1 or 3)`; a last axis of 1 or 3 is
    read as channels. Labels are `(n,)` or `(n, 1)` classes, or `(n, k)` 0/1 for several labels a row. With `lazy` each
    image is read in its place in the file, which therefore must not be compressed.

    Raises:
        InputError: no such file, not an `.npz` of plain arrays, a key that is not there (the message lists the keys),
            images or labels of another shape or range, or a compressed file that is to be read lazily.
    """
    name = f"{config.split}_images"
    with _open(config.path) as arrays:
        raw = _InPlace.of(arrays, name, config.path) if config.lazy else _array(arrays, name, config.path)
        labels = _array(arrays, f"{config.split}_labels", config.path) if config.labelled else None
    if labels is not None and len(labels) != raw.shape[0]:
        raise InputError(f"{config.path}: {raw.shape[0]} images, but {len(labels)} labels in split {config.split!r}")
    y = None if labels is None else labels_of(labels, config.classes, f"{config.split}_labels")
    ids = tuple(f"{config.split}-{row}" for row in range(raw.shape[0]))
    return LazyCohort(lambda rows: {"x": _images(raw[rows], config)}, ids, y, classes=list(config.classes))


@dataclass(frozen=True)
class _InPlace:
    """An array inside an uncompressed `.npz` file; rows are read from the file, not mapped, so that none stay behind.

    Attributes:
        path: The file.
        start: Byte at which the values begin.
        shape: Shape of the whole.
        dtype: Type of a value.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @classmethod
    def of(cls, arrays: np.lib.npyio.NpzFile, key: str, path: Path) -> Self:
        """Where an array is.

        Raises:
            InputError: it is not there, compressed, or its rows are not contiguous.
        """
        _check_key(arrays, key, path)
        with zipfile.ZipFile(path) as archive, archive.open(f"{key}.npy") as member:
            info = archive.getinfo(f"{key}.npy")
            if info.compress_type != zipfile.ZIP_STORED:
                raise InputError(
                    f"lazy: rows of the compressed array {key!r} in {path} cannot be read one by one; write it with "
                    "numpy.savez instead of savez_compressed, or set lazy: false"
                )
            major, _ = np.lib.format.read_magic(member)
            read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
            shape, transposed, dtype = read(member)
            header = member.tell()
        if transposed or dtype.hasobject:
            raise InputError(f"lazy: expected plain numbers in C order for {key!r} in {path}, got {dtype}")
        return cls(path, _begin(path, info) + header, shape, dtype)

    def __getitem__(self, rows: slice) -> npt.NDArray[Any]:
        """Consecutive rows.

        Raises:
            InputError: the file ends before them.
        """
        first, last, _ = rows.indices(self.shape[0])
        count, size = last - first, math.prod(self.shape[1:])
        offset = self.start + first * size * self.dtype.itemsize
        values = np.fromfile(self.path, self.dtype, count * size, offset=offset)
        if len(values) < count * size:
            raise InputError(f"{self.path}: expected rows {first} to {last - 1}, but the file ends before")
        return values.reshape(count, *self.shape[1:])


def _begin(path: Path, member: zipfile.ZipInfo) -> int:
    """Byte of a zip archive at which a stored member's own bytes begin: behind its local header (APPNOTE 4.3.7)."""
    with path.open("rb") as file:
        file.seek(member.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return member.header_offset + 30 + int(name) + int(extra)


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


def _check_key(arrays: np.lib.npyio.NpzFile, key: str, path: Path) -> None:
    if key not in arrays.files:
        raise InputError(f"split: no array {key!r} in {path}; it has {some(sorted(arrays.files), 40)}")


def _array(arrays: np.lib.npyio.NpzFile, key: str, path: Path) -> npt.NDArray[Any]:
    """One array by name."""
    _check_key(arrays, key, path)
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
    x = x.movedim(-1, 1).contiguous() if coloured else x.unsqueeze(1)
    return x if config.size is None else resize(x, config.size)

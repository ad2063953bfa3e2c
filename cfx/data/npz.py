"""MedMNIST-style `.npz` files: `{train,val,test}_images` and `_labels`, 2D or 3D, grey or colour (Yang et al. 2023)."""

import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cfx.core.errors import InputError
from cfx.data.classes import ClassNames, labels_of
from cfx.data.layout import Layout, layout_of, move_channels
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.pixels import binary, range_of, resize, resize_mask, scale
from cfx.data.table import some
from cfx.runtime.config import UserPath


class NpzConfig(BaseModel):
    """A split of a MedMNIST-style `.npz` file."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["npz"] = "npz"
    path: UserPath
    """The file."""
    split: str = "train"
    """Reads the arrays `<split>_images` and `<split>_labels`; an empty text reads `images` and `labels`."""
    labelled: bool = True
    """False for a file without labels."""
    masks: bool = False
    """Whether to read `<split>_masks` as well: 0 outside, one other value inside, axes as the images without
    channels."""
    layout: Layout | None = None
    """Axes of the images: n rows, c channels, d, h, w in space. By default the only ones that their shape can have; a
    shape that can be two things, such as (n, 3, h, w), is refused."""
    size: int | tuple[int, ...] | None = None
    """Resize to this many pixels along every axis."""
    value_range: tuple[float, float] | None = None
    """The values that become -1 and 1; needed unless the images are uint8, uint16 or boolean."""
    classes: ClassNames = ()
    """Names of the classes, in label order."""
    lazy: bool = False
    """Read an image when it is asked for, instead of all at once (`cfx train`, `cfx explain`); needs a file that is
    not compressed (`numpy.savez`)."""


def open_npz(config: NpzConfig) -> LazyCohort:
    """One split, rows in the file's order, `ids` `<split>-<row>`.

    Images are `(n, h, w)`, `(n, h, w, 1 or 3)`, `(n, 1, h, w)`, `(n, d, h, w)`, `(n, d, h, w, c)` or `(n, c, d, h, w)`
    where that is beyond doubt, or as `layout` says. Labels are `(n,)` or `(n, 1)` classes, or `(n, k)` 0/1 for several
    labels a row. With `lazy` each image is read in its place in the file, which therefore must not be compressed.

    Raises:
        InputError: no such file, not an `.npz` of plain arrays, a key that is not there (the message lists the keys),
            images, masks or labels of another shape or range, or a compressed file that is to be read lazily.
    """
    names = {what: f"{config.split}_{what}" if config.split else what for what in ("images", "labels", "masks")}
    take = _InPlace.of if config.lazy else _array
    with _open(config.path) as arrays:
        raw = take(arrays, names["images"], config.path)
        masks = take(arrays, names["masks"], config.path) if config.masks else None
        labels = _array(arrays, names["labels"], config.path) if config.labelled else None
    reader = _Reader(config, raw, layout_of(raw.shape, config.layout, names["images"]), masks, names)
    for what, values in (("labels", labels), ("masks", masks)):
        if values is not None and values.shape[:1] != raw.shape[:1]:
            got = f"{raw.shape[0]} images, but {math.prod(values.shape[:1])} {what}"
            raise InputError(f"{config.path}: {got} in split {config.split!r}")
    y = None if labels is None else labels_of(labels, config.classes, f"{config.path}: {names['labels']}")
    ids = tuple(f"{config.split}-{row}" if config.split else str(row) for row in range(raw.shape[0]))
    return LazyCohort(reader.read, ids, y, classes=list(config.classes))


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


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads rows of the arrays.

    Attributes:
        config: How.
        raw: Images.
        layout: Their axes.
        masks: Their masks, or None.
        names: What the arrays are called.
    """

    config: NpzConfig
    raw: "npt.NDArray[Any] | _InPlace"
    layout: Layout
    masks: "npt.NDArray[Any] | _InPlace | None"
    names: Mapping[str, str]

    def __post_init__(self) -> None:
        """Refuse arrays that are no images, and masks on another grid."""
        if self.raw.dtype.kind not in "buif":
            raise InputError(f"{self.names['images']}: expected numbers, got {self.raw.dtype}")
        space = tuple(n for n, axis in zip(self.raw.shape, self.layout, strict=True) if axis in "dhw")
        if self.masks is not None and self.masks.shape[1:] != space:
            raise InputError(
                f"{self.names['masks']}: expected masks (n, {space}), as the images, got {self.masks.shape}"
            )

    def read(self, rows: slice) -> Columns:
        """Images of consecutive rows, and their masks."""
        found = {"x": self._images(self.raw[rows])}
        return found if self.masks is None else found | {"mask": self._masks(self.masks[rows], rows.start)}

    def _images(self, raw: npt.NDArray[Any]) -> Float[Tensor, "n c *space"]:
        """Images in [-1, 1], channels first."""
        name, size = self.names["images"], self.config.size
        x = scale(raw, range_of(raw, self.config.value_range, name), name)
        x = move_channels(x, self.layout).contiguous()
        return x if size is None else resize(x, size)

    def _masks(self, raw: npt.NDArray[Any], first: int) -> Bool[Tensor, "n 1 *space"]:
        """Masks on the grid of the images."""
        name, size = self.names["masks"], self.config.size
        mask = torch.stack([binary(values, f"{name}, row {row}") for row, values in enumerate(raw, first)])[:, None]
        return mask if size is None else resize_mask(mask, size)

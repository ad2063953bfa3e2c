"""A folder of PNG images: with a table of labels and covariates, with a subfolder a class, or without labels."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int, Shaped
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cfx.core.errors import InputError
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.pixels import full_range, resize, scale, stack
from cfx.data.table import Table, encode, find


class PngConfig(BaseModel):
    """A folder of PNG images."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["png"] = "png"
    path: Path
    """The folder. Without a table, its subfolders are the classes; without subfolders, images have no label."""
    table: Path | None = None
    """A csv file with one row an image; the cohort keeps its order. Columns of numbers become covariates."""
    filename: str = "filename"
    """Column of file names relative to the folder, with or without `.png`."""
    label: str | None = "label"
    """Column of labels (class names, or whole numbers from 0); null for a table without labels."""
    channels: Literal[1, 3] | None = None
    """Convert to grey (1) or RGB (3); null keeps what is stored, which must then be one of the two throughout."""
    size: int | tuple[int, int] | None = None
    """Resize to this many pixels (rows, columns). Without it, images of different sizes are refused."""
    value_range: tuple[float, float] | None = None
    """The values that become -1 and 1; by default the full range of the stored depth (0..255 or 0..65535)."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in label order; by default names in alphabetical order."""
    lazy: bool = False
    """Read an image when it is asked for, instead of all at once (`cfx train`, `cfx explain`)."""


def open_png(config: PngConfig) -> LazyCohort:
    """The folder, each image read when asked for; `ids` are names as in the table, or relative paths in sorted order.

    Transparency is dropped, palettes are resolved to RGB, and Pillow reads 16-bit colour at 8 bits.

    Raises:
        InputError: missing files (listed), a missing label column (with the columns there are), a label outside the
            classes; when it is read: images of several sizes or channel counts (with both), an unreadable file.
    """
    ids, files, y, classes, covariates = _listing(config)

    def read(rows: slice) -> Columns:
        images, names = [_read(file, config) for file in files[rows]], [str(file) for file in files[rows]]
        return {"x": stack(images, names, "give `size` (and `channels`) to make them alike")}

    return LazyCohort(read, ids, y, covariates, list(classes))


Listing = tuple[tuple[str, ...], list[Path], Int[Tensor, " n"] | None, tuple[str, ...], dict[str, Shaped[Tensor, " n"]]]


def _listing(config: PngConfig) -> Listing:
    """Names, files, labels, class names and covariates of the images."""
    if config.table is None:
        return _walk(config)
    table = Table.read(config.table)
    ids = table.names(config.filename)
    y, classes = None, config.classes
    if config.label is not None:
        y, classes = encode(table.column(config.label, "label"), config.classes, f"column {config.label!r}")
    used = [name for name in (config.filename, config.label) if name is not None]
    return ids, find(config.path, ids, [".png"], "path"), y, classes, table.covariates(without=used)


def _walk(config: PngConfig) -> Listing:
    """The same without a table: the subfolder is the class."""
    if not config.path.is_dir():
        raise InputError(f"path: expected a folder, found none at {config.path}")
    files = sorted(file for file in config.path.rglob("*") if file.suffix.lower() == ".png")
    if not files:
        raise InputError(f"path: expected PNG images, found none in {config.path}")
    ids = tuple(file.relative_to(config.path).as_posix() for file in files)
    folders = [name.split("/")[0] if "/" in name else "" for name in ids]
    if not any(folders):
        return ids, files, None, config.classes, {}
    if "" in folders:
        loose = ids[folders.index("")]
        raise InputError(f"path: {config.path} holds both class subfolders and loose images ({loose}); give a table")
    named = config.classes or tuple(sorted(set(folders)))
    y, classes = encode(folders, named, f"subfolders of {config.path}")
    return ids, files, y, classes, {}


def _read(file: Path, config: PngConfig) -> Float[Tensor, "c h w"]:
    """One image in [-1, 1]."""
    pixels = _decode(file)
    value_range = config.value_range or full_range(pixels.dtype)
    if value_range is None:
        raise InputError(f"{file}: {pixels.dtype} pixels need a value_range (the values that become -1 and 1)")
    x = scale(pixels, value_range, str(file))
    x = x.unsqueeze(0) if x.ndim == 2 else x.movedim(-1, 0)
    if config.channels == 1 and len(x) == 3:
        x = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)  # luma of ITU-R BT.601
    if config.channels == 3:
        x = x.expand(3, -1, -1)
    return x if config.size is None else resize(x.unsqueeze(0), config.size)[0]


def _decode(file: Path) -> npt.NDArray[Any]:
    """Pixels `(h, w)` or `(h, w, 3)` at the stored depth."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file, formats=["PNG"]) as image:
            if image.mode in ("1", "LA"):
                return np.asarray(image.convert("L"))
            if image.mode in ("P", "PA", "RGBA"):
                return np.asarray(image.convert("RGB"))
            pixels = np.asarray(image)
    except (OSError, SyntaxError, UnidentifiedImageError) as error:
        raise InputError(f"{file} is not a readable PNG image ({error})") from error
    # Some Pillow versions hand 16-bit grey out as 32-bit integers.
    return pixels.astype(np.uint16) if pixels.dtype == np.int32 else pixels

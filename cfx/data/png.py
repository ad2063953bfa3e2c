"""A folder of PNG, JPEG, TIFF or BMP images: with a table of labels and covariates, a subfolder a class, or neither."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Bool, Float
from pydantic import BaseModel, ConfigDict
from torch import Tensor

from cfx.core.errors import InputError
from cfx.data.classes import ClassNames
from cfx.data.decode import SUFFIXES, decode
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.listing import Listing, find, listed, walked
from cfx.data.pixels import binary, range_of, resize, resize_mask, scale, stack
from cfx.runtime.config import UserPath


class PngConfig(BaseModel):
    """A folder of images: PNG, JPEG, TIFF or BMP."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["png"] = "png"
    path: UserPath
    """The folder. Without a table, its subfolders are the classes (whole numbers as names are the labels themselves);
    without subfolders, images have no label."""
    table: UserPath | None = None
    """A csv file with one row an image; the cohort keeps its order. Columns of numbers become covariates, and columns
    of texts that repeat, as codes."""
    filename: str = "filename"
    """Column of file names relative to the folder, with or without their suffix."""
    label: str | None = "label"
    """Column of labels (class names, or whole numbers from 0); null for a table without labels."""
    subject: str | None = None
    """Column that says whose an image is, where one subject has several; by default `subject`, `subject_id`,
    `participant_id` or `patient_id`, if there is one. Subjects are held out whole."""
    masks: UserPath | None = None
    """Folder of masks (0 outside, one other value inside) under the names of the images."""
    channels: Literal[1, 3] | None = None
    """Convert to grey (1) or RGB (3); null keeps what is stored, which must then be one of the two throughout."""
    size: int | tuple[int, int] | None = None
    """Resize to this many pixels (rows, columns). Without it, images of different sizes are refused."""
    value_range: tuple[float, float] | None = None
    """The values that become -1 and 1; by default the full range of the stored depth (0..255 or 0..65535), which must
    then be one throughout."""
    classes: ClassNames = ()
    """Names of the classes, in label order; by default names in alphabetical order."""
    lazy: bool = False
    """Read an image when it is asked for, instead of all at once (`cfx train`, `cfx explain`)."""


def open_png(config: PngConfig) -> LazyCohort:
    """The folder, each image read when asked for; `ids` are names as in the table, or relative paths in sorted order.

    What is done to the colours of a file, `cfx.data.decode` says. A mask is resized with its image: a pixel is inside
    where at least half of it is.

    Raises:
        InputError: missing files (listed), a missing label column (with the columns there are), a label outside the
            classes; when it is read: images of several sizes, channel counts or depths (with both), an unreadable file,
            a mask of another size than its image, of more than two values, or with nothing inside.

    Warns:
        CfxWarning: as `walked` and `Table.covariates`.
    """
    found = _listing(config)
    masks = [] if config.masks is None else find(config.masks, [_stem(name) for name in found.ids], SUFFIXES, "masks")
    reader = _Reader(config, found.files, masks)
    y, known = found.y, found.covariates
    return LazyCohort(reader.read, found.ids, y, known.columns, list(found.classes), categories=known.categories)


def _listing(config: PngConfig) -> Listing:
    """Names, files, labels, class names and covariates of the images."""
    if config.table is None:
        return walked(config.path, SUFFIXES, config.classes, without=config.masks)
    return listed(
        config.table, config.path, SUFFIXES, filename=config.filename, label=config.label, subject=config.subject,
        classes=config.classes,
    )  # fmt: skip


def _stem(name: str) -> str:
    """The name without its suffix; of a full path, which would lead back to the image, the last part."""
    path = Path(name.replace("\\", "/"))
    path = path.with_suffix("") if path.suffix.lower() in SUFFIXES else path
    return path.name if path.is_absolute() else path.as_posix()


@dataclass(frozen=True, eq=False)
class _Reader:
    """Reads images and their masks.

    Attributes:
        config: How.
        files: Images.
        masks: Their masks; none or one each.
    """

    config: PngConfig
    files: list[Path]
    masks: list[Path]

    def read(self, rows: slice) -> Columns:
        """Images of consecutive rows, and their masks."""
        files, masks = self.files[rows], self.masks[rows]
        pixels = [self._pixels(file) for file in files]
        images = [self._image(values, file) for values, file in zip(pixels, files, strict=True)]
        names = [str(file) for file in files]
        found = {"x": stack(images, names, "give `size` (and `channels`) to make them alike")}
        if self.masks:
            triples = zip(masks, pixels, files, strict=True)
            found["mask"] = torch.stack([self._mask(mask, values.shape[:2], file) for mask, values, file in triples])
        return found

    @cached_property
    def _depth(self) -> np.dtype[Any]:
        """Type of the first image's values, which is that of all."""
        return decode(self.files[0]).dtype

    def _pixels(self, file: Path) -> npt.NDArray[Any]:
        """Values of one image, of the same depth as the others unless their range is said."""
        pixels = decode(file)
        if self.config.value_range is None and pixels.dtype != self._depth:
            raise InputError(
                f"images differ in depth: {self._depth} in {self.files[0]}, {pixels.dtype} in {file}; bring them to "
                "one depth, or give `value_range` if the values mean the same in both"
            )
        return pixels

    def _image(self, pixels: npt.NDArray[Any], file: Path) -> Float[Tensor, "c h w"]:
        """One image in [-1, 1]."""
        config = self.config
        x = scale(pixels, range_of(pixels, config.value_range, str(file)), str(file))
        x = x.unsqueeze(0) if x.ndim == 2 else x.movedim(-1, 0)
        if config.channels == 1 and len(x) == 3:
            x = (x * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0, keepdim=True)  # luma of ITU-R BT.601
        if config.channels == 3:
            x = x.expand(3, -1, -1)
        return x if config.size is None else resize(x.unsqueeze(0), config.size)[0]

    def _mask(self, file: Path, size: tuple[int, ...], of: Path) -> Bool[Tensor, "1 h w"]:
        """The mask of an image."""
        values = decode(file)
        values = values.max(-1) if values.ndim == 3 else values
        if values.shape != size:
            raise InputError(f"{file}: the mask has {values.shape} pixels, its image {of} has {size}")
        mask = binary(values, str(file))[None, None]
        return (mask if self.config.size is None else resize_mask(mask, self.config.size))[0]

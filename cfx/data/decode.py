"""Pixels of an image file, as they are stored and as they are meant: the right way up, one image, grey or RGB."""

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cfx.core.errors import InputError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp")
"""Names of image files, in lower case."""

_FORMATS = ["PNG", "JPEG", "TIFF", "BMP"]
_GREY, _COLOUR = ("1", "LA", "La"), ("P", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
_AS_STORED = ("L", "RGB", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
_FAILURES = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, zlib.error)


def decode(file: Path) -> npt.NDArray[Any]:
    """Pixels `(h, w)` or `(h, w, 3)` at the stored depth, turned as the file's orientation says (EXIF 0x0112).

    Transparency is dropped, palettes and CMYK are resolved to RGB, and Pillow reads 16-bit colour at 8 bits.

    Raises:
        InputError: not a readable image, several images in one file, or a colour space without a plain meaning.
    """
    from PIL import Image, ImageOps

    try:
        with _quiet(), Image.open(file, formats=_FORMATS) as image:
            _check_one(image, file)
            return _array(ImageOps.exif_transpose(image), image.format, file)
    except InputError:
        raise
    except (*_FAILURES, Image.DecompressionBombError) as error:
        raise InputError(f"{file} is not a readable PNG, JPEG, TIFF or BMP image ({error})") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's own warnings, of damaged notes beside sound pixels or of many pixels."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="PIL")
        yield


def _check_one(image: "Image", file: Path) -> None:
    """Refuse a file of several images, and one whose rows Pillow would read with the wrong length."""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":  # the further pictures of a camera's JPEG are previews
        raise InputError(f"{file}: expected one image, got {frames} frames or pages; write each to its own file")
    if image.format == "TIFF" and image.getexif().get(0x0112, 1) > 4 and image.info.get("compression") == "raw":
        raise InputError(f"{file}: expected upright pixels in an uncompressed TIFF; write it turned, or as PNG")


def _array(image: "Image", kind: str | None, file: Path) -> npt.NDArray[Any]:
    """The numbers of an image, in the byte order of the machine."""
    if image.mode in _GREY:
        return np.asarray(image.convert("L"))
    if image.mode in _COLOUR:
        return np.asarray(image.convert("RGB"))
    if image.mode not in _AS_STORED:
        raise InputError(f"{file}: expected grey, RGB, CMYK or palette colours, got mode {image.mode}")
    pixels = np.array(image)
    if kind == "PNG" and pixels.dtype == np.int32:  # how some Pillow versions hand out 16-bit grey
        return pixels.astype(np.uint16)
    return pixels.astype(pixels.dtype.newbyteorder("="), copy=False)

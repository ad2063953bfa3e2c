"""One NIfTI file, read whole and checked: intensities, affine, and everything in it that contradicts itself.

A NIfTI header may place a volume twice, by the sform and by the qform (nifti1.h, methods 2 and 3); readers differ in
which one they believe. Both are compared, and the sform is taken, as nibabel does. Bytes are read once: gzip's own
checksum is reached, and the SHA-256 is that of the bytes which were decoded.
"""

import gzip
import hashlib
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from cfx.core.errors import CfxWarning, InputError
from cfx.data.table import some

if TYPE_CHECKING:
    import nibabel

SUFFIXES: Final = (".nii.gz", ".nii")
_GZIP: Final = b"\x1f\x8b"
# The fourth number of a quaternion is the root of what three float32 leave of 1: near a half turn a rotation is known
# to a thousandth (measured: 1.1e-3 of the diagonal over 8000 random affines).
_TURN: Final = 1.2e-3
_SHIFT: Final = 0.1  # voxels
_MM: Final = {1: 1000.0, 3: 0.001}
"""Millimetres of the units of length other than that: metres and micrometres, by their code in the header."""


@dataclass(frozen=True)
class VolumeFile:
    """A NIfTI file in memory.

    Attributes:
        path: Where it was read.
        image: The image as nibabel has it, in the orientation of the file; one volume `(x, y, z)`, behind which only
            axes of length one may follow.
        data: Its intensities `(x, y, z)`, slope and intercept applied; float32 where that is exact, else float64.
        affine: Voxel-to-world matrix in mm, in whatever unit of length the file has it.
        sha256: SHA-256 of the file.
        doubt: What is odd about its place in the world, in words, or empty.
    """

    path: Path
    image: "nibabel.Nifti1Pair"
    data: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]
    sha256: bytes
    doubt: str

    @classmethod
    def read(cls, path: Path) -> "VolumeFile":
        """Read a file and check it.

        Raises:
            InputError: no NIfTI file, a damaged one, numbers that are no intensities (colours, complex), another number
                of axes, no voxel, NaN or infinite ones, or an affine that is singular.
        """
        with _refusals(path):
            raw = path.read_bytes()
            image = _decoded(gzip.decompress(raw) if raw.startswith(_GZIP) else raw)
            _check_kind(path, image)
            data = _intensities(image)
        _check_values(path, data, image.header.get_data_dtype())
        _check_affine(path, image.affine)
        length = _MM.get(int(image.header["xyzt_units"]) % 8, 1.0)
        affine = np.diag([length, length, length, 1.0]) @ image.affine
        return cls(path, image, data, affine, hashlib.sha256(raw).digest(), doubt(image.header))


def stem(name: str) -> str:
    """The name without `.nii` or `.nii.gz`."""
    return next((name[: -len(suffix)] for suffix in SUFFIXES if name.lower().endswith(suffix)), name)


def warn_of(files: Sequence[VolumeFile]) -> bool:
    """Warn, once for all, of files whose place is in doubt; whether there are any."""
    odd = [file for file in files if file.doubt]
    if odd:
        others = f" (and so in {some([file.path.name for file in odd[1:]])})" if odd[1:] else ""
        warnings.warn(f"{odd[0].path}{others}: {odd[0].doubt}", CfxWarning, stacklevel=3)
    return bool(odd)


def doubt(header: "nibabel.Nifti1Header") -> str:
    """What is odd about the place of a volume in the world, in words; empty where nothing is."""
    s, q = int(header["sform_code"]), int(header["qform_code"])
    if not s and not q:
        return "neither sform nor qform is set, so that left and right are a guess; set one of them"
    if not s or not q:
        return ""
    try:
        qform = header.get_qform()
    except ValueError:
        qform = np.full((4, 4), np.nan)
    if not np.isfinite(qform).all():
        return f"the qform (code {q}) is no rotation; the sform (code {s}) is used, set both alike if it is wrong"
    sform = header.get_sform()
    if not _differ(sform, qform, header.get_data_shape()[:3]):
        return ""
    turned = np.linalg.det(sform[:3, :3]) * np.linalg.det(qform[:3, :3]) < 0
    both = f"sform (code {s}) {_short(sform)} and qform (code {q}) {_short(qform)}"
    return f"{both} {'mirror each other' if turned else 'disagree'}; the sform is used, set both alike if it is wrong"


def _differ(sform: npt.NDArray[Any], qform: npt.NDArray[Any], shape: Sequence[int]) -> bool:
    """Whether two affines place a volume differently, beyond rounding: in its first voxel, or in any corner from it."""
    corners = np.array(list(product(*((0, n - 1) for n in shape)))).T
    places = sform[:3, :3] @ corners
    diagonal = float(np.linalg.norm(places.max(1) - places.min(1)))
    voxel = float(np.linalg.norm(sform[:3, :3], axis=0).min())
    moved = float(np.linalg.norm(sform[:3, 3] - qform[:3, 3]))
    turned = float(np.linalg.norm(places - qform[:3, :3] @ corners, axis=0).max())
    return moved > _SHIFT * voxel or turned > _SHIFT * voxel + _TURN * diagonal


def _short(affine: npt.NDArray[Any]) -> str:
    """The three rows of an affine on one line."""
    return str([[float(f"{v:.4g}") for v in row] for row in affine[:3]])


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Turn what nibabel and gzip raise for damaged bytes into one line."""
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError
    from nibabel.wrapstruct import WrapStructError

    damage = (ImageFileError, HeaderDataError, WrapStructError, OSError, EOFError, ValueError, OverflowError)
    try:
        yield
    except InputError:
        raise
    except (*damage, MemoryError, zlib.error) as error:
        said = " ".join(str(error).split()) or "its header asks for more memory than there is"
        raise InputError(f"{path} is not a readable NIfTI file ({said})") from error


def _decoded(raw: bytes) -> "nibabel.Nifti1Pair":
    """The image in some bytes, NIfTI-1 or, by the size of its header, NIfTI-2."""
    import nibabel

    second = raw[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
    kind = nibabel.Nifti2Image if second else nibabel.Nifti1Image
    with nibabel.imageglobals.LoggingOutputSuppressor():
        image = kind.from_bytes(raw)
    # nibabel puts 1 where a size is 0; with an sform nothing depends on it.
    sizes = kind.header_class(raw[: kind.header_class.sizeof_hdr], check=False)["pixdim"][1:4]
    if not image.header["sform_code"] and not (sizes != 0).all():
        raise ValueError(f"its voxels have no size: {sizes.tolist()}")
    return image


def _check_kind(path: Path, image: "nibabel.Nifti1Pair") -> None:
    """Refuse colours, complex numbers, and what is not one volume."""
    dtype, shape = image.header.get_data_dtype(), image.shape
    if dtype.kind not in "iufb":
        kind = "complex numbers" if dtype.kind == "c" else "colours" if dtype.names else str(dtype)
        raise InputError(f"{path}: expected one intensity a voxel, got {kind}; save one channel as numbers")
    if len(shape) < 3 or set(shape[3:]) - {1}:
        raise InputError(f"{path}: expected one volume (x, y, z), got shape {shape}; save one volume of it")
    if 0 in shape:
        raise InputError(f"{path}: expected voxels, got shape {shape}")


def _intensities(image: "nibabel.Nifti1Pair") -> npt.NDArray[Any]:
    """Intensities `(x, y, z)`, exact."""
    values: Any = image.dataobj
    dtype, plain = image.header.get_data_dtype(), (values.slope, values.inter) == (1, 0)
    small = plain and (dtype.itemsize <= 2 or dtype == np.float32)
    data = np.asarray(values, dtype=np.float32 if small else np.float64)
    return data.reshape(image.shape[:3])


def _check_values(path: Path, data: npt.NDArray[Any], dtype: np.dtype[Any]) -> None:
    """Refuse what is no finite number, or more than the floats here can tell apart."""
    odd = ~np.isfinite(data)
    if odd.any():
        raise InputError(f"{path}: {int(odd.sum())} voxels are NaN or infinite; give them an intensity first")
    most, limit = np.abs(data).max(), 2.0**53 if dtype.kind in "iu" else np.finfo(np.float32).max / 4
    if most > limit:
        raise InputError(f"{path}: expected intensities up to {limit:.3g}, got {most:.3g}; rescale them first")


def _check_affine(path: Path, affine: npt.NDArray[Any]) -> None:
    lengths = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or not (lengths > 0).all():
        raise InputError(f"{path}: expected an affine that places every voxel, got {_short(affine)}")
    if abs(np.linalg.det(affine[:3, :3] / lengths)) < 1e-3:
        raise InputError(f"{path}: expected axes in three directions, got a flat affine {_short(affine)}")

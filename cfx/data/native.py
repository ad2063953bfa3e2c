"""Back into the original file: its grid, its affine, its intensities, and in them nothing but what was changed.

An image may have been turned to RAS, cropped, padded, resampled, cut to a slice and scaled to [-1, 1] before a network
saw it. World coordinates stay through all of that, so the affines of image and file say which voxels are the same
place: along every axis of the file, index n lies at t = a n + b of one axis of the image. What is written is

    v + (high - low) / 2 * (W d),   d = x_cf - x

with v the file's own values, (low, high) the intensities that became -1 and 1, and W as the grids ask for along each
axis: copied where they agree, linear between the centres of a coarser image, the mean over those voxels of a finer one
whose centre lies in the voxel. A voxel of the file belongs to an edit where its centre lies in an edited voxel of the
image, or an edited one's centre in it. All others keep the file's value exactly.

A voxel beyond (low, high) was clipped: the networks saw the end. Where it is changed, the change starts from that end,
so that the file which is written, read with the same window, is x_cf.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, UInt8
from scipy import sparse
from torch import Tensor

from cfx.core.errors import InputError
from cfx.data.volume_file import VolumeFile

_SAME = 1e-4  # of a voxel's size: less is no resampling, as in `cfx.data.grid`
_TURNED = 1e-2  # voxels by which axes that should be parallel may drift apart over the image


@dataclass(frozen=True)
class Native:
    """A row's original file, and where its voxels lie in the row's image.

    Attributes:
        file: The file.
        order: Axis of the image (a slice has a third of length one) of every axis of the file.
        weights: W along every axis of the file, `(file, image)`.
        share: 1 where a voxel of the file and one of the image share a centre, along every axis; else 0.
        ends: The intensities that became -1 and 1.
    """

    file: VolumeFile
    order: tuple[int, ...]
    weights: tuple[sparse.csr_array, ...]
    share: tuple[sparse.csr_array, ...]
    ends: tuple[float, float]

    @classmethod
    def of(
        cls, path: Path, sha256: bytes, affine: npt.NDArray[np.float64], space: tuple[int, ...],
        ends: tuple[float, float],
    ) -> Self:  # fmt: skip
        """Find a row's image in its file.

        Args:
            path: The file.
            sha256: What its SHA-256 was when it was read.
            affine: Voxel-to-world matrix of the image.
            space: Spatial shape of the image.
            ends: The intensities that became -1 and 1.

        Raises:
            InputError: the file is gone, is another than it was, or its axes are not parallel to those of the image.
        """
        if not path.is_file():
            raise InputError(f"original file {path} is not there; put it back, or write without native")
        file = VolumeFile.read(path)
        if file.sha256 != sha256:
            raise InputError(f"original file {path} is not the one that was read (its SHA-256 differs); put that back")
        lengths = (*space, 1)[:3]
        order, lines = _parallel(affine, file, lengths)
        pairs = [_along(n, lengths[order[k]], *lines[k]) for k, n in enumerate(file.data.shape)]
        return cls(file, order, tuple(w for w, _ in pairs), tuple(s for _, s in pairs), ends)

    def edited(self, mask: Bool[Tensor, "*space"]) -> npt.NDArray[np.bool_]:
        """The voxels of the file that belong to an edit."""
        found: npt.NDArray[np.bool_] = self._moved(mask.cpu().numpy().astype(np.float32), self.share) > 0
        return found

    def labels(self, mask: Bool[Tensor, "*space"] | UInt8[Tensor, "*space"]) -> npt.NDArray[np.uint8]:
        """The class of every voxel of the file: that which covers most of it, of equals the highest."""
        k = np.arange(int(mask.max()), -1, -1)
        shares = [self._moved((mask.cpu().numpy() == v).astype(np.float32), self.weights) for v in k]
        shares[-1] += 1 - sum(shares)  # of a voxel that the image covers in part, the rest is background
        found: npt.NDArray[np.uint8] = k[np.stack(shares).argmax(0)].astype(np.uint8)
        return found

    def laid(self, values: Float[Tensor, "*space"]) -> npt.NDArray[np.float32]:
        """A map on the grid of the file; 0 where the image is not."""
        found: npt.NDArray[np.float32] = self._moved(values.detach().cpu().float().numpy(), self.weights)
        return found

    def changed(self, change: Float[Tensor, "*space"], mask: Bool[Tensor, "*space"]) -> npt.NDArray[Any]:
        """The file's intensities with a change, in units of the image, where `mask` is."""
        low, high = self.ends
        step = self._moved(change.detach().cpu().double().numpy(), self.weights) * ((high - low) / 2)
        step[~self.edited(mask)] = 0
        v = self.file.data.astype(np.float64)
        start = np.where((v > high) & (step < 0), high, np.where((v < low) & (step > 0), low, v))
        return np.where(step == 0, v, start + step)

    def _moved(self, image: npt.NDArray[Any], along: tuple[sparse.csr_array, ...]) -> npt.NDArray[Any]:
        """An image on the grid of the file."""
        found = image.reshape((*image.shape, 1)[:3]).transpose(self.order)
        for axis, matrix in enumerate(along):
            turned = np.moveaxis(found, axis, 0)
            flat = matrix.astype(found.dtype) @ turned.reshape(turned.shape[0], -1)
            found = np.moveaxis(flat.reshape(-1, *turned.shape[1:]), 0, axis)
        return found

    def save(self, data: npt.NDArray[Any], path: Path, *, alike: bool = True) -> None:
        """Write values on the grid of the file, under its header.

        Args:
            data: Values `(x, y, z)`, or `(x, y, z, c)` for several of one kind; flags become 0 and 1, and class numbers
                (uint8 that are not `alike`) stay.
            path: File to write.
            alike: Whether the values are intensities like the file's own; else its range for display is left out.

        Raises:
            InputError: the path cannot be written.
        """
        image = self.file.image
        whole = data.dtype == np.bool_ or (data.dtype == np.uint8 and not alike)
        values = data.astype(np.uint8 if whole else self._float())
        header = image.header.copy()
        header.set_data_dtype(values.dtype)
        if not alike:
            header["cal_min"] = header["cal_max"] = 0
        shape = image.shape if data.ndim == 3 else data.shape
        try:
            type(image)(values.reshape(shape), image.affine, header).to_filename(path)
        except OSError as error:
            raise InputError(f"path: cannot write {path} ({error})") from error

    def _float(self) -> type[np.floating[Any]]:
        """The smaller float that holds the file's intensities exactly."""
        exact = bool((self.file.data.astype(np.float32) == self.file.data).all())
        return np.float32 if exact else np.float64


def _parallel(
    affine: npt.NDArray[np.float64], file: VolumeFile, lengths: tuple[int, ...]
) -> tuple[tuple[int, ...], list[tuple[float, float]]]:
    """The axis of the image of every axis of the file, and (a, b) of t = a n + b along it.

    Raises:
        InputError: the axes are not parallel.
    """
    to_image = np.linalg.solve(affine, file.affine)
    steps, shape = to_image[:3, :3], file.data.shape
    order = tuple(int(k) for k in np.abs(steps).argmax(0))
    other = steps.copy()
    other[order, range(3)] = 0
    if sorted(order) != [0, 1, 2] or (np.abs(other) * shape).max() > _TURNED:
        raise InputError(f"{file.path}: its axes are not those of the image, which was turned since it was read")
    return order, [(float(steps[c, k]), float(to_image[c, 3])) for k, c in enumerate(order)]


def _along(n: int, m: int, a: float, b: float) -> tuple[sparse.csr_array, sparse.csr_array]:
    """W and the shared centres along one axis: n voxels of the file at a n + b among m of the image."""
    t = a * np.arange(n, dtype=np.float64) + b
    if abs(abs(a) - 1) < _SAME or abs(a) < 1:
        home = np.floor(t + 0.5 + _SAME).astype(int)  # the voxel that the centre lies in
        share = _matrix(np.arange(n), home, np.ones(n), (n, m))
        if abs(abs(a) - 1) < _SAME:
            return share, share
        return sparse.csr_array(_linear(t, m) * share.sum(1)[:, None]), share
    # An edge between two voxels of the file goes to the one that comes first.
    home = np.ceil((np.arange(m) - b) / a - 0.5 - _SAME).astype(int)
    share = _matrix(home, np.arange(m), np.ones(m), (n, m))
    return sparse.csr_array(share / np.maximum(share.sum(1), 1)[:, None]), share


def _linear(t: npt.NDArray[np.float64], m: int) -> sparse.csr_array:
    """Linear interpolation at places t among m voxels, beyond the outermost by the nearest."""
    place = np.clip(t, 0, m - 1)
    below = np.minimum(np.floor(place).astype(int), max(m - 2, 0))
    above = np.minimum(below + 1, m - 1)
    rows, share = np.arange(len(t)), place - below
    return _matrix(np.r_[rows, rows], np.r_[below, above], np.r_[1 - share, share], (len(t), m))


def _matrix(
    rows: npt.NDArray[np.int_], columns: npt.NDArray[np.int_], values: npt.NDArray[np.float64], shape: tuple[int, int]
) -> sparse.csr_array:
    """A sparse matrix of these entries, those outside left out."""
    here = (rows >= 0) & (rows < shape[0]) & (columns >= 0) & (columns < shape[1])
    return sparse.csr_array((values[here], (rows[here], columns[here])), shape=shape)

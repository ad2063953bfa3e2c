"""Volumes on voxel grids: every change of the grid changes the affine with it, so world coordinates never move.

A volume is an array whose axes run to the right, the front and the top (RAS) and a 4x4 affine from voxel indices to
millimetres. A grid here differs from another by a factor and a shift along each axis, so that one separable
interpolation covers resampling, cropping and padding.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from cfx.core.errors import InputError

Array = npt.NDArray[np.float32]
Affine = npt.NDArray[np.float64]
Axis = Literal["sagittal", "coronal", "axial"]
AXES: tuple[Axis, ...] = ("sagittal", "coronal", "axial")
SLICE_AXES: dict[Axis, tuple[str, str]] = {
    "sagittal": ("bottom", "front"),
    "coronal": ("bottom", "right"),
    "axial": ("back", "right"),
}
"""Where the rows and columns of `slice_at` run to."""
MOST = 2**30
"""Most voxels of a grid that a spacing may ask for."""
_ROUNDING = 1e-4  # voxels by which a centre may lie outside the field of view through rounding


@dataclass(frozen=True)
class Volume:
    """A volume in RAS order.

    Attributes:
        data: Intensities in [-1, 1], `(x, y, z)` or, after `slice_at`, `(rows, columns)`.
        mask: Region of interest on the same grid, or None.
        affine: Voxel-to-world matrix in mm; for a slice, of the indices (row, column, 0).
        name: What to call it in messages.
    """

    data: Array
    mask: npt.NDArray[np.bool_] | None
    affine: Affine
    name: str

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbours along every axis of `data`, in mm."""
        return tuple(float(v) for v in np.linalg.norm(self.affine[:3, :3], axis=0))[: self.data.ndim]


def target_grid(
    volume: Volume, shape: tuple[int, int, int] | None, spacing: float | None
) -> tuple[tuple[int, ...], npt.NDArray[np.float64]]:
    """Shape and spacing (mm) of the grid to resample to.

    With a spacing alone the grid covers the field of view; with both it is cropped or padded about its centre; with a
    shape alone the spacing is the finest isotropic one at which the whole field of view fits.

    Raises:
        InputError: a spacing so fine that the grid has no place in memory.
    """
    old = np.array(volume.spacing)
    extent = np.array(volume.data.shape) * old
    if spacing is None and shape is None:
        return volume.data.shape, old
    if spacing is None:
        spacing = float((extent / np.array(shape)).max())
    # The tolerance keeps 91 x 2 mm at 1 mm from becoming 183 voxels through rounding of the header.
    covering = np.maximum(np.ceil(extent / spacing - 1e-3), 1)
    if shape is None and covering.prod() > MOST:
        grid = " x ".join(f"{v:.0f}" for v in covering)
        raise InputError(f"spacing: {spacing:g} mm makes {grid} voxels of {volume.name}; expected at most {MOST:.2g}")
    return shape or tuple(int(v) for v in covering), np.full(3, spacing)


def resample(volume: Volume, shape: tuple[int, ...], spacing: npt.NDArray[np.float64]) -> Volume:
    """Sample the volume on a grid of this shape and spacing about the same centre.

    A voxel of the volume is a box, so that the field of view ends half a voxel beyond the outermost centres. New voxels
    whose centre lies inside are interpolated, beyond the outermost centres by the nearest; those outside are -1 and
    off-mask.

    Where the spacing does not change, voxels are copied, not interpolated (the centre then moves by half a voxel if
    an odd axis becomes even). Going coarser, the volume is blurred first so as not to alias: the Gaussian that takes
    one resolution to the other (Cardoso et al. 2015, "Scale factor point spread function matching").
    """
    old_shape, old = np.array(volume.data.shape), np.array(volume.spacing)
    factor = spacing / old
    factor[np.isclose(factor, 1, atol=1e-4)] = 1
    shift = (old_shape - 1) / 2 - factor * (np.array(shape) - 1) / 2
    shift = np.where(factor == 1, np.trunc(shift), shift)
    if shape == volume.data.shape and (factor == 1).all():
        return volume
    sigma = np.sqrt(np.maximum(factor**2 - 1, 0)) / np.sqrt(8 * np.log(2))
    how: dict[str, Any] = {"offset": shift, "output_shape": shape, "order": 1, "mode": "nearest"}
    inside = _inside(volume.data.shape, shape, factor, shift)
    data = ndimage.affine_transform(ndimage.gaussian_filter(volume.data, sigma, mode="nearest"), factor, **how)
    mask = volume.mask
    if mask is not None:
        mask = (ndimage.affine_transform(mask.astype(np.float32), factor, **how) >= 0.5) & inside
    change = np.eye(4)
    change[:3, :3], change[:3, 3] = np.diag(factor), shift
    return Volume(np.where(inside, np.clip(data, -1, 1), np.float32(-1)), mask, volume.affine @ change, volume.name)


def _inside(
    old: tuple[int, ...], new: tuple[int, ...], factor: npt.NDArray[np.float64], shift: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Which voxels of a new grid have their centre in the field of view of the old one."""
    found = np.ones(new, bool)
    for axis, (n, m) in enumerate(zip(old, new, strict=True)):
        place = factor[axis] * np.arange(m) + shift[axis]
        here = (place >= -0.5 - _ROUNDING) & (place <= n - 0.5 + _ROUNDING)
        found &= here.reshape([-1 if k == axis else 1 for k in range(len(new))])
    return found


def slice_at(volume: Volume, axis: Axis, mm: float | None) -> Volume:
    """The slice nearest to a world coordinate, the way up that people expect.

    Rows run from front to back (axial) or from top to bottom; columns run from left to right (axial, coronal) or from
    back to front (sagittal).

    Args:
        volume: A volume in RAS order.
        axis: The axis across the slice: sagittal (R), coronal (A) or axial (S).
        mm: World coordinate along that axis, at the middle of the other two; None for the middle slice.

    Raises:
        InputError: the coordinate lies outside the volume.
    """
    across = AXES.index(axis)
    column, row = (i for i in range(3) if i != across)
    middle = (np.array(volume.data.shape) - 1) / 2
    index = int(np.floor(middle[across])) if mm is None else _nearest(volume, across, middle, mm)
    data = np.take(volume.data, index, across).T[::-1]
    mask = None if volume.mask is None else np.take(volume.mask, index, across).T[::-1]
    change = np.zeros((4, 4))
    change[row, 0], change[row, 3] = -1, volume.data.shape[row] - 1
    change[column, 1] = 1
    change[across, 2], change[across, 3] = 1, index
    change[3, 3] = 1
    return Volume(data, mask, volume.affine @ change, volume.name)


def _nearest(volume: Volume, across: int, middle: npt.NDArray[np.float64], mm: float) -> int:
    """Index along an axis of the slice whose middle is nearest to a world coordinate."""
    start = middle.copy()
    start[across] = 0
    origin = float(volume.affine[across, :3] @ start + volume.affine[across, 3])
    step = float(volume.affine[across, across])
    index = round((mm - origin) / step)
    last = volume.data.shape[across] - 1
    if not 0 <= index <= last:
        ends = (origin, origin + last * step)
        raise InputError(f"slice_mm: {mm} mm lies outside {volume.name}, which spans {ends[0]:.1f} to {ends[1]:.1f} mm")
    return index

"""Tensors back to files, so that a counterfactual opens beside the original in any viewer."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError


def to_nifti(x: Float[Tensor, "c *space"], affine: Float[Tensor, "4 4"], path: Path) -> None:
    """Write one image as a float32 NIfTI file.

    Args:
        x: Image `(c, *space)` in any range; a 2D slice becomes a volume one voxel thick, several channels a 4th axis.
        affine: Voxel-to-world matrix in mm of the axes of `x` in their order, as in `Cohort.affine`.
        path: File to write, ending in `.nii` or `.nii.gz`; its folder must exist.

    Raises:
        InputError: another suffix, another number of axes, an affine that is singular, or a path that cannot be
            written.
    """
    import nibabel

    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"path: expected a name that ends in .nii or .nii.gz, got {path.name}")
    if x.ndim not in (3, 4):
        raise InputError(f"x: expected (c, h, w) or (c, x, y, z), got shape {tuple(x.shape)}")
    matrix = affine.detach().cpu().numpy().astype(np.float64)
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12:
        raise InputError(f"affine: expected an invertible matrix, got {matrix.tolist()}")
    data = x.detach().cpu().float().numpy()
    data = np.moveaxis(data[..., None] if x.ndim == 3 else data, 0, -1)
    image = nibabel.Nifti1Image(data[..., 0] if data.shape[-1] == 1 else data, matrix)
    image.header.set_xyzt_units("mm")
    try:
        nibabel.save(image, path)
    except OSError as error:
        raise InputError(f"path: cannot write {path} ({error})") from error

"""Tensors back to files, so that a counterfactual opens beside the original in any viewer."""

import os
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.runtime.files import resolved


def to_nifti(
    x: Shaped[Tensor, "c *space"] | npt.NDArray[Any],
    affine: Float[Tensor, "4 4"] | npt.NDArray[Any] | None,
    path: str | os.PathLike[str],
) -> None:
    """Write one image as a NIfTI file of float32, or of uint8 for a mask, of flags 0 and 1 or of class numbers.

    Args:
        x: Image `(c, *space)` in any range, or mask, of torch or numpy; a 2D slice becomes a volume one voxel thick,
            several channels a 4th axis.
        affine: Voxel-to-world matrix in mm of the axes of `x` in their order, as in `Cohort.affine`. None where it is
            not known: the file then says so (sform and qform of code 0).
        path: File to write, ending in `.nii` or `.nii.gz`; its folder must exist. `~` and `$VAR` are resolved.

    Raises:
        InputError: another suffix, another number of axes, an affine that is singular, or a path that cannot be
            written.
    """
    import nibabel

    path = resolved(path)
    if not path.name.endswith((".nii", ".nii.gz")):
        raise InputError(f"path: expected a name that ends in .nii or .nii.gz, got {path.name}")
    if x.ndim not in (3, 4):
        raise InputError(f"x: expected (c, h, w) or (c, x, y, z), got shape {tuple(x.shape)}")
    matrix = None if affine is None else torch.as_tensor(affine).detach().cpu().double().numpy()
    if matrix is not None and matrix.shape != (4, 4):
        raise InputError(f"affine: expected a 4 x 4 matrix, got shape {matrix.shape}")
    if matrix is not None and (not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12):
        raise InputError(f"affine: expected an invertible matrix, got {matrix.tolist()}")
    image = torch.as_tensor(x).detach().cpu()
    data = image.to(torch.uint8 if image.dtype in (torch.bool, torch.uint8) else torch.float32).numpy()
    data = np.moveaxis(data[..., None] if x.ndim == 3 else data, 0, -1)
    made = nibabel.Nifti1Image(data[..., 0] if data.shape[-1] == 1 else data, matrix)
    if matrix is not None:
        made.header.set_xyzt_units("mm")
    try:
        nibabel.save(made, path)
    except OSError as error:
        raise InputError(f"path: cannot write {path} ({error})") from error

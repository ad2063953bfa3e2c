"""What the axes of images are called: by the direction in which their index grows, where an affine tells it.

World coordinates run to the right, the front and the top (RAS, as in NIfTI). The direction of an axis is the one of the
six that it is nearest to, no two axes sharing a line: the rule of nibabel's `io_orientation`.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError

RAS: Final = ("right", "front", "top")
"""Axes of a volume whose indices grow to the right, the front and the top."""
PLAIN: Final = {2: ("y", "x"), 3: ("z", "y", "x")}
"""Names by the number of axes where no direction is known: rows and columns, of planes in 3D."""
_BACK: Final = ("left", "back", "bottom")


def axis_names(affine: Float[Tensor, "n 4 4"] | None, dims: int) -> tuple[str, ...]:
    """Names of the spatial axes of images.

    Args:
        affine: Voxel-to-world matrix of every image, or None.
        dims: Number of spatial axes, 2 or 3.

    Returns:
        One name an axis; those of `PLAIN` where there is no affine, or the images do not all run the same way.
    """
    if affine is None:
        return PLAIN[dims]
    found = {_directions(matrix[:3, :dims]) for matrix in affine.detach().cpu().double().numpy()}
    (names,) = found if len(found) == 1 else (None,)
    return PLAIN[dims] if names is None else names


def check_axes(axes: Sequence[str], dims: int, name: str = "axes") -> None:
    """Refuse names that do not fit images.

    Raises:
        InputError: not one name an axis, or one twice.
    """
    if isinstance(axes, str) or len(axes) != dims or len(set(axes)) != dims:
        raise InputError(f"{name}: expected {dims} different names, one a spatial axis, got {axes!r}")


def _directions(steps: npt.NDArray[np.float64]) -> tuple[str, ...] | None:
    """Names of the columns of a matrix, None where they are no directions."""
    lengths = np.linalg.norm(steps, axis=0)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        return None
    p, _, q = np.linalg.svd(steps / lengths, full_matrices=False)
    rotation = p @ q
    names = [""] * steps.shape[1]
    for axis in np.argsort(-np.abs(rotation).max(0), kind="stable"):
        line = int(np.argmax(np.abs(rotation[:, axis])))
        names[axis] = RAS[line] if rotation[line, axis] > 0 else _BACK[line]
        rotation[line] = 0
    return tuple(names)

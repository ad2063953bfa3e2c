"""Masks as smooth functions: solid bodies and their signed distance.

The signed distance S of a mask is negative inside, so the mask is S <= 0; |grad S| = 1 almost everywhere, which makes S
the natural image to register shapes with. A mask knows its boundary to half a voxel: it lies between the last voxel
inside and the first outside.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

from cfx.core.errors import InputError

OUTLIER = 3.5
"""Modified z-score from which a value is an outlier (Iglewicz and Hoaglin 1993)."""


def check_mask(mask: Tensor, name: str = "mask") -> None:
    """Refuse what is not a batch of masks with an inside and an outside.

    Raises:
        InputError: not boolean, not `(n, 1, *space)` with 2 or 3 spatial axes, or rows that are empty or full.
    """
    if mask.dtype != torch.bool:
        raise InputError(f"{name}: expected a boolean mask, got {mask.dtype}")
    if mask.ndim not in (4, 5) or mask.shape[1] != 1:
        raise InputError(f"{name}: expected (n, 1, h, w) or (n, 1, d, h, w), got shape {tuple(mask.shape)}")
    share = mask.flatten(1).double().mean(1)
    flat = ((share == 0) | (share == 1)).nonzero().flatten().tolist()
    if flat:
        raise InputError(f"{name}: expected an inside and an outside, got empty or full masks in rows {flat[:8]}")


def solid(mask: Bool[Tensor, "n 1 *space"]) -> Bool[Tensor, "n 1 *space"]:
    """The largest component of each mask, joined across faces, with its holes filled.

    Args:
        mask: Masks; a hole is outside that no path across faces joins to the border of the grid.

    Raises:
        InputError: see `check_mask`; also a mask that is full once filled.
    """
    check_mask(mask)
    rows = [ndimage.binary_fill_holes(_largest(m)) for m in mask[:, 0].cpu().numpy()]
    filled = torch.from_numpy(np.stack(rows))[:, None].to(mask.device)
    check_mask(filled)
    return filled


def _largest(mask: np.ndarray) -> np.ndarray:
    """The component with most voxels; of equals the first."""
    label, _ = ndimage.label(mask)
    size = np.bincount(label.ravel())
    size[0] = 0
    largest: np.ndarray = label == size.argmax()
    return largest


def signed_distance(mask: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n 1 *space"]:
    """Euclidean distance to the boundary in voxels, negative inside; `signed_distance(m) <= 0` is `m` exactly.

    The distance to the nearest voxel of the other side, less the half voxel to the face between: exact at flat faces,
    where the two voxels beside the boundary get -0.5 and 0.5; never between -0.5 and 0.5.

    Args:
        mask: Masks with an inside and an outside.

    Returns:
        float32 distances on the device of `mask`.

    Raises:
        InputError: see `check_mask`.
    """
    check_mask(mask)
    rows = [_edt(~m) - _edt(m) for m in mask[:, 0].cpu().numpy()]
    return torch.from_numpy(np.stack(rows))[:, None].to(mask.device)


def _edt(mask: np.ndarray) -> np.ndarray:
    """Distance of the voxels of a mask to its outer face, 0 elsewhere."""
    distance = ndimage.distance_transform_edt(mask).astype(np.float32)
    outer: np.ndarray = np.maximum(distance - 0.5, 0)
    return outer


def plausible_volumes(masks: Bool[Tensor, "n 1 *space"]) -> tuple[float, float]:
    """Range of volumes, in voxels, outside which a mask is an outlier among these: a failed skull strip, say.

    Robust: log-volumes further from their median than `OUTLIER` times MAD / 0.6745 (Iglewicz and Hoaglin 1993).

    Args:
        masks: Masks of one population on one grid, a few bad ones among them do no harm.

    Raises:
        InputError: see `check_mask`; or fewer than five masks.
    """
    check_mask(masks, "masks")
    if len(masks) < 5:
        raise InputError(f"masks: expected at least five to know what is usual, got {len(masks)}")
    volume = masks.flatten(1).sum(1).double().log()
    middle = volume.quantile(0.5)
    reach = OUTLIER / 0.6745 * (volume - middle).abs().quantile(0.5) + 1e-9  # equal volumes are all plausible
    return float((middle - reach).exp()), float((middle + reach).exp())

"""Calibration of segmentations, every image by itself.

Pooled figures ask of all voxels together (`cfx.calibration.ece`): an image that says too much is made up for by one
that says too little. Here each image has its own reliability diagrams, one a class, and its own errors; their means
over images are what MONAI's `CalibrationErrorMetric` reports. Both are legitimate, and the second is never smaller.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.calibration import BINS, brier, even_edges
from cfx.core.errors import InputError
from cfx.core.probabilities import Classes, Probabilities, classes, entries, probabilities
from cfx.core.rows import Rows


@dataclass(frozen=True)
class ImageCalibration(Rows):
    """Calibration of the voxels of each image.

    Attributes:
        ece: Gaps of the most probable class weighted by voxels, mean over bins.
        ece_bins: The same, all filled bins alike.
        classwise: Gaps of every class weighted by voxels.
        classwise_bins: The same, all filled bins alike.
        nll: Mean -log p_y of a voxel.
        brier: Mean Brier score of a voxel, the mean over classes.
        row: Index of the image.
        bins: Number of bins of equal width.
    """

    ece: Float[Tensor, " n"]
    ece_bins: Float[Tensor, " n"]
    classwise: Float[Tensor, "n k"]
    classwise_bins: Float[Tensor, "n k"]
    nll: Float[Tensor, " n"]
    brier: Float[Tensor, " n"]
    row: Int[Tensor, " n"]
    bins: int


def image_calibration(p: Probabilities, y: Classes, *, bins: int = BINS) -> ImageCalibration:
    """Calibration of every image.

    Args:
        p: Probabilities `(n, k, *space)`.
        y: Classes `(n, *space)`.
        bins: Number of bins of equal width.

    Raises:
        InputError: no spatial axis, numbers that are no probabilities, or labels that are no classes of them.
    """
    found = probabilities(p)
    truth = classes(y, found)
    if found.ndim < 3:
        raise InputError(f"p: expected probabilities of voxels (n, k, *space), got {tuple(found.shape)}")
    step = entries(found[0].numel())
    rows = torch.arange(len(found)).split(step)
    parts = zip(found.flatten(2).split(step), truth.flatten(1).split(step), rows, strict=True)
    return ImageCalibration.cat([_images(a, b, row, bins) for a, b, row in parts])


def _images(p: Float[Tensor, "b k m"], y: Int[Tensor, "b m"], row: Tensor, bins: int) -> ImageCalibration:
    """Some images."""
    confidence, decided = p.max(1)
    top, top_bins = _errors(confidence, decided == y, bins)
    each = [_errors(p[:, k], y == k, bins) for k in range(p.shape[1])]
    classwise, classwise_bins = (torch.stack(some, 1) for some in zip(*each, strict=True))
    return ImageCalibration(
        ece=top, ece_bins=top_bins, classwise=classwise, classwise_bins=classwise_bins,
        nll=-p.gather(1, y[:, None])[:, 0].double().log().mean(1).cpu(),
        brier=brier(p, y).double().mean(1).cpu() / p.shape[1], row=row, bins=bins,
    )  # fmt: skip


def _errors(
    confidence: Float[Tensor, "b m"], right: Bool[Tensor, "b m"], bins: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Gaps by voxels, and all bins alike, of every image."""
    b, m = confidence.shape
    c = confidence.double().contiguous()
    place = torch.bucketize(c, even_edges(bins)[1:-1].to(c.device)) + bins * torch.arange(b, device=c.device)[:, None]
    gap = place.flatten().bincount((right.double() - c).flatten(), minlength=b * bins).abs().view(b, bins)
    count = place.flatten().bincount(minlength=b * bins).view(b, bins)
    average = (gap / count.clamp_min(1)).sum(1) / (count > 0).sum(1)  # gap is |accuracy - confidence| times voxels
    return (gap.sum(1) / m).cpu(), average.cpu()

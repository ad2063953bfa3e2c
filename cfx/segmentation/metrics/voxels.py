"""What samples and readers say of single voxels, and of the volume.

With p_k(v) the share of the samples that give class k to voxel v, background included, and s*(v) the class most give:

    NCC             correlation over v of E CE(p, S) with E CE(Y_j, S), mean over readers j. The cross-entropy of a hard
                    mask S is 0 where it agrees and a constant (infinite, or cut off) where it does not, so the maps are
                    multiples of 1 - sum_k p_k^2 and of 1 - p_{Y_j}: no cut-off enters the correlation.
    consensus Dice  Dice of s* on the voxels on which all readers agree
    CRPS            of the volume: samples are the forecast, every reader's is what happened; mean over readers
    calibration     of all voxels with p_k = c, do a share c of the readers give class k?

A correlation with a map that is constant does not exist: it is 1 where both maps are constant (samples and reader agree
everywhere, or have nothing to tell apart) and 0 where one is. Where two classes are as frequent, s* is the higher one:
of one foreground class, what half of the samples have.

References: Baumgartner et al. (2019), "PHiSeg", for the correlation; Riera-Marin et al. (2025), "Calibration and
uncertainty for multiRater volume assessment (CURVAS)", for the consensus and the volume.
"""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.calibration import BINS, Reliability, reliability
from cfx.core.overlap import Form, Overlap
from cfx.core.scores import crps
from cfx.segmentation.metrics.drawings import Drawings, Layers, Masks, over_classes

Voxels = Bool[Tensor, "k n r v"]
"""Masks with the voxels on one axis."""


def ncc(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Normalised cross-correlation of the uncertainty of the samples with their error against each reader.

    Args:
        samples: Samples `(n, s, *space)`.
        readers: Readers' masks `(n, r, *space)`.
        classes: Number of classes, for class numbers.

    Returns:
        In [-1, 1], higher is better.

    Raises:
        InputError: masks that do not fit together.
    """
    return correlation(Drawings.of(samples, readers, classes))


def correlation(drawn: Drawings) -> Float[Tensor, " n"]:
    """`ncc` of masks that are checked; the maps are counts, whole numbers."""
    s, count = drawn.samples.shape[2], _counts(drawn.samples)
    uncertain = s * s - count.square().sum(0)
    readers = _with_background(drawn.readers.flatten(3))
    wrong = s - (readers * count[:, :, None]).sum(0)
    return _correlated(uncertain[:, None], wrong).mean(1)


def _counts(masks: Layers) -> Int[Tensor, "classes n v"]:
    """How many of the masks give each class to a voxel, background first."""
    return _with_background(masks.flatten(3)).sum(2)


def _with_background(masks: Voxels) -> Bool[Tensor, "classes n r v"]:
    return torch.cat([~masks.any(0, keepdim=True), masks])


def _correlated(a: Int[Tensor, "n 1 v"], b: Int[Tensor, "n r v"]) -> Float[Tensor, "n r"]:
    """Correlation of maps; 1 where both are constant, 0 where one is."""
    flat = [(m.amax(2) == m.amin(2)) for m in (a, b)]
    u, w = (m.double() - m.double().mean(2, keepdim=True) for m in (a, b))
    r = (u * w).sum(2) / (u.square().sum(2) * w.square().sum(2)).sqrt()
    return torch.where(flat[0] | flat[1], (flat[0] & flat[1]).double(), r)


def consensus_dice(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Dice of what most samples have, on the voxels on which all readers agree; arguments and errors as in `ncc`."""
    return dice_on_consensus(Drawings.of(samples, readers, classes))


def dice_on_consensus(drawn: Drawings) -> Float[Tensor, " n"]:
    """`consensus_dice` of masks that are checked."""
    readers = drawn.readers.flatten(3)
    agreed = readers.all(2)
    consensus = (agreed | ~readers.any(2)).all(0)
    most = len(readers) - _counts(drawn.samples).flip(0).argmax(0)  # the first of equals is the highest class
    ours = torch.stack([(most == k) & consensus for k in range(1, len(readers) + 1)])
    found = Overlap((ours & agreed).sum(2), ours.sum(2), (agreed & consensus).sum(2))
    return over_classes(found.dice, found.any)


def volume_crps(
    samples: Masks, readers: Masks, classes: int | None = None, *, voxel: float = 1.0, form: Form = "v"
) -> Float[Tensor, " n"]:
    """Continuous ranked probability score of the volume, mean over readers and foreground classes; lower is better.

    Args:
        samples: Samples `(n, s, *space)`.
        readers: Readers' masks `(n, r, *space)`.
        classes: Number of classes, for class numbers.
        voxel: Volume of a voxel, for a score in its unit.
        form: `v`, the samples are the forecast; `u`, without the bias of finitely many (`cfx.core.scores.crps`).

    Raises:
        InputError: masks that do not fit together, or fewer than two samples for the U-form.
    """
    return voxel * volume_score(Drawings.of(samples, readers, classes, least=(2 if form == "u" else 1, 1)), form)


def volume_score(drawn: Drawings, form: Form = "v") -> Float[Tensor, " n"]:
    """`volume_crps` of masks that are checked, in voxels."""
    ours, theirs = (m.flatten(3).sum(3).double() for m in (drawn.samples, drawn.readers))
    forecast = ours[:, :, None].expand(*theirs.shape, ours.shape[2])
    return crps(forecast, theirs, fair=form == "u").mean((0, 2))


def reader_calibration(samples: Masks, readers: Masks, classes: int | None = None, *, bins: int = BINS) -> Reliability:
    """Is the share of samples that have a voxel the share of readers who do? Of all voxels and foreground classes.

    The many voxels that no one draws lie in the first bin and make the expected error small (`ece`); the average one
    (`ace`) counts all bins alike.

    Args:
        samples: Samples `(n, s, *space)`.
        readers: Readers' masks `(n, r, *space)`.
        classes: Number of classes, for class numbers.
        bins: Bins of equal width.

    Raises:
        InputError: masks that do not fit together, or no image.
    """
    drawn = Drawings.of(samples, readers, classes)
    ours, theirs = (m.flatten(3).sum(2).flatten().double() / m.shape[2] for m in (drawn.samples, drawn.readers))
    return reliability(ours, theirs, bins=bins)

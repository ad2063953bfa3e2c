"""What drawn masks of an image say together: how likely each place is, how large it is, which mask to show.

With p_k(v) the share of the samples that give class k to voxel v, background included:

    probability     p_k(v) of every foreground class
    entropy         -sum_k p_k(v) log p_k(v), in nats: 0 where all agree, log 2 = .69 where half have the one class
    volume          voxels of a class in a sample, times the volume of one; an interval holds at least a share `level`
    agreement       mean IoU of two different samples that hold anything: where there is one, how alike are outlines?
    medoid          the sample nearest to all others on average: the most representative mask, and one that was drawn
    extremes        the smallest that is not empty, and the largest

The medoid is not what most samples have voxel by voxel: such a mask may look like none of them, and of a lesion that
half draw here and half there it is empty.

Samples are masks `(n, s, *space)`, boolean or class numbers with the number of `classes`, background included; an empty
mask is one like any other (`cfx.segmentation.metrics` has the policy).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.predictive import entropy as entropy_of
from cfx.segmentation.metrics.drawings import Layers, Masks, alike, layers
from cfx.segmentation.result import Segmentations
from cfx.segmentation.select import herded


def probability(masks: Masks, classes: int | None = None) -> Float[Tensor, "n k *space"]:
    """Share of the samples that give each foreground class to a voxel.

    Args:
        masks: Samples `(n, s, *space)`.
        classes: Number of classes, for class numbers.

    Raises:
        InputError: masks that are none, or class numbers out of range.
    """
    return (_counts(layers(masks, "masks", classes)) / masks.shape[1]).transpose(0, 1)


def entropy(masks: Masks, classes: int | None = None) -> Float[Tensor, "n *space"]:
    """Entropy of the class of every voxel among the samples, in nats; arguments and errors as in `probability`."""
    count, s = _counts(layers(masks, "masks", classes)), masks.shape[1]
    every = torch.cat([(s - count.sum(0))[None], count])
    return entropy_of(every.movedim(0, -1) / s)


def _counts(own: Layers) -> Int[Tensor, "k n *space"]:
    """How many samples give each foreground class to a voxel."""
    return own.sum(2)


def volumes(
    masks: Masks, classes: int | None = None, *, voxel: Float[Tensor, " n"] | float = 1.0
) -> Float[Tensor, "n s k"]:
    """Volume (of slices the area) of every foreground class in every sample.

    Args:
        masks: Samples `(n, s, *space)`.
        classes: Number of classes, for class numbers.
        voxel: Volume of a voxel, of all images or of each: `cohort.spacing.prod(1)` is it in mm^2 or mm^3.

    Raises:
        InputError: as `probability`; or another number of volumes than images.
    """
    each = torch.as_tensor(voxel, dtype=torch.float64, device=masks.device)
    if each.ndim and each.shape != masks.shape[:1]:
        raise InputError(f"voxel: expected one volume, or one an image ({len(masks)}), got {tuple(each.shape)}")
    count = layers(masks, "masks", classes).flatten(3).sum(3).permute(1, 2, 0)
    return count * each.reshape(-1, 1, 1)


def interval(
    values: Float[Tensor, "n s *k"], level: float = 0.9, where: Bool[Tensor, "n s *k"] | None = None
) -> Float[Tensor, "2 n *k"]:
    """Lower and upper end, both values that were drawn, between which at least a share `level` of the samples lies.

    As many are left out below as above: of 16 samples none at level .9, of 50 two on either side.

    Args:
        values: One value a sample, such as `volumes`.
        level: Share, in (0, 1].
        where: Which samples count, such as those that are not empty; all by default. NaN where none does.

    Raises:
        InputError: a level outside (0, 1].
    """
    if not 0 < level <= 1:
        raise InputError(f"level: expected a share in (0, 1], got {level}")
    counted = torch.ones_like(values, dtype=torch.bool) if where is None else where
    ordered, s = values.masked_fill(~counted, torch.inf).sort(dim=1).values, counted.sum(1)
    left_out = ((1 - level) / 2 * s + 1e-9).long().clamp(min=0)  # 1 - .9 is a little less than .1
    ends = torch.stack([left_out, (s - 1 - left_out).clamp(min=0)], 1)
    return torch.where(s > 0, ordered.gather(1, ends).movedim(1, 0), torch.nan)


def agreement(masks: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Mean IoU of two different samples of which neither is empty; NaN where there are not two such.

    It does not change with the number of samples, as what all of them share would. Arguments and errors as in
    `probability`.
    """
    own = layers(masks, "masks", classes)
    holds = own.flatten(3).any(3).any(0)
    pair = (holds[:, :, None] & holds[:, None]) & ~torch.eye(holds.shape[1], dtype=torch.bool, device=masks.device)
    return torch.where(pair, alike(own, own).iou, 0.0).sum((1, 2)) / pair.sum((1, 2))


def holding(masks: Masks) -> Float[Tensor, " n"]:
    """Share of the samples of an image that are not empty: how likely there is anything."""
    return (masks != 0).flatten(2).any(2).double().mean(1)


def medoid(masks: Masks, classes: int | None = None) -> Int[Tensor, " n"]:
    """Position of the sample nearest to all of its image in 1 - IoU; arguments and errors as in `probability`."""
    return herded(masks, 1, classes)[:, 0]


def extremes(masks: Masks, classes: int | None = None) -> Int[Tensor, "2 n k"]:
    """Positions of the smallest sample that is not empty, and of the largest, of every foreground class.

    Where all are empty it is the first sample. Arguments and errors as in `probability`.
    """
    size = layers(masks, "masks", classes).flatten(3).sum(3).permute(1, 2, 0).double()
    some = size.masked_fill(size == 0, torch.inf)
    return torch.stack([some.argmin(1), size.argmax(1)])


def unit_of(spacing: Tensor | None, dims: int) -> str:
    """Unit of `volumes` of images with that spacing in mm, and so many spatial axes."""
    if spacing is None:
        return "pixels" if dims == 2 else "voxels"
    return f"mm^{dims}"


def named(name: str, labels: Sequence[str]) -> list[str]:
    """What a figure of every foreground class is called; of one region it is its name alone."""
    return [name] if len(labels) == 2 else [f"{name}_{label}" for label in labels[1:]]


def figures(drawn: Segmentations, spacing: Float[Tensor, "n dims"] | None, level: float) -> dict[str, Tensor]:
    """The figures of every image by name, float64, NaN where they have no meaning.

    Args:
        drawn: The masks.
        spacing: Spacing of the voxels in mm, None where it is not known.
        level: Share of the masks that the interval of the volume holds.

    Returns:
        `diversity`, `agreement`, `empty_share`; and for every foreground class, of the masks that hold it, `volume`,
        their mean volume, and `volume_from`, `volume_to` and `volume_width` of the interval.
    """
    classes = len(drawn.labels)
    size = volumes(drawn.masks, classes, voxel=1.0 if spacing is None else spacing.double().prod(1))
    held = size > 0
    low, high = interval(size, level, held)
    each = {
        "volume": size.sum(1) / held.sum(1), "volume_from": low, "volume_to": high, "volume_width": high - low,
    }  # fmt: skip
    found = {"diversity": drawn.diversity.double(), "agreement": agreement(drawn.masks, classes)}
    found["empty_share"] = 1 - holding(drawn.masks)
    for name, values in each.items():
        found |= dict(zip(named(name, drawn.labels), values.unbind(1), strict=True))
    return found

"""Masks of three images made by hand: torn, sure, and one that the network refused."""

import torch
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.segmentation import Drawn, Segmentations
from cfx.segmentation.metrics import diversity, evaluate
from cfx.segmentation.summary import figures

SPACE = (8, 8)


def squares(sides: list[int], space: tuple[int, ...] = SPACE, label: int = 1) -> Tensor:
    """Masks `(s, *space)` of squares or cubes of some sides, from one corner."""
    masks = torch.zeros(len(sides), *space, dtype=torch.uint8)
    for mask, side in zip(masks, sides, strict=True):
        mask[(slice(side),) * len(space)] = label
    return masks


def drawn(space: tuple[int, ...] = SPACE, labels: tuple[str, ...] = ("background", "region")) -> Segmentations:
    """Of four masks of the first image one is empty, all of the second are alike, the third was refused."""
    masks = torch.stack([squares([0, 2, 3, 4], space), squares([4, 4, 4, 4], space), squares([0] * 4, space)])
    n = torch.ones(3, dtype=torch.long)
    apart = diversity(masks, len(labels)).float()
    apart[2] = torch.nan
    return Segmentations(
        masks=masks, verdict=torch.tensor([int(Drawn.SAMPLED), int(Drawn.COLLAPSED), int(Drawn.REFUSED)]),
        row=torch.arange(3), diversity=apart, nfe_encoder=n, nfe_unet_forward=4 * n, seconds=0.5 * n, segmenter="toy",
        samples=4, seed=0, labels=list(labels),
    )  # fmt: skip


def cohort(space: tuple[int, ...] = SPACE, *, readers: bool = True, spacing: float | None = 0.5) -> Cohort:
    """Their images."""
    drew = torch.stack([squares([2, 4], space), squares([4, 4], space), squares([0, 1], space)]) > 0
    return Cohort(
        torch.zeros(3, 1, *space), ids=("<torn>", "sure", "refused"), readings=drew if readers else None,
        spacing=None if spacing is None else torch.full((3, len(space)), spacing),
    )  # fmt: skip


def rows(of: Segmentations, images: Cohort) -> dict[str, Tensor]:
    """The figures of every image, as a run has them."""
    found = figures(of, images.spacing, 0.9)
    if images.readings is not None:
        scores = evaluate(of.masks, images.readings, len(of.labels))
        found |= {"reader_diversity": scores.reader_diversity, "ged_debiased": scores.ged_debiased, "ged_4": scores.ged}
    refused = of.verdict == int(Drawn.REFUSED)
    return {name: values.double().masked_fill(refused, torch.nan) for name, values in found.items()}


def summary(values: dict[str, Tensor], unit: str = "mm^2") -> dict[str, float | str]:
    """Their means; the intervals are a tenth to either side."""
    found: dict[str, float | str] = {"volume_unit": unit, "level": 0.9}
    for name, value in values.items():
        mean = float(value.nanmean())
        found |= {name: mean, f"{name}_low": mean - 0.1, f"{name}_high": mean + 0.1}
    return found | {"nfe_unet_forward": 4.0, "nfe_encoder": 1.0, "seconds_per_image": 0.5}

"""Training of segmenters: a mask of the cohort from its images, by cross-entropy and Dice."""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool
from pydantic import Field
from torch import Tensor, nn

from cfx.core.cohort import Cohort, Source
from cfx.core.errors import InputError
from cfx.models import build
from cfx.training.augment import AugmentConfig, augment, moved
from cfx.training.losses import binary_cross_entropy, soft_dice, svls
from cfx.training.objectives import Batch, NetworkConfig, Networks, Scores, data_keywords, whole_batches


class SegmenterConfig(AugmentConfig):
    """Segmentation of one region."""

    trains: ClassVar[str] = "segmenter"

    kind: Literal["segmenter"]
    """Which objective this is."""
    region: Literal["lesion", "mask"] = "lesion"
    """Which mask of the cohort to predict."""
    dice_weight: float = Field(default=1.0, ge=0)
    """Weight of the Dice loss, relative to the mean cross-entropy of a voxel."""

    smooth_boundary: bool = False
    """Whether the cross-entropy smooths labels across the boundary of the region (SVLS)."""

    def target(self, cohort: Cohort) -> Bool[Tensor, "n 1 *space"]:
        """The mask.

        Raises:
            InputError: the cohort has none.
        """
        mask = cohort.lesion if self.region == "lesion" else cohort.mask
        if mask is None:
            raise InputError(f"cohort.{self.region}: expected masks to train a segmenter on, got none")
        return mask

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "SegmenterObjective":
        """Segmentation of the cohort's images; errors as `target`."""
        self.target(cohort[:1])
        return SegmenterObjective(self, network, cohort.shape)


class SegmenterObjective:
    """Binary cross-entropy a voxel, and the complement of the soft Dice overlap."""

    def __init__(self, config: SegmenterConfig, network: NetworkConfig, shape: tuple[int, ...]) -> None:
        """Size the network for images of this shape."""
        self.config, self.name, self.shape = config, network.name, shape
        self.network_config = data_keywords(network, shape) | {"out_channels": 1}

    def players(self) -> dict[str, nn.Module]:
        """The segmenter."""
        return {"main": build(self.name, **self.network_config)}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean loss of augmented images and the masks moved along."""
        assert batch.y is not None
        mask = moved(self.config, batch.y, batch)
        logits = networks[player](augment(self.config, batch))
        overlap = soft_dice(logits.sigmoid(), mask)
        labels = svls(mask) if self.config.smooth_boundary else mask
        loss = binary_cross_entropy(logits, labels) + self.config.dice_weight * (1 - overlap)
        return loss.mean(), {"dice": overlap.detach().mean()}

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Cross-entropy of a voxel; Dice of the decisions, mean over the rows that have the region."""
        entropy, dice = [], []
        for batch in whole_batches(self.config, network, cohort, seed):
            assert batch.y is not None
            logits, some = network(batch.x), batch.y.flatten(1).any(1)
            entropy.append(binary_cross_entropy(logits, batch.y))
            dice.append(soft_dice((logits > 0).float(), batch.y, smooth=0.0)[some])
        figures = {"loss": float(torch.cat(entropy).mean())}
        return figures | ({"dice": float(torch.cat(dice).mean())} if len(torch.cat(dice)) else {})

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The segmenter with the name of its region."""
        return network, {"shape": self.shape, "classes": (self.config.region,)}

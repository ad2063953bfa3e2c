"""Training of encoders by contrast: two augmented views of an image are to be more alike than views of other images.

The other images are rows that every step draws anew, the same for all parts and processes, and seen without gradients
(as the keys of He et al., 2020, arXiv 1911.05722). What remains is a mean over rows: as everywhere in training, the
result does not depend on parts, processes or resuming, and nothing is gathered.
"""

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cfx.core.cohort import Source
from cfx.core.random import uniform
from cfx.models import build
from cfx.models.features import PooledFeatures
from cfx.training.augment import AugmentConfig, augment
from cfx.training.losses import nt_xent
from cfx.training.objectives import ORDER, Batch, NetworkConfig, Networks, Scores, data_keywords, whole_batches

_KEY_SEED = 0x5EED_0C0D  # sets the draws of the keys apart from those of the batch


class FeaturesConfig(AugmentConfig):
    """Contrastive training of an encoder; its augmentations say which differences do not matter."""

    trains: ClassVar[str] = "features"

    kind: Literal["features"]
    """Which objective this is."""
    dims: int = Field(default=32, ge=2)
    """Width of the last, linear layer, in which views are compared; the features are what comes before it."""
    temperature: float = Field(default=0.2, gt=0)
    """Scale of the similarities."""
    keys: int = Field(default=64, ge=1)
    """Other images that a step's images are told apart from."""
    flip: bool = True
    """Augmentation: mirror half of the images along the last axis."""
    shift: int = Field(default=4, ge=0)
    """Augmentation: largest shift in pixels along every axis (edge values are repeated)."""
    noise: float = Field(default=0.1, ge=0)
    """Augmentation: largest standard deviation of added normal noise; each row draws its own."""
    contrast: float = Field(default=0.3, ge=0, lt=1)
    """Augmentation: largest relative change of contrast; each row draws its own factor."""

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "FeaturesObjective":
        """Contrastive training on the cohort's images."""
        return FeaturesObjective(self, network, cohort)


class FeaturesObjective:
    """NT-Xent of two views against keys.

    Args:
        config: The objective.
        network: The network to train.
        cohort: Training rows, of which the keys are drawn.
    """

    def __init__(self, config: FeaturesConfig, network: NetworkConfig, cohort: Source) -> None:
        """See the class."""
        self.config, self.name, self.cohort = config, network.name, cohort
        self.shape = cohort.shape
        self.network_config = data_keywords(network, self.shape) | {"out_channels": config.dims}

    def players(self) -> dict[str, nn.Module]:
        """The network; views are compared in its output."""
        return {"main": build(self.name, **self.network_config)}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean loss of both views, each with the other as its positive."""
        network, other = networks[player], self.others(batch)
        with torch.no_grad():
            keys = network(augment(self.config, other))
        a, b = self._views(network, batch)
        own = batch.row[:, None] == other.row[None]
        pair = [nt_xent(z, positive, keys, own, self.config.temperature) for z, positive in ((a, b), (b, a))]
        alike = torch.cosine_similarity(a.detach(), b.detach()).mean()
        return torch.stack(pair).mean(), {"alike": alike}

    def others(self, batch: Batch) -> Batch:
        """The rows of this step that give the keys; the same for every part and process."""
        m, device = self.config.keys, batch.x.device
        slot, seed = torch.arange(batch.step * m, (batch.step + 1) * m), batch.seed ^ _KEY_SEED
        row = (uniform((), seed=seed, row=slot, stream=ORDER).double() * len(self.cohort)).long()
        return Batch(self.cohort[row].x.to(device), None, slot.to(device), seed, batch.step, row.to(device))

    def _views(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """Embeddings of two views, made in one pass."""
        a, b = network(torch.cat([augment(self.config, batch, view) for view in (0, 1)])).chunk(2)
        return a, b

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """NT-Xent among the views of 64 rows at a time, and how often a view's nearest is the other of its row."""
        losses, right = [], []
        for batch in whole_batches(self.config, network, cohort, seed):
            a, b = self._views(network, batch)
            eye = torch.eye(len(a), dtype=torch.bool, device=a.device)
            losses.append(nt_xent(a, b, torch.cat([a, b]), torch.cat([eye, eye], 1), self.config.temperature))
            alike = torch.cosine_similarity(a[:, None], b[None], dim=2)
            right.append(alike.argmax(1) == torch.arange(len(a), device=a.device))
        return {"loss": float(torch.cat(losses).mean()), "matched": float(torch.cat(right).float().mean())}

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The encoder."""
        return PooledFeatures(network), {"shape": self.shape}

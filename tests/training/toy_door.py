"""A capability that cfx does not have: a network, a kind of checkpoint and an objective, all in this file.

The network is the mean image of the cohort; its kind adds a name to it; its objective is least squares.
"""

from typing import ClassVar, Literal

import torch
from torch import nn

from cfx.models import build
from cfx.models.kinds import MODEL, Kind
from cfx.training.losses import squared_error
from cfx.training.objectives import ObjectiveConfig, data_keywords, whole_batches


class MeanImage(nn.Module):
    """One image for all."""

    def __init__(self, spatial_dims: int, in_channels: int, size: int) -> None:
        super().__init__()
        self.image = nn.Parameter(torch.zeros(1, in_channels, *[size] * spatial_dims))

    def forward(self, x):
        return self.image.expand_as(x)


class Named(nn.Module):
    """A mean image that knows whose it is."""

    def __init__(self, network: nn.Module, of: str) -> None:
        super().__init__()
        self.network, self.of = network, of


NAMED = Kind(
    "The mean of some images.",
    network="toy",
    make=lambda manifest: Named(build(manifest.name, **manifest.config), manifest.facts["of"]),
    parts=lambda model: {MODEL: model.network},
    facts=lambda model: {"facts": {"of": model.of}},
)


class MeanConfig(ObjectiveConfig):
    """Least squares."""

    trains: ClassVar[str] = "mean"

    kind: Literal["mean"]
    of: str

    def make(self, network, cohort, steps):
        return MeanObjective(self, network, cohort)


class MeanObjective:
    """Squared error."""

    def __init__(self, config, network, cohort) -> None:
        self.config, self.name = config, network.name
        self.network_config = data_keywords(network, cohort.shape)

    def players(self):
        return {"main": build(self.name, **self.network_config)}

    def loss(self, player, networks, batch):
        return squared_error(networks[player](batch.x), batch.x).mean(), {}

    @torch.no_grad()
    def evaluate(self, network, cohort, seed):
        errors = [squared_error(network(b.x), b.x) for b in whole_batches(self.config, network, cohort, seed)]
        return {"loss": float(torch.cat(errors).mean())}

    def checkpoint(self, network, cohort):
        return Named(network, self.config.of), {}


def register() -> None:
    """The three lines that the registries of cfx would have."""
    from cfx.models import kinds, registry
    from cfx.training import registry as objectives

    registry.BUILDERS["mean-image"] = ("toy", f"{__name__}:MeanImage")
    kinds.KINDS["mean"] = f"{__name__}:NAMED"
    objectives.OBJECTIVES["mean"] = f"{__name__}:MeanConfig"

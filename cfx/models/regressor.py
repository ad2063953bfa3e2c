"""A network of standardised values, in the units of what it predicts."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.models.kinds import MODEL, Kind, Manifest
from cfx.models.registry import build


class Regressor(nn.Module):
    """Images to the values of covariates: mean + std * network(x). With one target, `Near` takes it as it is.

    Args:
        network: Images to one standardised value a target, `(b, k)`.
        targets: Names of the covariates.
        mean: Mean of each in training, in its own units.
        std: Standard deviation of each in training, positive.

    Raises:
        InputError: other than one mean and one positive standard deviation a target.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, targets: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        """See the class."""
        super().__init__()
        if not len(targets) == len(mean) == len(std) or not all(s > 0 for s in std):
            raise InputError(f"mean, std: expected one and a positive one for {list(targets)}, got {mean}, {std}")
        self.network, self.targets = network, tuple(targets)
        self.register_buffer("mean", torch.tensor(mean), persistent=False)
        self.register_buffer("std", torch.tensor(std), persistent=False)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k"]:
        """Values of images in [-1, 1], in the units of the targets."""
        value: Tensor = self.mean + self.std * self.network(x)
        return value


def _make(manifest: Manifest) -> Regressor:
    """The regressor of a manifest.

    Raises:
        InputError: no targets, means and standard deviations.
    """
    own = manifest.facts
    if not {"targets", "mean", "std"} <= own.keys():
        raise InputError(f"facts: expected targets, mean and std, got {sorted(own)}")
    return Regressor(build(manifest.name, **manifest.config), own["targets"], own["mean"], own["std"])


def _regressor(model: nn.Module) -> Regressor:
    if not isinstance(model, Regressor):
        raise InputError(f"model: expected a Regressor, got {type(model).__name__}")
    return model


def _facts(model: nn.Module) -> Mapping[str, Any]:
    m = _regressor(model)
    return {"facts": {"targets": list(m.targets), "mean": m.mean.tolist(), "std": m.std.tolist()}}


REGRESSOR = Kind(
    "A network from images to the values of covariates, in their units.",
    network="classifier",
    make=_make,
    parts=lambda model: {MODEL: _regressor(model).network},
    facts=_facts,
)

"""The networks that detectors of out-of-distribution images ask, as configurations name them, opened."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from pydantic import Field
from torch import nn

from cfx.commands.rows import network_print
from cfx.data import DataConfig
from cfx.models import load
from cfx.models.classifiers import Staged
from cfx.models.features import FeatureMaps
from cfx.models.opening import Described, Network, Role, open_network, spec_of
from cfx.runtime.config import Frozen

SINGLE: dict[str, Role] = {"generator": "generator", "autoencoder": "autoencoder", "classifier": "classifier"}
"""Keys of one network each, and the role it is opened for."""


class Networks(Frozen):
    """Networks that a detector may ask; each detector says which it cannot do without."""

    generator: Network | None = None
    """Diffusion model, for detectors that denoise: its path, or its path and more."""
    autoencoder: Network | None = None
    """Variational autoencoder, for detectors that reconstruct."""
    classifier: Network | None = None
    """Classifier, for detectors of confidence."""
    ensemble: tuple[Network, ...] = ()
    """Classifiers of the same classes, trained alike, for an ensemble."""
    features: Network | None = None
    """What makes features, for detectors of distance: of a classifier of this package the maps of its stages, of
    anything else what it returns."""

    def named(self) -> Iterator[tuple[str, Network]]:
        """Every network that is named, by its key."""
        single = ((key, getattr(self, key)) for key in (*SINGLE, "features"))
        yield from ((key, network) for key, network in single if network is not None)
        yield from ((f"ensemble.{k}", network) for k, network in enumerate(self.ensemble))


class DetectorConfig(Networks):
    """A detector of out-of-distribution images, and what it is fitted to and calibrated on."""

    reference: DataConfig
    """In-distribution images, none of them in the training of the networks, and of other subjects than those to score:
    the detector is fitted to some and calibrated on the others."""
    calibration: DataConfig | float = 0.5
    """Share of the subjects of `reference` that the p-values are made of; or other in-distribution images for it."""
    detector: str = "denoising"
    """Name of the detector (`cfx.ood.DETECTORS`)."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the detector that differ from its defaults."""


def opened(key: str, network: Described) -> nn.Module:
    """A network for the key it stands under, in evaluation mode, on the CPU.

    Raises:
        InputError, CheckpointError: as `open_network` and `load`.
    """
    if key != "features":
        return open_network(network, SINGLE.get(key, "classifier"))
    spec = spec_of(network)
    found = load(spec.path) if spec == spec_of(spec.path) else open_network(spec)
    return FeatureMaps(found) if isinstance(found, Staged) else found


def arguments(found: dict[str, nn.Module]) -> dict[str, Any]:
    """Networks by their keys as `cfx.ood.fit` takes them."""
    members = tuple(network for key, network in found.items() if key.startswith("ensemble."))
    return {k: v for k, v in found.items() if not k.startswith("ensemble.")} | {"ensemble": members}


def opened_all(networks: Networks, device: torch.device) -> dict[str, nn.Module]:
    """All networks of a configuration by their keys, on a device."""
    return {key: opened(key, network).to(device) for key, network in networks.named()}


def prints(networks: Networks, found: dict[str, nn.Module]) -> dict[str, str]:
    """Fingerprints of networks by their keys."""
    return {key: network_print(network, found[key]) for key, network in networks.named()}

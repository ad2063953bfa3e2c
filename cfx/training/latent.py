"""Training of latent diffusion: a denoiser of the codes of a trained autoencoder, divided by their standard deviation.

Reference: Rombach et al. (2022), "High-resolution image synthesis with latent diffusion models".
"""

from dataclasses import replace
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, nn

from cfx.core.cohort import Cohort, Source
from cfx.core.errors import InputError
from cfx.models import load, read_manifest
from cfx.models.autoencoder import Vae
from cfx.models.classifiers import freeze
from cfx.models.latent import LatentDiffusion
from cfx.training.diffusion import DenoisingConfig, DiffusionObjective
from cfx.training.objectives import Batch, NetworkConfig, Networks, Scores, check_labels, whole_batches

_ROWS, _TOGETHER = 128, 8  # training rows whose codes set the scale, and how many are encoded at a time


class LatentConfig(DenoisingConfig):
    """Denoising of the codes of an autoencoder: a generator of images too large to be noised themselves."""

    trains: ClassVar[str] = "latent"

    kind: Literal["latent"]
    """Which objective this is."""
    autoencoder: str
    """Folder of the autoencoder's checkpoint; its weights become part of the generator's."""

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "LatentObjective":
        """Denoising of the codes of the cohort's images.

        Raises:
            InputError: no autoencoder of images in that folder, codes that are all the same, or unsuitable labels.
            CheckpointError: the autoencoder's checkpoint is missing or damaged.
        """
        if self.classes is not None:
            check_labels(cohort, self.classes)
        return LatentObjective(self, network, cohort)


class LatentObjective:
    """Denoising score matching on codes.

    Args:
        config: The objective.
        network: The network to train.
        cohort: Training rows; their codes set the scale.
    """

    def __init__(self, config: LatentConfig, network: NetworkConfig, cohort: Source) -> None:
        """See the class."""
        self.config, self.shape = config, cohort.shape
        self.autoencoder = freeze(load(config.autoencoder))
        codes = self._codes(cohort[:_ROWS])
        self.scale = 1 / float(codes.std())
        self.codes = DiffusionObjective(config, network, tuple(codes.shape[1:]))
        self.network_config = self.codes.network_config

    @torch.no_grad()
    def _codes(self, cohort: Cohort) -> Tensor:
        """Unscaled codes of images.

        Raises:
            InputError: no autoencoder, codes that are no images, or codes that are all the same.
        """
        if not isinstance(self.autoencoder, Vae):
            raise InputError(f"autoencoder: expected an autoencoder's checkpoint, got {self.config.autoencoder}")
        codes = torch.cat([self.autoencoder.encode(x)[0] for x in cohort.x.split(_TOGETHER)])
        if codes.ndim != cohort.x.ndim:
            raise InputError(f"autoencoder: expected codes (z, *coarse), got shape {tuple(codes.shape[1:])}")
        if not float(codes.std()) > 0:
            raise InputError("autoencoder: expected codes that tell images apart, got the same value everywhere")
        return codes

    def players(self) -> dict[str, nn.Module]:
        """The denoising network."""
        return self.codes.players()

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Weighted squared error of the prediction at one random time a row, on scaled codes."""
        return self.codes.loss(player, networks, self.encoded(batch))

    @torch.no_grad()
    def encoded(self, batch: Batch) -> Batch:
        """A batch with scaled codes for images."""
        autoencoder = cast(Vae, self.autoencoder.to(batch.x.device))
        return replace(batch, x=autoencoder.encode(batch.x)[0] * self.scale)

    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Figures of `DiffusionObjective`, on scaled codes."""
        batches = whole_batches(self.config, network, cohort, seed)
        return self.codes.figures(network, map(self.encoded, batches))

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The generator with its autoencoder."""
        denoiser, facts = self.codes.checkpoint(network, cohort)
        manifest = read_manifest(self.config.autoencoder)
        facts["facts"] = {"autoencoder": {"name": manifest.name, "config": manifest.config}}
        return LatentDiffusion(self.autoencoder, cast(Any, denoiser), self.scale, self.shape), facts

"""Training of variational autoencoders: absolute error, KL, and on request perceptual and adversarial terms."""

from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from cfx.core.cohort import Source
from cfx.core.denoiser import check_divisible
from cfx.core.random import normal
from cfx.models import build, load
from cfx.models.autoencoder import AutoencoderKl
from cfx.models.perceptual import FeatureDistance
from cfx.training.losses import absolute_error, hinge, kl_standard, squared_error
from cfx.training.objectives import (
    NOISE,
    Batch,
    NetworkConfig,
    Networks,
    ObjectiveConfig,
    Scores,
    data_keywords,
    whole_batches,
)


class VaeConfig(ObjectiveConfig):
    """Variational autoencoding: absolute error, KL, and on request perceptual and adversarial terms."""

    trains: ClassVar[str] = "vae"

    kind: Literal["vae"]
    """Which objective this is."""
    kl_weight: float = Field(default=1e-6, ge=0)
    """Weight of the KL divergence in nats a row, relative to the absolute error summed over pixels."""
    perceptual: str | None = None
    """Folder of a classifier checkpoint whose features measure the perceptual term; None for no such term."""
    perceptual_weight: float = Field(default=1.0, ge=0)
    """Weight of the perceptual term, relative to the mean absolute error of a pixel."""
    adversarial_weight: float = Field(default=0.0, ge=0)
    """Weight of the patch discriminator's verdict, relative to the mean absolute error; 0 builds no discriminator."""
    adversarial_start: int = Field(default=0, ge=0)
    """First step at which the autoencoder feels the discriminator."""

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "VaeObjective":
        """Autoencoding of the cohort's images.

        Raises:
            CheckpointError: the checkpoint of the perceptual term is missing or damaged.
            InputError: it has no feature maps.
        """
        return VaeObjective(self, network, cohort.shape)


class VaeObjective:
    """The evidence bound with a Laplace likelihood, plus perceptual and adversarial terms (Esser et al., 2021).

    Args:
        config: The objective.
        network: The network to train.
        shape: Shape `(c, *space)` of the images.
    """

    def __init__(self, config: VaeConfig, network: NetworkConfig, shape: tuple[int, ...]) -> None:
        """See the class."""
        self.config, self.name, self.shape = config, network.name, shape
        self.network_config = data_keywords(network, shape)
        self.features = FeatureDistance(load(config.perceptual)) if config.perceptual else None

    def players(self) -> dict[str, nn.Module]:
        """The autoencoder, and the discriminator if its weight is positive."""
        main = cast(AutoencoderKl, build(self.name, **self.network_config))
        check_divisible("data", self.shape[1:], int(getattr(main, "multiple", 1)))
        self.latent = main.latent_shape(self.shape[1:])
        if not self.config.adversarial_weight:
            return {"main": main}
        return {"main": main, "critic": _critic(len(self.shape) - 1, self.shape[0], self.shape[1:])}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Loss of the autoencoder, or the discriminator's hinge loss on images and reconstructions."""
        if player == "critic":
            with torch.no_grad():
                fake = self._reconstruct(networks["main"], batch)[0]
            verdict = networks["critic"](torch.cat([batch.x, fake]))[-1]
            real, fake = verdict.chunk(2)
            return hinge(real, fake), {}
        return self._main(networks, batch)

    def _main(self, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        image, mean, std = self._reconstruct(networks["main"], batch)
        error = absolute_error(image, batch.x).mean()
        kl = kl_standard(mean, std).mean()
        loss = error + self.config.kl_weight * kl / batch.x[0].numel()
        scores = {"l1": error.detach(), "kl": kl.detach()}
        if self.features is not None:
            self.features.to(batch.x.device)
            gap = self.features(image, batch.x).mean()
            loss, scores["perceptual"] = loss + self.config.perceptual_weight * gap, gap.detach()
        if "critic" in networks and batch.step >= self.config.adversarial_start:
            realism = networks["critic"](image)[-1].mean()
            loss, scores["realism"] = loss - self.config.adversarial_weight * realism, realism.detach()
        return loss, scores

    def _reconstruct(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Image, mean and standard deviation at one random latent a row."""
        noise = normal(self.latent, seed=batch.seed, row=batch.slot, stream=NOISE)
        return cast(tuple[Tensor, Tensor, Tensor], network(batch.x, noise))

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Errors of the decoded mean, KL a row (nats), and the standard deviation of the latent over the cohort."""
        rows, latents = [], []
        for x in (batch.x for batch in whole_batches(self.config, network, cohort, seed)):
            image, mean, std = network(x)
            parts = [absolute_error(image, x), squared_error(image, x), kl_standard(mean, std)]
            if self.features is not None:
                parts.append(self.features.to(x.device)(image, x))
            rows.append(torch.stack(parts, 1).cpu())
            latents.append(mean.cpu())
        means = torch.cat(rows).mean(0).tolist()
        names = ("l1", "mse", "kl", "feature_distance")[: len(means)]
        return dict(zip(names, means, strict=True)) | {"latent_std": float(torch.cat(latents).std())}

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The autoencoder."""
        return network, {"shape": self.shape}


def _critic(spatial_dims: int, in_channels: int, space: tuple[int, ...]) -> nn.Module:
    """MONAI's patch discriminator with instance normalisation, two strided layers (one for small images)."""
    from monai.networks.nets import PatchDiscriminator

    layers = 2 if min(space) >= 32 else 1
    return PatchDiscriminator(
        spatial_dims=spatial_dims, channels=32, in_channels=in_channels, num_layers_d=layers, norm="INSTANCE"
    )

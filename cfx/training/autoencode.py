"""Training of variational autoencoders: absolute error, KL, and on request perceptual and adversarial terms."""

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from cfx.core.cohort import Source
from cfx.core.random import normal
from cfx.models import build, load
from cfx.models.autoencoder import AutoencoderKl, kl_standard
from cfx.models.perceptual import FeatureDistance
from cfx.training.config import TrainConfig, VaeConfig
from cfx.training.objectives import NOISE, Batch, Networks, Scores, data_keywords, whole_batch


class VaeObjective:
    """The evidence bound with a Laplace likelihood, plus perceptual and adversarial terms (Esser et al., 2021)."""

    def __init__(self, config: TrainConfig, objective: VaeConfig, cohort: Source) -> None:
        """Load the perceptual network, if any."""
        self.objective, self.name = objective, config.network.name
        self.network_config = data_keywords(config, cohort)
        self.shape = cohort.shape
        self.features = FeatureDistance(load(objective.perceptual)) if objective.perceptual else None

    def players(self) -> dict[str, nn.Module]:
        """The autoencoder, and the discriminator if its weight is positive."""
        main = cast(AutoencoderKl, build(self.name, **self.network_config))
        self.latent = main.latent_shape(self.shape[1:])
        if not self.objective.adversarial_weight:
            return {"main": main}
        return {"main": main, "critic": _critic(len(self.shape) - 1, self.shape[0], self.shape[1:])}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Loss of the autoencoder, or the discriminator's hinge loss on images and reconstructions."""
        if player == "critic":
            with torch.no_grad():
                fake = self._reconstruct(networks["main"], batch)[0]
            verdict = networks["critic"](torch.cat([batch.x, fake]))[-1]
            real, fake = verdict.chunk(2)
            return 0.5 * (relu(1 - real).mean() + relu(1 + fake).mean()), {}
        return self._main(networks, batch)

    def _main(self, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        image, mean, std = self._reconstruct(networks["main"], batch)
        error = (image - batch.x).abs().mean()
        kl = kl_standard(mean, std).mean()
        loss = error + self.objective.kl_weight * kl / batch.x[0].numel()
        scores = {"l1": error.detach(), "kl": kl.detach()}
        if self.features is not None:
            self.features.to(batch.x.device)
            gap = self.features(image, batch.x).mean()
            loss, scores["perceptual"] = loss + self.objective.perceptual_weight * gap, gap.detach()
        if "critic" in networks and batch.step >= self.objective.adversarial_start:
            realism = networks["critic"](image)[-1].mean()
            loss, scores["realism"] = loss - self.objective.adversarial_weight * realism, realism.detach()
        return loss, scores

    def _reconstruct(self, network: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Image, mean and standard deviation at one random latent a row."""
        noise = normal(self.latent, seed=batch.seed, row=batch.slot, stream=NOISE)
        return cast(tuple[Tensor, Tensor, Tensor], network(batch.x, noise))

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Errors of the decoded mean, KL a row (nats), and the standard deviation of the latent over the cohort."""
        device, rows = next(network.parameters()).device, []
        latents = []
        for start in range(0, len(cohort), 64):
            x = whole_batch(cohort[start : start + 64], seed, start, device).x
            image, mean, std = network(x)
            gap = (image - x).flatten(1)
            parts = [gap.abs().mean(1), gap.square().mean(1), kl_standard(mean, std)]
            if self.features is not None:
                parts.append(self.features.to(device)(image, x))
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

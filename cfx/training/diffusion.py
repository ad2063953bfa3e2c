"""Training of denoisers: predict noise, velocity or image from a noised image, on a discrete schedule."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from cfx.core.cohort import Source
from cfx.core.denoiser import Denoiser, Posterior, check_divisible
from cfx.core.random import normal, uniform
from cfx.core.schedule import Prediction, Schedule
from cfx.models import build
from cfx.models.denoising import LEVELS, denoising_errors, key
from cfx.training.losses import min_snr_weight, squared_error
from cfx.training.objectives import (
    LABEL,
    NOISE,
    TIME,
    Batch,
    NetworkConfig,
    Networks,
    ObjectiveConfig,
    Scores,
    check_labels,
    data_keywords,
    whole_batches,
)


class DenoisingConfig(ObjectiveConfig):
    """How something is noised, and what is predicted from it."""

    prediction: Literal["epsilon", "v", "x0"] = "v"
    """What the network returns."""
    min_snr: float | None = Field(default=5.0, gt=0)
    """Clip of the min-SNR weighting (Hang et al., 2023); None weighs all levels alike in prediction space."""
    classes: int | None = Field(default=None, ge=1)
    """Number of class labels to condition on; None trains without labels."""
    label_dropout: float = Field(default=0.1, ge=0, le=1)
    """Probability that a row's label is replaced by the null label."""
    schedule: Mapping[str, Any] = Field(
        default_factory=lambda: {"num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}
    )
    """A diffusers scheduler configuration (betas, spacing); the prediction type is set from `prediction`."""


class DiffusionConfig(DenoisingConfig):
    """Denoising: predict noise, velocity or image from a noised image."""

    trains: ClassVar[str] = "denoiser"

    kind: Literal["diffusion"]
    """Which objective this is."""

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "DiffusionObjective":
        """Denoising of the cohort's images.

        Raises:
            InputError: conditioning on labels that the cohort lacks or that exceed the number of classes.
        """
        if self.classes is not None:
            check_labels(cohort, self.classes)
        return DiffusionObjective(self, network, cohort.shape)


class DiffusionObjective:
    """Denoising score matching on a discrete schedule.

    Args:
        config: The objective.
        network: The network to train.
        shape: Shape `(c, *space)` of what is noised.
    """

    def __init__(self, config: DenoisingConfig, network: NetworkConfig, shape: tuple[int, ...]) -> None:
        """See the class."""
        self.config, self.name, self.shape = config, network.name, shape
        names = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
        self.schedule = Schedule.from_diffusers({**config.schedule, "prediction_type": names[config.prediction]})
        self.network_config = data_keywords(network, shape) | {"classes": config.classes}

    def players(self) -> dict[str, nn.Module]:
        """The denoising network.

        Raises:
            InputError: images of a size that the network cannot halve as often as it does.
        """
        network = build(self.name, **self.network_config)
        check_divisible("data", self.shape[1:], int(getattr(network, "multiple", 1)))
        return {"main": network}

    def denoiser(self, network: nn.Module) -> Denoiser:
        """The network, prepared or not, as a posterior-valued function."""
        return Denoiser(network, self.schedule, classes=self.config.classes, shape=self.shape)

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Weighted squared error of the prediction at one random time a row."""
        each = self.errors(networks[player], batch, self._dropped(batch))
        return each.mean(), {}

    def errors(self, network: nn.Module, batch: Batch, label: Tensor | None) -> Float[Tensor, " b"]:
        """Weighted squared error of each row, mean over pixels."""
        draw = {"seed": batch.seed, "row": batch.slot}
        eps = normal(batch.x.shape[1:], **draw, stream=NOISE)  # type: ignore[arg-type]
        u = uniform((), **draw, stream=TIME)  # type: ignore[arg-type]
        t = 1 + (u * self.schedule.T).long()
        alpha, sigma = self.schedule.alpha(t, batch.x), self.schedule.sigma(t, batch.x)
        truth = Posterior(batch.x, self.schedule.noised(batch.x, t, eps), alpha, sigma)
        q = self.denoiser(network)(truth.x_t, t, label)
        kind = self.config.prediction
        weight = min_snr_weight(alpha, sigma, kind, self.config.min_snr).flatten()
        return weight * squared_error(predicted(q, kind), predicted(truth, kind))

    def _dropped(self, batch: Batch) -> Tensor | None:
        """Labels with some replaced by the null label."""
        if self.config.classes is None or batch.y is None:
            return None
        drop = uniform((), seed=batch.seed, row=batch.slot, stream=LABEL) < self.config.label_dropout
        return torch.where(drop, self.config.classes, batch.y)

    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Loss with the true label, what the null label adds to it, and errors without label by noise level."""
        return self.figures(network, whole_batches(self.config, network, cohort, seed))

    @torch.no_grad()
    def figures(self, network: nn.Module, batches: Iterable[Batch]) -> dict[str, float]:
        """`evaluate` on batches."""
        plain, labelled, levels = [], [], dict[str, float]()
        for batch in batches:
            levels = levels or self._by_level(network, batch)
            plain.append(self.errors(network, batch, None))
            if self.config.classes is not None:
                labelled.append(self.errors(network, batch, batch.y))
        null = float(torch.cat(plain).mean())
        if not labelled:
            return {"loss": null} | levels
        loss = float(torch.cat(labelled).mean())
        return {"loss": loss, "loss_without_label": null, "label_gain": null - loss} | levels

    def _by_level(self, network: nn.Module, batch: Batch) -> dict[str, float]:
        """Squared error of the image at the noise levels at which a run asks a generator about its images."""
        denoiser = self.denoiser(network)
        return {key(level): float(denoising_errors(denoiser, batch.x, level=level).mean()) for level in LEVELS}

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """A denoiser."""
        return self.denoiser(network), {"classes": tuple(cohort.classes) if self.config.classes else ()}


def predicted(q: Posterior, prediction: Prediction) -> Float[Tensor, "b c *space"]:
    """The quantity the network predicts, of a posterior."""
    match prediction:
        case "epsilon":
            return q.eps
        case "v":
            return q.v
        case "x0":
            return q.mean

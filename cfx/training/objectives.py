"""What a network is trained for. An objective names its players, each with its own loss; the loop does the rest.

All randomness is keyed by a row's slot (its position in the whole run's sequence of rows), so a loss does not depend
on how a batch is split over processes or parts.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.cohort import Cohort, Source
from cfx.core.denoiser import Denoiser, Posterior
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.core.schedule import Prediction, Schedule
from cfx.models import build, kind
from cfx.training.config import ClassifierConfig, DiffusionConfig, TrainConfig, VaeConfig

ORDER, NOISE, TIME, LABEL, AUGMENT, REMEDY = range(6)
"""Streams of the counter-based generator; `ORDER` needs one an epoch and is keyed apart by the loop."""

Networks = Mapping[str, nn.Module]
Scores = dict[str, Tensor]


@dataclass(frozen=True)
class Batch:
    """Rows of a step.

    Attributes:
        x: Images `(b, c, *space)` in [-1, 1].
        y: Labels `(b,)` or `(b, k)`, None if unlabelled.
        slot: Position of every row in the run's sequence of rows; keys its randomness.
        seed: The run's seed.
        step: Optimizer step, from 0.
        row: Row of the cohort that each is.
    """

    x: Float[Tensor, "b c *space"]
    y: Tensor | None
    slot: Int[Tensor, " b"]
    seed: int
    step: int
    row: Int[Tensor, " b"]


@runtime_checkable
class Objective(Protocol):
    """What the loop needs. `main` is the player whose (averaged) weights become the checkpoint."""

    network_config: dict[str, Any]

    def players(self) -> dict[str, nn.Module]:
        """Freshly initialised networks by name, `main` first."""

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean loss of one player over the rows, and detached scalars to log; only its own weights need gradients."""

    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Figures of the main network on held-out rows."""

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The model to save and the keywords for `cfx.models.save`."""


def min_snr_weight(alpha: Tensor, sigma: Tensor, prediction: Prediction, gamma: float | None) -> Tensor:
    """Weight on the squared error in prediction space (Hang et al., 2023, arXiv 2303.09556).

    In image space the weight is min(SNR, gamma) with SNR = alpha^2 / sigma^2. An error of the image is an error of the
    noise times sigma / alpha, and of v times sigma; so the weight here is min(SNR, gamma) over SNR for the noise,
    over SNR + 1 for v, and over 1 for the image. Written so that SNR = infinity and 0 stay finite.

    Args:
        alpha: Signal levels.
        sigma: Noise levels, positive.
        prediction: What the network returns.
        gamma: The clip; None gives ones.
    """
    if gamma is None:
        return torch.ones_like(alpha)
    clipped = torch.minimum((alpha / sigma).square(), torch.full_like(alpha, gamma))
    match prediction:
        case "epsilon":
            return torch.minimum(torch.ones_like(alpha), gamma * (sigma / alpha).square())
        case "v":
            return clipped * sigma.square()
        case "x0":
            return clipped


def predicted(q: Posterior, prediction: Prediction) -> Float[Tensor, "b c *space"]:
    """The quantity the network predicts, of a posterior."""
    match prediction:
        case "epsilon":
            return q.eps
        case "v":
            return q.v
        case "x0":
            return q.mean


def data_keywords(config: TrainConfig, cohort: Source) -> dict[str, Any]:
    """The network's keywords with those that the data decides."""
    return {"spatial_dims": len(cohort.shape) - 1, "in_channels": cohort.shape[0]} | config.network.keywords


class DiffusionObjective:
    """Denoising score matching on a discrete schedule."""

    def __init__(self, config: TrainConfig, objective: DiffusionConfig, cohort: Source) -> None:
        """Read schedule and labels.

        Raises:
            InputError: conditioning on labels that the cohort lacks or that exceed the number of classes.
        """
        self.objective, self.name = objective, config.network.name
        names = {"epsilon": "epsilon", "v": "v_prediction", "x0": "sample"}
        self.schedule = Schedule.from_diffusers({**objective.schedule, "prediction_type": names[objective.prediction]})
        self.network_config = data_keywords(config, cohort) | {"classes": objective.classes}
        self.shape = cohort.shape
        if objective.classes is not None:
            check_labels(cohort, objective.classes)

    def players(self) -> dict[str, nn.Module]:
        """The denoising network."""
        return {"main": build(self.name, **self.network_config)}

    def denoiser(self, network: nn.Module) -> Denoiser:
        """The network, prepared or not, as a posterior-valued function."""
        return Denoiser(network, self.schedule, classes=self.objective.classes, shape=self.shape)

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
        kind = self.objective.prediction
        weight = min_snr_weight(alpha, sigma, kind, self.objective.min_snr).flatten()
        return weight * (predicted(q, kind) - predicted(truth, kind)).square().flatten(1).mean(1)

    def _dropped(self, batch: Batch) -> Tensor | None:
        """Labels with some replaced by the null label."""
        if self.objective.classes is None or batch.y is None:
            return None
        drop = uniform((), seed=batch.seed, row=batch.slot, stream=LABEL) < self.objective.label_dropout
        return torch.where(drop, self.objective.classes, batch.y)

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Loss with the true label, and what the null label adds to it (how much the network uses labels)."""
        plain, labelled = [], []
        for start in range(0, len(cohort), 64):
            batch = whole_batch(cohort[start : start + 64], seed, start, next(network.parameters()).device)
            plain.append(self.errors(network, batch, None))
            if self.objective.classes is not None:
                labelled.append(self.errors(network, batch, batch.y))
        null = float(torch.cat(plain).mean())
        if not labelled:
            return {"loss": null}
        loss = float(torch.cat(labelled).mean())
        return {"loss": loss, "loss_without_label": null, "label_gain": null - loss}

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """A denoiser."""
        return self.denoiser(network), {"classes": tuple(cohort.classes) if self.objective.classes else ()}


def whole_batch(cohort: Cohort, seed: int, start: int, device: torch.device) -> Batch:
    """A cohort as one batch whose slots count from `start`."""
    y = None if cohort.y is None else cohort.y.to(device)
    slots = torch.arange(start, start + len(cohort), device=device)
    return Batch(cohort.x.to(device), y, slots, seed, 0, slots)


def check_labels(cohort: Source, classes: int) -> None:
    """Refuse a cohort without class labels in 0 .. classes-1.

    Raises:
        InputError: no labels, several labels a row, or a label out of range.
    """
    if cohort.y is None or cohort.y.ndim != 1:
        raise InputError("cohort.y: expected one class label a row, got " + ("none" if cohort.y is None else "several"))
    low, high = int(cohort.y.min()), int(cohort.y.max())
    if low < 0 or high >= classes:
        raise InputError(f"cohort.y: expected classes 0 .. {classes - 1}, got {low} .. {high}")


def make_objective(config: TrainConfig, cohort: Source) -> Objective:
    """The objective that a configuration names.

    Raises:
        InputError: the cohort or the network does not suit it.
    """
    wanted = {"diffusion": "denoiser"}.get(config.objective.kind, config.objective.kind)
    if kind(config.network.name) != wanted:
        raise InputError(f"network {config.network.name}: objective {config.objective.kind} expects a {wanted}")
    match config.objective:
        case DiffusionConfig() as objective:
            return DiffusionObjective(config, objective, cohort)
        case ClassifierConfig() as objective:
            from cfx.training.classify import ClassifierObjective

            return ClassifierObjective(config, objective, cohort)
        case VaeConfig() as objective:
            from cfx.training.autoencode import VaeObjective

            return VaeObjective(config, objective, cohort)

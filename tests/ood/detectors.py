"""Networks and detectors whose answers are known, for the tests of this room."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.core.denoiser import Posterior
from cfx.core.schedule import Schedule
from cfx.ood.detector import Ask, Learn, Scored

SCHEDULE = Schedule.from_diffusers({"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"})


class GaussianGenerator(nn.Module):
    """The exact posterior of images of independent normal pixels of mean m and variance v."""

    def __init__(self, mean: float = 0.0, variance: float = 0.04) -> None:
        super().__init__()
        self.mean, self.variance, self.schedule, self.classes = mean, variance, SCHEDULE, None

    def forward(self, x_t: Tensor, t: int | Tensor, label: Tensor | None = None) -> Posterior:
        alpha, sigma = self.schedule.alpha(t, x_t), self.schedule.sigma(t, x_t)
        gain = alpha * self.variance / (alpha**2 * self.variance + sigma**2)
        return Posterior(self.mean + gain * (x_t - alpha * self.mean), x_t, alpha, sigma)


@dataclass(frozen=True)
class MeanDetector:
    """The mean of an image against that of the fitted ones."""

    name: ClassVar[str] = "mean"
    needs: ClassVar[tuple[str, ...]] = ()

    def fit(self, learn: Learn) -> "MeanScorer":
        return MeanScorer(float(learn.collect(lambda ask: ask.x.flatten(1).mean(1)).mean()))


@dataclass(frozen=True)
class MeanScorer:
    """The detector, fitted."""

    centre: float

    def __call__(self, ask: Ask) -> Scored:
        return Scored(ask.x.flatten(1).mean(1) - self.centre)


def images(n: int, seed: int = 0, space: tuple[int, ...] = (8, 8), deviation: float = 0.2) -> Tensor:
    """Images of independent normal pixels."""
    e = torch.randn(n, 1, *space, generator=torch.Generator().manual_seed(seed))
    return (deviation * e).clamp(-1, 1)


def cohort(n: int, seed: int = 0, space: tuple[int, ...] = (8, 8)) -> Cohort:
    """Such images with names of their own."""
    return Cohort(images(n, seed, space), ids=tuple(f"{seed}-{i}" for i in range(n)))

"""Denoisers whose posterior and probability flow are known exactly: every pixel is an independent mixture."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cfx.core.denoiser import Posterior
from cfx.core.schedule import Schedule, Time


@dataclass(frozen=True)
class MixtureDenoiser:
    """Pixels drawn from sum_k weight_k N(mean_k, std_k^2); `label` k, if given, picks component k alone."""

    schedule: Schedule
    weights: Sequence[float]
    means: Sequence[float]
    stds: Sequence[float]

    def __call__(self, x_t: Tensor, t: Time, label: Tensor | None = None) -> Posterior:
        alpha, sigma = self.schedule.alpha(t, x_t), self.schedule.sigma(t, x_t)
        w, m, s = (x_t.new_tensor(p) for p in (self.weights, self.means, self.stds))
        a, g = alpha[..., None], sigma[..., None]
        variance = a**2 * s**2 + g**2
        away = x_t[..., None] - a * m
        component_mean = m + a * s**2 / variance * away
        logits = w.log() - 0.5 * variance.log() - 0.5 * away**2 / variance
        if label is not None:
            chosen = nn.functional.one_hot(label, len(m)).bool().view(len(x_t), *[1] * (x_t.ndim - 1), len(m))
            logits = logits.masked_fill(~chosen, float("-inf"))
        return Posterior((logits.softmax(-1) * component_mean).sum(-1), x_t, alpha, sigma)

    def cdf(self, x_t: Tensor, t: int) -> Tensor:
        alpha, sigma = self.schedule.alpha(t, x_t), self.schedule.sigma(t, x_t)
        w, m, s = (x_t.new_tensor(p) for p in (self.weights, self.means, self.stds))
        spread = (alpha**2 * s**2 + sigma**2).sqrt()
        return (w * torch.special.ndtr((x_t[..., None] - alpha * m) / spread)).sum(-1)

    def transport(self, x_t: Tensor, t: int, s: int) -> Tensor:
        """Solution of the probability-flow ODE from t to s: in one dimension the flow keeps every quantile."""
        level = self.cdf(x_t, t)
        low, high = torch.full_like(x_t, -20), torch.full_like(x_t, 20)
        for _ in range(60):
            middle = (low + high) / 2
            below = self.cdf(middle, s) < level
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


def gaussian(schedule: Schedule, mean: float = 0.3, std: float = 0.4) -> MixtureDenoiser:
    """A mixture of one."""
    return MixtureDenoiser(schedule, [1.0], [mean], [std])


def mixture(schedule: Schedule) -> MixtureDenoiser:
    """Two classes, well apart."""
    return MixtureDenoiser(schedule, [0.4, 0.6], [-0.5, 0.4], [0.15, 0.2])


class PredictionNetwork(nn.Module):
    """A closed form as the network that a `Denoiser` or a diffusers scheduler expects (index t - 1, raw prediction)."""

    def __init__(self, closed: MixtureDenoiser) -> None:
        super().__init__()
        self.closed = closed

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None = None) -> Tensor:
        q = self.closed(x, timesteps + 1, class_labels)
        return {"epsilon": q.eps, "v": q.v, "x0": q.mean}[self.closed.schedule.prediction]


class ConvNetwork(nn.Module):
    """A small random network that knows the time: nothing about it is linear or smooth by design."""

    def __init__(self, channels: int = 1, width: int = 16, dims: int = 2, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            conv = nn.Conv2d if dims == 2 else nn.Conv3d
            self.first, self.second = conv(channels, width, 3, padding=1), conv(width, channels, 3, padding=1)
            self.time = nn.Linear(2, width)

    def forward(self, x: Tensor, timesteps: Tensor, class_labels: Tensor | None = None) -> Tensor:
        phase = timesteps.to(x.dtype)[:, None] / 100
        time = self.time(torch.cat([phase.sin(), phase.cos()], 1))
        hidden = self.first(x) + time.view(*time.shape, *[1] * (x.ndim - 2))
        return self.second(nn.functional.silu(hidden))

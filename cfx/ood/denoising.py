"""Errors of one-step denoising at a few noise levels, all in one batch, and how unusual they are together.

An image x is noised to x_k = alpha_k x + sigma_k eps_k at K levels, each with one draw eps_k that is the same for every
image, and denoised once: r_k = E[x | x_k] - x. Per level and image

    a_k = log mean r_k^2                    how much is not restored
    z_k(p) = (l_k(p) - m_k(p)) / s_k(p)     l = log of r_k^2 smoothed by a Gaussian, m and s its mean and deviation at
                                            pixel p over the images it is fitted to
    b_k = mean of the largest 1 % of z_k    how much that is in one place

With d^2 the squared Mahalanobis distance of v = (a, b) of 2 K entries and u the mean of its standardised entries, the
score is d^2 / 2K + max(u, 0)^2: two-sided, as a shift may make errors smaller (blur does), and one-sided, as most make them
larger, which a two-sided distance alone is slow to see. Cost: K generator evaluations.

Reference: Mahmood, Oliva, Styner (2021), "Multiscale score matching for out-of-distribution detection" (MSMA).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core import geometry
from cfx.core.density import Gaussian, gaussian
from cfx.core.random import normal
from cfx.ood.detector import Ask, Learn, Scored

_NOISE = 0xD0  # stream


@dataclass(frozen=True)
class Denoising:
    """Settings of the detector.

    Attributes:
        levels: Noise levels sigma.
        width: Deviation, in pixels, of the Gaussian that smooths squared errors.
        share: Share of pixels that counts as one place.
    """

    name: ClassVar[str] = "denoising"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    levels: tuple[float, ...] = (0.1, 0.2, 0.4, 0.6, 0.85)
    width: float = 1.0
    share: float = 0.01

    def fit(self, learn: Learn) -> "DenoisingScorer":
        """The mean and deviation of the errors at every pixel, and the density of what is made of them."""
        logs = learn.collect(self.logs)
        mean, deviation = logs.mean(0), logs.std(0).clamp_min(1e-6)
        v = torch.cat([self.vector(part, mean, deviation) for part in logs.split(learn.batch_size)])
        return DenoisingScorer(self, mean, deviation, v.mean(0), v.std(0), gaussian((v - v.mean(0)) / v.std(0)))

    def logs(self, ask: Ask) -> Float[Tensor, "b k *space"]:
        """Logarithms of the smoothed squared errors at every level."""
        generator = ask.tools.generator
        assert generator is not None
        shape, versions = tuple(ask.x.shape[1:]), []
        for k, level in enumerate(self.levels):
            eps = normal(shape, seed=0, row=torch.tensor([k]), stream=_NOISE).to(ask.x)
            versions.append(generator.schedule.noised(ask.x, generator.schedule.time_of(level), eps.expand_as(ask.x)))
        times = torch.tensor([generator.schedule.time_of(level) for level in self.levels], device=ask.x.device)
        rows = torch.arange(len(ask), device=ask.x.device)
        q = ask.posterior(torch.cat(versions), times.repeat_interleave(len(ask)), rows.repeat(len(self.levels)))
        error = (q.mean - ask.x.repeat(len(self.levels), *[1] * (ask.x.ndim - 1))).square().mean(1, keepdim=True)
        found = geometry.smooth(error, self.width).clamp_min(1e-12).log()
        return found.view(len(self.levels), len(ask), *shape[1:]).transpose(0, 1)

    def vector(self, logs: Tensor, mean: Tensor, deviation: Tensor) -> Float[Tensor, "b v"]:
        """What is made of the errors of each image: a and b."""
        z = ((logs - mean) / deviation).flatten(2)
        most = z.topk(max(1, round(self.share * z.shape[2])), dim=2).values.mean(2)
        return torch.cat([logs.exp().flatten(2).mean(2).log(), most], 1)


@dataclass(frozen=True)
class DenoisingScorer:
    """The detector, fitted.

    Attributes:
        settings: The detector.
        mean: Mean of the errors at every level and pixel.
        deviation: Their deviation.
        centre: Mean of the vectors.
        scale: Their deviation.
        density: Normal distribution of the standardised vectors.
    """

    settings: Denoising
    mean: Float[Tensor, "k *space"]
    deviation: Float[Tensor, "k *space"]
    centre: Float[Tensor, " v"]
    scale: Float[Tensor, " v"]
    density: Gaussian

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        logs = self.settings.logs(ask).cpu()
        v = (self.settings.vector(logs, self.mean, self.deviation) - self.centre) / self.scale
        u = v.mean(1)
        score = self.density.distance2(v) / v.shape[1] + u.clamp_min(0).square().double()
        z = ((logs - self.mean) / self.deviation).mean(1, keepdim=True)
        return Scored(score, z, {"two_sided": self.density.distance2(v), "one_sided": u.double()})

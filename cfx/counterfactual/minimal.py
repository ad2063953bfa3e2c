"""The `minimal` method: replay the image's own noise under guidance, at the least strength that convinces f.

The image x is abducted exactly (edit-friendly noise maps, `cfx.core.abduction`) under its present class. Replay at
strength w moves the one-step estimate of the clean image at every time t to

    x0 + w (d + |d| g / |g|),        x0 = D(x_t, t, source),   d = D(x_t, t, target) - x0,   g = grad_x margin(f)(x0)

d, the difference of the class-conditional scores, keeps the edit on the manifold; g, the gradient at the one-step
estimate averaged over noisy copies, holds it to the classifier that is being explained. No back-propagation through
the generator. An unconditional generator has no d: then the step along g has length `free_step` sigma_t / alpha_t.
At w = 0 the replay returns x. Small changes are shrunk to exactly zero (`paste`), so x stays bit for bit outside.

References: FastDiME (Weng et al. 2024) for the one-step gradient; classifier-free guidance (Ho and Salimans 2022) for
d.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.abduction import NoiseMaps, replay
from cfx.core.denoiser import Generative
from cfx.core.random import normal
from cfx.counterfactual.judge import Judge

_NOISY_COPIES = 1 << 20  # streams of the gradient's noise: beyond every time t, which abduction uses


@dataclass(frozen=True)
class Minimal:
    """Settings of the method; the defaults are meant to be left alone.

    Attributes:
        start: Noise level tau as a share of T from which the image is replayed.
        steps: Steps of the replay.
        trials: Most strengths tried for a row.
        tolerance: A margin this far above the one asked for is near enough.
        conditional: Weight of the conditional difference d.
        gradient: Weight of the classifier gradient.
        copies: Noisy copies the gradient is averaged over.
        spread: Standard deviation of their noise.
        free_step: Length of a unit-strength step along g for generators without classes, in sigma_t / alpha_t.
        least: Changes below this absolute value (range [-1, 1]) are not made.
    """

    start: float = 0.8
    steps: int = 12
    trials: int = 4
    tolerance: float = 0.3
    conditional: float = 1.0
    gradient: float = 1.0
    copies: int = 8
    spread: float = 0.4
    free_step: float = 0.05
    least: float = 0.03

    def times(self, generator: Generative) -> list[int]:
        """The grid of the replay, from tau down to 0."""
        T = generator.schedule.T
        return generator.schedule.times(self.steps, start=round(self.start * T))

    def nfe(self, conditional: bool) -> int:
        """Generator evaluations of one replay."""
        return self.steps * (2 if conditional else 1)


@dataclass(frozen=True)
class Guidance:
    """Everything one batch of replays needs; `edit` is its one use."""

    method: Minimal
    generator: Generative
    judge: Judge
    seed: int
    row: Int[Tensor, " b"]
    source: Int[Tensor, " b"] | None
    target: Int[Tensor, " b"]
    label: Int[Tensor, " b"] | None

    def edit(self, maps: NoiseMaps, rows: Int[Tensor, " r"], w: Float[Tensor, " r"]) -> Float[Tensor, "r c *space"]:
        """The images of these rows replayed at strengths `w`, before pasting."""

        def mean(x_t: Tensor, t: int, s: int) -> Tensor:
            x0, d = self._means(x_t, t, rows)
            g = self._gradient(x0 if d is None else x0 + _each(w, x0) * d, t, rows)
            if d is None:
                size = (
                    self.method.free_step * self.generator.schedule.sigma(t, x0) / self.generator.schedule.alpha(t, x0)
                )
                return x0 + _each(w, x0) * size * g / _rms(g)
            step = self.method.conditional * d + self.method.gradient * _rms(d) * g / _rms(g)
            return x0 + _each(w, x0) * step

        with torch.no_grad():
            return replay(maps[rows], mean)

    def _means(self, x_t: Tensor, t: int, rows: Tensor) -> tuple[Tensor, Tensor | None]:
        """The estimate under the present class, and the conditional difference (None without classes)."""
        if self.source is None or self.label is None:
            return self.generator(x_t, t).mean, None
        both = torch.cat([self.source[rows], self.label[rows]])
        x0, towards = self.generator(torch.cat([x_t, x_t]), t, both).mean.chunk(2)
        return x0, towards - x0

    def _gradient(self, x0: Tensor, t: int, rows: Tensor) -> Tensor:
        """Classifier gradient at the clean estimate, averaged over noisy copies."""
        k = self.method.copies
        noise = normal((k, *x0.shape[1:]), seed=self.seed, row=self.row[rows], stream=_NOISY_COPIES + t).to(x0)
        copies = x0.clamp(-1, 1)[:, None] + self.method.spread * noise
        g = self.judge.gradient(copies.flatten(0, 1), self.target[rows].repeat_interleave(k))
        return g.view(len(rows), k, *x0.shape[1:]).mean(1)


def paste(
    x: Float[Tensor, "b c *space"], edited: Float[Tensor, "b c *space"], least: float
) -> Float[Tensor, "b c *space"]:
    """Keep only real changes: those whose local size exceeds `least`; elsewhere `x` bit for bit.

    The local size is the mean absolute change over 3 voxels a side. The weight rises from 0 at `least` to 1 at twice
    it, continuously, so a rounding difference between batches cannot switch a voxel on or off.
    """
    change = edited.clamp(-1, 1) - x
    size = change.abs().amax(1, keepdim=True)
    pool = F.avg_pool2d if x.ndim == 4 else F.avg_pool3d
    local = pool(size, kernel_size=3, stride=1, padding=1, count_include_pad=False)
    weight = (local / least - 1).clamp(0, 1)
    return torch.where(weight > 0, x + weight * change, x)


def _each(value: Tensor, like: Tensor) -> Tensor:
    return value.view(-1, *[1] * (like.ndim - 1))


def _rms(x: Tensor) -> Tensor:
    """Root mean square of every row, never 0."""
    return _each(x.flatten(1).square().mean(1).sqrt().clamp_min(1e-12), x)

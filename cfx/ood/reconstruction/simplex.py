"""Partial diffusion with smooth noise: what is covered by blobs is drawn anew as the generator knows it.

    x_tau = alpha x + sigma n,   n smooth noise of several octaves (`noise`)        tau where sigma = .69
    back to 0 in `steps` DDPM steps whose noise is of the same kind;   score = mean (x - x_hat)^2, map (x - x_hat)^2

White noise leaves what is large in place, a lesion of many voxels say; smooth noise covers it. The level is that of
time 250 of the published linear schedule of 1000, and all 250 times are walked. Two differences: the published
generator was trained with such noise, one trained with white noise removes less of it, so that errors are larger
everywhere; and theirs is OpenSimplex noise, ours gradient noise of the same octaves, scaled to variance 1, which sigma
means. Cost: `steps`, or as many as the schedule has times below the level.

Reference: Wyatt, Leach, Schmon, Willcocks (2022), "AnoDDPM: anomaly detection with denoising diffusion probabilistic
models using simplex noise".
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.errors import error_map, per_image
from cfx.ood.reconstruction.noise import octaves
from cfx.ood.standard import check_positive
from cfx.ood.walks import ancestral, generator_of, images_of, noised, signal, start_grid

_VALUES = 1 << 20  # of noise that are made together


@dataclass(frozen=True)
class Simplex:
    """Settings of the detector.

    Attributes:
        sigma: Noise level to go to.
        steps: Steps back, or all times of the schedule below it where it has not as many.
        period: Side of the coarsest blobs in voxels.
        octaves: Number of scales, each half of the one before.
        persistence: Amplitude of a scale over that of the one before.

    Raises:
        InputError: a noise level outside (0, 1), or no steps, octaves, or a period or persistence that is not positive.
    """

    name: ClassVar[str] = "simplex"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    sigma: float = 0.69
    steps: int = 250
    period: float = 64.0
    octaves: int = 6
    persistence: float = 0.8

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 0 < self.sigma < 1:
            raise InputError(f"sigma: expected a noise level in (0, 1), got {self.sigma}")
        for what in ("steps", "octaves", "period"):
            check_positive(what, getattr(self, what))
        check_positive("persistence", self.persistence, 1e-6)

    def fit(self, learn: Learn) -> "SimplexScorer":
        """Itself with the seed: there is nothing to fit."""
        return SimplexScorer(self, learn.seed)


@dataclass(frozen=True)
class SimplexScorer:
    """The detector and its seed.

    Attributes:
        settings: The detector.
        seed: Seed of the noise.
    """

    settings: Simplex
    seed: int

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        schedule, z = generator_of(ask).schedule, signal(ask)
        grid = start_grid(schedule, self.settings.sigma, self.settings.steps)
        noise = self._noise(z, len(grid))
        z_t = noised(schedule, z[None], grid[:1], next(noise))
        for (t, s), eps in zip(pairwise(grid), noise, strict=True):
            z_t = ancestral(ask, z_t, t, s, eps)
        where = error_map("l2", ask.x, images_of(ask, z_t)[0])
        return Scored(per_image(where), where)

    def _noise(self, like: Tensor, n: int) -> Iterator[Tensor]:
        """The smooth noise of each of n draws, the same for every image; some draws are made at a time."""
        own = self.settings
        for row in torch.arange(n).split(max(1, _VALUES // like[0].numel())):
            yield from octaves(
                tuple(like.shape[1:]), seed=self.seed, row=row, period=own.period, count=own.octaves,
                persistence=own.persistence,
            )[:, None, None].to(like)  # fmt: skip

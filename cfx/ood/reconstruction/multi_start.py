"""Denoise from many noise levels, and ask of each how well the image came back.

Start i of a grid of `steps` noise levels, i = 1, 1 + skip, 1 + 2 skip, ..., noises the image to the i-th lowest level
above the first and comes back in i + 1 steps; with e_i the error of what comes back,

    score = mean over starts of (e_i - m_i) / s_i,      m_i, s_i: mean and deviation over the images it is fitted to

e is the squared error, and where there are `features` their distance too, whose z-scores are added. The noise levels
are those of the published schedule (scaled linear, beta .0015 to .0195, 1000 times), which travel to any other as
sigma. Back goes DDIM, which keeps nothing between steps; the published program's solver takes the history of one start
into the next. The map is the mean over starts of the squared error over s_i: its mean is the squared error's part of
the score, but for a constant. Cost: the sum of i + 1 over the starts, 350 for the published 100 and 16, where the
generator's schedule has as many times below each start; with features 1 + the number of starts of theirs.

References: Graham, Pinaya, Tudosiu, Nachev, Ourselin, Cardoso (2023), "Denoising diffusion models for
out-of-distribution detection"; Graham, Pinaya, Wright, Tudosiu, et al. (2023), "Unsupervised 3D out-of-distribution
detection with latent diffusion models", for latent generators.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.errors import error_map, feature_error
from cfx.ood.standard import Standard
from cfx.ood.walks import (
    Versions,
    descend,
    draws,
    every,
    generator_of,
    images_of,
    in_groups,
    noised,
    signal,
    start_grid,
)

_PUBLISHED = Schedule.from_diffusers({"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195})


@dataclass(frozen=True)
class MultiStart:
    """Settings of the detector.

    Attributes:
        steps: Steps of the whole way from noise.
        skip: Every so many of its levels is a start.

    Raises:
        InputError: fewer than 2 steps or more than 1000, or a skip outside 1 .. steps - 1.
    """

    name: ClassVar[str] = "multi-start"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    steps: int = 100
    skip: int = 16

    def __post_init__(self) -> None:
        """Check the settings."""
        if not 2 <= self.steps <= _PUBLISHED.T:
            raise InputError(f"steps: expected 2 to {_PUBLISHED.T}, got {self.steps}")
        if not 1 <= self.skip < self.steps:
            raise InputError(f"skip: expected 1 to {self.steps - 1}, one below steps, got {self.skip}")

    @property
    def starts(self) -> list[tuple[float, int]]:
        """Noise level sigma of each start and the steps back from it, rising."""
        rising = _PUBLISHED.times(self.steps)[-2::-1]
        return [(math.sqrt(1 - _PUBLISHED.alpha_squared(rising[i])), i + 1) for i in range(1, self.steps, self.skip)]

    def fit(self, learn: Learn) -> "MultiStartScorer":
        """Mean and deviation of the errors from every start.

        Raises:
            InputError: errors that are the same for every image.
        """
        errors = learn.collect(lambda ask: self.errors(ask, learn.seed)[0])
        return MultiStartScorer(self, Standard.of(errors, "errors of reconstruction"), learn.seed)

    def errors(self, ask: Ask, seed: int) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b s *space"]]:
        """Errors of each image from every start, squared ones first, and where the squared ones are."""
        z = signal(ask)
        back = in_groups(ask, len(self.starts), lambda which: self._back(ask, z, which, seed))
        where = torch.cat([error_map("l2", ask.x, version) for version in back], 1)
        errors = where.flatten(2).mean(2)
        if ask.tools.features is None:
            return errors, where
        own = ask.features(ask.x)
        far = [feature_error(own, ask.features(version, every(ask)), tuple(ask.x.shape[2:]))[0] for version in back]
        return torch.cat([errors, torch.stack(far, 1)], 1), where

    def _back(self, ask: Ask, z: Tensor, which: list[int], seed: int) -> Versions:
        """What comes back from some of the starts."""
        schedule = generator_of(ask).schedule
        grids = [start_grid(schedule, *self.starts[i]) for i in which]
        z_t = noised(schedule, z[None], [grid[0] for grid in grids], draws(z, which, seed, 0x35A7))
        return images_of(ask, descend(ask, z_t, grids))


@dataclass(frozen=True)
class MultiStartScorer:
    """The detector, fitted.

    Attributes:
        settings: The detector.
        standard: Scale of the errors of every start, squared ones first.
        seed: Seed of the noise.
    """

    settings: MultiStart
    standard: Standard
    seed: int

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        errors, where = self.settings.errors(ask, self.seed)
        k = where.shape[1]
        z = self.standard(errors).unflatten(1, (-1, k)).mean(2)
        scale = self.standard.deviation[:k].to(where).view(k, *[1] * (where.ndim - 2))
        names = ("squared_error", "feature_distance")
        parts = {name: z[:, i] for i, name in enumerate(names[: z.shape[1]])}
        return Scored(z.sum(1), (where / scale).mean(1, keepdim=True), parts)

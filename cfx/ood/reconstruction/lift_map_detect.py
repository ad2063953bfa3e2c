"""Hide every other block of the image, let the generator paint it, and see how far off it is.

A chequerboard of `blocks` blocks an axis, turned over in every second of `repeats` repetitions, is inpainted: from pure
noise, DDPM steps in the hidden blocks, while the rest of x_s is the image itself, noised to the same level,

    x_s = m (alpha_s x + sigma_s eps) + (1 - m) DDPM(x_t)
    score = median over repetitions of the error of the painted image

The error is the squared one, or the distance in the maps of `features`, where the paper has LPIPS. The map is the
squared error of each voxel, averaged over the repetitions in which it was hidden. The paper's walk has 1000 steps of a
stochastic differential equation, 10^4 evaluations an image, for the same 10 repetitions and 8 blocks; 100 steps are the
default here. Cost: `repeats` x `steps`; of features 1 + `repeats` where they are asked.

Reference: Liu, Zhou, Wang, Weinberger (2023), "Unsupervised out-of-distribution detection with diffusion inpainting".
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool
from torch import Tensor

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.errors import check_features, check_kind, error_map, feature_error
from cfx.ood.standard import check_positive
from cfx.ood.walks import (
    Versions,
    ancestral,
    draws,
    every,
    generator_of,
    images_of,
    in_groups,
    noised,
    signal,
    start_grid,
)

_STREAM = 0x17D0


@dataclass(frozen=True)
class LiftMapDetect:
    """Settings of the detector.

    Attributes:
        repeats: Repetitions.
        steps: Steps of each, or all times of the schedule where it has not as many.
        blocks: Blocks along every axis.
        error: `l2`, or `perceptual` in the maps of `features`.

    Raises:
        InputError: no repetitions or steps, fewer than 2 blocks, or another distance.
    """

    name: ClassVar[str] = "lift-map-detect"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    repeats: int = 10
    steps: int = 100
    blocks: int = 8
    error: str = "l2"

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("repeats", self.repeats)
        check_positive("steps", self.steps)
        check_positive("blocks", self.blocks, 2)
        check_kind(self.error, ("l2", "perceptual"))

    def fit(self, learn: Learn) -> "LiftMapDetectScorer":
        """Itself with the seed: there is nothing to fit.

        Raises:
            InputError: images of fewer voxels along an axis than blocks, or a perceptual distance without features.
        """
        check_features(self.error, learn)
        if min(learn.cohort.space) < self.blocks:
            raise InputError(
                f"blocks: expected at most {min(learn.cohort.space)}, the voxels of an axis, got {self.blocks}"
            )
        return LiftMapDetectScorer(self, learn.seed)


@dataclass(frozen=True)
class LiftMapDetectScorer:
    """The detector and its seed.

    Attributes:
        settings: The detector.
        seed: Seed of the noise.
    """

    settings: LiftMapDetect
    seed: int

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        n, space, z = self.settings.repeats, tuple(ask.x.shape[2:]), signal(ask)
        back = in_groups(ask, n, lambda which: self._painted(ask, z, which))
        where = torch.cat([error_map("l2", ask.x, version) for version in back], 1)
        hidden = torch.stack([~board(space, self.settings.blocks, i) for i in range(n)]).to(where)
        shown = (where * hidden).sum(1, keepdim=True) / hidden.sum(0).clamp_min(1)
        if self.settings.error == "l2":
            return Scored(where.flatten(2).mean(2).quantile(0.5, dim=1), shown)
        own = ask.features(ask.x)
        far = [feature_error(own, ask.features(version, every(ask)), space)[0] for version in back]
        return Scored(torch.stack(far, 1).quantile(0.5, dim=1), shown)

    def _painted(self, ask: Ask, z: Tensor, which: list[int]) -> Versions:
        """The images of some repetitions, their hidden blocks painted."""
        schedule = generator_of(ask).schedule
        known = torch.stack([board(tuple(z.shape[2:]), self.settings.blocks, i) for i in which]).to(z.device)
        known = known[:, None, None]
        grid = start_grid(schedule, 1.0, self.settings.steps)
        x_t = noised(schedule, z[None], [grid[0]] * len(which), draws(z, which, self.seed, _STREAM))
        pure = draws(z, which, self.seed, _STREAM + 1).expand_as(x_t)
        x_t = torch.where(known, x_t, pure)
        for k, (t, s) in enumerate(pairwise(grid), 1):
            eps = [draws(z, which, self.seed, _STREAM + 2 * k + i) for i in (0, 1)]
            rest = noised(schedule, z[None], [s] * len(which), eps[0])
            x_t = torch.where(known, rest, ancestral(ask, x_t, t, s, eps[1]))
        return images_of(ask, x_t)


def board(space: tuple[int, ...], blocks: int, turn: int) -> Bool[Tensor, "*space"]:
    """A chequerboard of so many blocks an axis: True where the image is known; every second turn is turned over."""
    sides = [torch.arange(n) * blocks // n for n in space]
    total = torch.stack(torch.meshgrid(*sides, indexing="ij")).sum(0)
    return (total + turn) % 2 == 0

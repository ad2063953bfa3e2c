"""How much a projection to the images of training changes the image, less how much it changes a projected one.

    P_t(x): x noised to t and denoised in a few DDIM steps
    score = E d(x, P_a(x)) - E d(P_b(x), P_a(P_b(x)))

The second term is the price of the projection for an image with the same background that is in distribution, and takes
away what the first owes to the background. d is the squared error, or the distance in the maps of `features`, where the
paper has LPIPS. The paper projects in one step with a consistency model, 40 and 10 times, and picks a and b with
rotated images for outliers; here the user's diffusion model takes `steps` steps and the levels are settings. They are
high: the projection has to be able to leave what is not in distribution. The map is that of the difference, of squared
errors. Cost: 3 x `draws` x `steps`; of features, where they are asked, 1 + 3 x `draws`.

Reference: Choi, Lee, Lee, Lee (2023), "Projection regret: reducing background bias for novelty detection via diffusion
models".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.errors import check_features, check_kind, error_map, feature_error
from cfx.ood.standard import check_positive
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

_STREAM = 0x9E60


@dataclass(frozen=True)
class ProjectionRegret:
    """Settings of the detector.

    Attributes:
        sigma_a: Noise level of the projection whose change is measured.
        sigma_b: Noise level of the projection that is taken for a background in distribution.
        steps: Steps of a projection, or all times of the schedule below the level where it has not as many.
        draws: Draws of each expectation.
        error: `l2`, or `perceptual` in the maps of `features`.

    Raises:
        InputError: a noise level outside (0, 1), no steps or draws, or another distance.
    """

    name: ClassVar[str] = "projection-regret"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    sigma_a: float = 0.9
    sigma_b: float = 0.95
    steps: int = 5
    draws: int = 10
    error: str = "l2"

    def __post_init__(self) -> None:
        """Check the settings."""
        for what in ("sigma_a", "sigma_b"):
            if not 0 < getattr(self, what) < 1:
                raise InputError(f"{what}: expected a noise level in (0, 1), got {getattr(self, what)}")
        check_positive("steps", self.steps)
        check_positive("draws", self.draws)
        check_kind(self.error, ("l2", "perceptual"))

    def fit(self, learn: Learn) -> "ProjectionRegretScorer":
        """Itself with the seed: there is nothing to fit.

        Raises:
            InputError: a perceptual distance without features.
        """
        check_features(self.error, learn)
        return ProjectionRegretScorer(self, learn.seed)


@dataclass(frozen=True)
class ProjectionRegretScorer:
    """The detector and its seed.

    Attributes:
        settings: The detector.
        seed: Seed of the noise.
    """

    settings: ProjectionRegret
    seed: int

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        z = signal(ask)[None]
        ways = in_groups(ask, self.settings.draws, lambda which: self._ways(ask, z, which))
        once, twice = self._change(ask, ask.x[None], ways[:, 0]), self._change(ask, ways[:, 1], ways[:, 2])
        where = (_squared(ask.x[None], ways[:, 0]) - _squared(ways[:, 1], ways[:, 2])).mean(0)
        return Scored(once - twice, where, {"once": once, "twice": twice})

    def _ways(self, ask: Ask, z: Tensor, which: list[int]) -> Float[Tensor, "k way b c *space"]:
        """P_a(x), P_b(x) and P_a(P_b(x)) of some draws."""
        own = self.settings
        once, base = self._projected(ask, z, own.sigma_a, which, 0), self._projected(ask, z, own.sigma_b, which, 1)
        twice = self._projected(ask, base, own.sigma_a, which, 2)
        return torch.stack([images_of(ask, way) for way in (once, base, twice)], 1)

    def _projected(
        self, ask: Ask, z: Float[Tensor, "#k b c *space"], sigma: float, which: list[int], stream: int
    ) -> Versions:
        """Versions noised to a level and brought back."""
        schedule = generator_of(ask).schedule
        grid = start_grid(schedule, sigma, self.settings.steps)
        eps = draws(z[0], which, self.seed, _STREAM + stream)
        return descend(ask, noised(schedule, z, [grid[0]] * len(which), eps), [grid] * len(which))

    def _change(self, ask: Ask, a: Float[Tensor, "#k b c *space"], b: Versions) -> Float[Tensor, " b"]:
        """Mean distance over the draws."""
        if self.settings.error == "l2":
            return _squared(a, b).mean(0).flatten(1).mean(1)
        seen = [[ask.features(v, every(ask)) for v in versions] for versions in (a, b)]
        pairs = zip(seen[0] * (len(b) // len(a)), seen[1], strict=True)
        return torch.stack([feature_error(u, v, tuple(ask.x.shape[2:]))[0] for u, v in pairs]).mean(0)


def _squared(a: Float[Tensor, "#k b c *space"], b: Versions) -> Float[Tensor, "k b 1 *space"]:
    """Squared errors of versions."""
    return torch.stack([error_map("l2", u, v) for u, v in zip(a.expand_as(b), b, strict=True)])

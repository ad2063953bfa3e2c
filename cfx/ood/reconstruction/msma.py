"""Norms of the score at many noise levels, and how unusual they are together.

    v_k = log ||sigma_k s(alpha_k x, sigma_k)|| = log ||eps_k||,    eps_k what the generator sees of noise in the image

at K levels, for the image as it is: no noise is added. score = squared Mahalanobis distance of v to the images it is
fitted to: the negative log density of a normal distribution but for a constant. Of the densities of the paper (mixtures
of normals, flows, nearest neighbours) one component is what some hundred images allow; the logarithm takes the place of
more. The levels are the published geometric ones, sigma of the noise over the image from .01 to 1 for images in [0, 1],
which is rho = .02 to 2 in [-1, 1], sigma = rho / (1 + rho^2)^(1/2); levels that fall on one time of a schedule are
asked once. Cost: K, 10 by default, in one batch.

Reference: Mahmood, Oliva, Styner (2021), "Multiscale score matching for out-of-distribution detection".
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.standard import Density, check_positive
from cfx.ood.walks import every, generator_of, in_groups, noised, signal, times_of


@dataclass(frozen=True)
class Msma:
    """Settings of the detector.

    Attributes:
        levels: Number of noise levels, evenly spaced in the logarithm of rho.
        lowest: Lowest rho, noise over image.
        highest: Highest rho.

    Raises:
        InputError: fewer than 3 levels, or not 0 < lowest < highest.
    """

    name: ClassVar[str] = "msma"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    levels: int = 10
    lowest: float = 0.02
    highest: float = 2.0

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("levels", self.levels, 3)
        if not 0 < self.lowest < self.highest < math.inf:
            raise InputError(f"lowest, highest: expected 0 < lowest < highest, got {self.lowest} and {self.highest}")

    @property
    def sigmas(self) -> list[float]:
        """The noise levels, rising."""
        ends = (math.log(self.lowest), math.log(self.highest))
        rho = torch.linspace(*ends, self.levels, dtype=torch.float64).exp()
        return (rho / (1 + rho**2).sqrt()).tolist()

    def fit(self, learn: Learn) -> "MsmaScorer":
        """The density of the norms.

        Raises:
            InputError: a schedule with too few levels, or norms that are the same for every image.
        """
        return MsmaScorer(self, Density.of(learn.collect(self.norms), "norms of scores"))

    def norms(self, ask: Ask) -> Float[Tensor, "b k"]:
        """Logarithms of the norms at every level."""
        z, times = signal(ask), times_of(generator_of(ask).schedule, self.sigmas)
        return in_groups(ask, len(times), lambda which: _logs(ask, z, [times[i] for i in which])).T


def _logs(ask: Ask, z: Float[Tensor, "b c *space"], times: list[int]) -> Float[Tensor, "k b"]:
    """Logarithms of the norms at some times."""
    none = torch.zeros_like(z[:1])[None].expand(len(times), 1, *z.shape[1:])
    x_t = noised(generator_of(ask).schedule, z[None], times, none)
    t = torch.tensor(times, device=z.device).repeat_interleave(len(ask))
    eps = ask.posterior(x_t.flatten(0, 1), t, every(ask, len(times))).eps
    return eps.flatten(1).square().sum(1).clamp_min(1e-30).log().view(len(times), -1) / 2


@dataclass(frozen=True)
class MsmaScorer:
    """The detector, fitted.

    Attributes:
        settings: The detector.
        density: Density of the logarithms.
    """

    settings: Msma
    density: Density

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        return Scored(self.density.distance2(self.settings.norms(ask)))

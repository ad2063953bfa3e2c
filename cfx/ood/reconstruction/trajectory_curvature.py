"""How sharply the way of an image to noise bends, from five evaluations.

With the directions eps_k of the path (`trajectory`) at `steps` noise levels,

    c_k = log mean (eps_(k+1) - eps_k)^2            curvature of the path between two levels, but for a constant
    score = squared Mahalanobis distance of (c_1 .. c_(steps - 1)) to the images it is fitted to

The paper finds that the curvature of five steps of the forward trajectory, told by the Stein score -eps / sigma,
separates images. Of it only the abstract could be had: the levels, the vector of logarithms and its density are this
file's reading of it, two-sided as a path may be too straight as well. The map is the sum of the squared changes over
its mean of each step over the fitted images. Cost: `steps`.

Reference: Abdi, Caetano, Valiuddin, Viviers, Joudeh, van der Sommen (2025), "Out-of-distribution detection in medical
imaging via diffusion trajectories" (SBDDM), arXiv 2507.23411.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.errors import on_grid
from cfx.ood.reconstruction.trajectory import directions, even_levels
from cfx.ood.standard import Density, check_positive
from cfx.ood.walks import generator_of, times_of


@dataclass(frozen=True)
class TrajectoryCurvature:
    """Settings of the detector.

    Attributes:
        steps: Evaluations along the path.

    Raises:
        InputError: fewer than 3 steps.
    """

    name: ClassVar[str] = "trajectory-curvature"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    steps: int = 5

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("steps", self.steps, 3)

    def fit(self, learn: Learn) -> "TrajectoryCurvatureScorer":
        """The density of the curvatures.

        Raises:
            InputError: a schedule with too few levels, or curvatures that are the same for every image.
        """
        curvature = learn.collect(lambda ask: bends(ask, self.steps).flatten(2).mean(2))
        density = Density.of(curvature.clamp_min(1e-30).log(), "curvatures of trajectories")
        return TrajectoryCurvatureScorer(self, density, curvature.mean(0))


def bends(ask: Ask, steps: int) -> Float[Tensor, "b k *space"]:
    """Squared change of direction between levels, averaged over channels."""
    levels = even_levels(steps)
    eps = directions(ask, times_of(generator_of(ask).schedule, levels, least=len(levels)))
    return eps.diff(dim=1).square().mean(2)


@dataclass(frozen=True)
class TrajectoryCurvatureScorer:
    """The detector, fitted.

    Attributes:
        settings: The detector.
        density: Density of the logarithms.
        mean: Mean curvature of every step.
    """

    settings: TrajectoryCurvature
    density: Density
    mean: Float[Tensor, " k"]

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        where = bends(ask, self.settings.steps)
        curvature = where.flatten(2).mean(2)
        scaled = torch.einsum("bk...,k->b...", where, 1 / self.mean.to(where).clamp_min(1e-30))[:, None]
        score = self.density.distance2(curvature.clamp_min(1e-30).log())
        return Scored(score, on_grid(scaled, tuple(ask.x.shape[2:])))

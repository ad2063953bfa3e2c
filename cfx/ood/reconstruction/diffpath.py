"""Six statistics of the way of an image to noise, and how unusual they are together.

With the directions eps_k of the path (`trajectory`) at K noise levels and their rates of change d_k = K (eps_(k+1) -
eps_k),

    v = sums over k and voxels of  eps, eps^2, eps^3, d, d^2, d^3         (as means, which is the same)
    score = -log p(v),    p a kernel density of the images it is fitted to (`kernel`)

The published density is a mixture of 50 or 100 normals, fitted to the whole training set; a kernel at each fitted image
is what stays of it for some hundred. The levels are K even times of a cosine schedule, from the image itself to sigma =
.99. Cost: K, 10 by default.

Reference: Heng, Thiery, Soh (2024), "Out-of-distribution detection with a single unconditional diffusion model"
(DiffPath-6D).
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.kernel import Kernel
from cfx.ood.reconstruction.trajectory import directions, even_levels
from cfx.ood.standard import check_positive
from cfx.ood.walks import generator_of, times_of


@dataclass(frozen=True)
class DiffPath:
    """Settings of the detector.

    Attributes:
        steps: Evaluations along the path.

    Raises:
        InputError: fewer than 3 steps.
    """

    name: ClassVar[str] = "diffpath"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    steps: int = 10

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("steps", self.steps, 3)

    def fit(self, learn: Learn) -> "DiffPathScorer":
        """The density of the statistics.

        Raises:
            InputError: a schedule with too few levels, or statistics that are the same for every image.
        """
        return DiffPathScorer(self, Kernel.of(learn.collect(self.statistics), "statistics of diffusion paths"))

    def statistics(self, ask: Ask) -> Float[Tensor, "b six"]:
        """The statistics of each image."""
        levels = even_levels(self.steps)
        eps = directions(ask, times_of(generator_of(ask).schedule, levels, least=len(levels)))
        rate = self.steps * eps.diff(dim=1)
        return torch.stack([v.flatten(1).pow(p).mean(1) for v in (eps, rate) for p in (1, 2, 3)], 1)


@dataclass(frozen=True)
class DiffPathScorer:
    """The detector, fitted.

    Attributes:
        settings: The detector.
        density: Density of the statistics.
    """

    settings: DiffPath
    density: Kernel

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        return Scored(self.density.surprise(self.settings.statistics(ask)))

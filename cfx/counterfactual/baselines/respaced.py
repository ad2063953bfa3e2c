"""The respaced reverse diffusion under guidance that DiME, FastDiME, MaskDiME and DVCE share.

From a noise level, `steps` evenly spaced times tau > ... > 0 are walked with DDPM steps whose mean is moved against a
loss,

    z_s = mu(z_t, x0) - Sigma_t g + Sigma_t^(1/2) eps,

where Sigma_t is the posterior variance of step t -> s. That of the last step, which is 0, is replaced in front of g by
that of the step before, as guided-diffusion clips it; no noise is added there. The published generators learn Sigma;
the ones here do not have to.

Where to start is said as a noise level sigma, not as a number of steps: "60 of 200" was published for a linear schedule
of 500 steps, where it is sigma = 0.774; of a cosine schedule's 200 steps the last 60 begin at 0.457, and a start at
the wrong level leaves the method a fraction of its guidance (the sum of Sigma_t over the walk). tau is the time at
which the generator's own schedule has that sigma, and the number of steps walked is the published one.

References: Ho, Jain, Abbeel (2020); Nichol and Dhariwal (2021), "Improved DDPM", for respacing; Dhariwal and Nichol
(2021), "Diffusion models beat GANs", for guidance.
"""

from collections.abc import Callable, Sequence
from itertools import count, pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.random import normal
from cfx.core.solvers import ancestral_mean, ancestral_std
from cfx.counterfactual.method import Attempts, Problem, Proposal

Attempt = Callable[[Tensor, float], Tensor]
"""`attempt(rows, scale)`: one image for each of these rows, at this classifier scale."""


class Reverse:
    """The steps of one problem's reverse diffusion.

    Every draw of noise takes the rows' next stream. All rows still in play have drawn equally often, so the noise of a
    row does not depend on the batch.

    Args:
        problem: Images and generator.
        start_sigma: Noise level to start from.
        steps: Number of steps to walk.

    Attributes:
        times: The grid, `steps` + 1 times from tau to 0.

    Raises:
        InputError: no such noise level, or fewer times than `steps` below it.
    """

    def __init__(self, problem: Problem, start_sigma: float, steps: int) -> None:
        """See the class."""
        self.problem, self.schedule = problem, problem.diffusion.schedule
        self.times = self.schedule.times(steps, start=self.schedule.time_of(start_sigma))
        self._std = [ancestral_std(self.schedule, t, s) for t, s in pairwise(self.times)]
        self._variance = [std**2 for std in [*self._std[:-1], *self._std[-2:-1]]] or [0.0]
        self._stream = count()

    def __len__(self) -> int:
        """Number of steps."""
        return len(self.times) - 1

    def _noise(self, rows: Tensor) -> Tensor:
        p = self.problem
        return normal(p.x.shape[1:], seed=p.seed, row=p.row[rows], stream=next(self._stream)).to(p.x)

    def noised(self, rows: Int[Tensor, " r"], i: int) -> Float[Tensor, "r c *space"]:
        """A fresh draw of the images at `times[i]`; the images themselves at time 0."""
        x, t = self.problem.x[rows], self.times[i]
        return self.schedule.noised(x, t, self._noise(rows)) if t else x

    def estimate(self, rows: Int[Tensor, " r"], z: Float[Tensor, "r c *space"], i: int) -> Float[Tensor, "r c *space"]:
        """The one-step estimate of the clean image at `times[i]` (Tweedie), clipped to the range of images."""
        return self.problem.posterior(rows, z, self.times[i]).mean.clamp(-1, 1)

    def mean(
        self,
        x0: Float[Tensor, "r c *space"],
        z: Float[Tensor, "r c *space"],
        i: int,
        g: Float[Tensor, "r c *space"] | float = 0.0,
    ) -> Float[Tensor, "r c *space"]:
        """Where a step from `times[i]` to the next leads, given the estimate x0 and the gradient g of the loss."""
        return ancestral_mean(self.schedule, x0, z, *self.times[i : i + 2]) - self._variance[i] * g

    def step(
        self,
        rows: Int[Tensor, " r"],
        x0: Float[Tensor, "r c *space"],
        z: Float[Tensor, "r c *space"],
        i: int,
        g: Float[Tensor, "r c *space"] | float = 0.0,
    ) -> Float[Tensor, "r c *space"]:
        """That step with its noise."""
        mean = self.mean(x0, z, i, g)
        return mean + self._std[i] * self._noise(rows) if self.times[i + 1] else mean


@torch.no_grad()
def ladder(problem: Problem, scales: Sequence[float], attempt: Attempt) -> Proposal:
    """Try the scales in order on the rows that have not reached their margin."""
    attempts = Attempts(problem)
    for scale in scales:
        rows = attempts.unsolved
        if len(rows) == 0:
            break
        attempts.add(rows, attempt(rows, scale), scale)
    return attempts.proposal()


def dilate(values: Float[Tensor, "b 1 *space"], width: int) -> Float[Tensor, "b 1 *space"]:
    """Largest value within a cube of odd `width` around every voxel."""
    pool = F.max_pool2d if values.ndim == 4 else F.max_pool3d
    return pool(values, kernel_size=width, stride=1, padding=width // 2)


def strongest(values: Float[Tensor, "b 1 *space"], share: float) -> Bool[Tensor, "b 1 *space"]:
    """The given share of every row's voxels (at least one) with the largest values; never a voxel whose value is 0.

    Rows with NaN are all true, so that what is pasted there stays NaN and is noticed.
    """
    flat = values.flatten(1)
    kept = max(1, round(share * flat.shape[1]))
    least = flat.kthvalue(flat.shape[1] - kept + 1, dim=1, keepdim=True).values
    return (~((flat < least) | (flat <= 0))).view_as(values)

"""ACE: an adversarial attack on the classifier behind a diffusion filter, refined inside the voxels that it changed.

F_tau(x') noises x' to a low level tau and brings it back in a few DDPM steps, which removes what is not natural; the
attack is on f(F_tau(x')), with back-propagation through the generator:

    x' <- clip(x' - step sign(grad_x' (-log p(target | F_tau(x')) + l |x - x'|_1))),      always all iterations.

Its result, the pre-explanation, is trusted only about where to change: inside the mask
dilate(|x - x'| / max |x - x'|) > threshold the filter is run once more on it, with q(x_t | x) outside at every step
(RePaint), and x itself is pasted outside the mask. Without any change the mask is empty and x comes back.

Step and distance are in units of [0, 1] images in the paper, here in those of [-1, 1]. The noise of F_tau is drawn anew
at every iteration: an attack on one draw alone finds what that draw does not remove. tau is a noise level: for CelebA
sigma = 0.273 (the last 5 of 50 respaced steps of a linear schedule of 500), for CelebA-HQ 0.506 (5 of 25). 50
iterations of 5 steps cost 255 generator evaluations and 250 back-propagations.

To use it on other data, the first author advises the largest tau at which f(F_tau(x)) is still f(x), then a search of
the distance's weight in powers of ten. (Their program averages the class term over a batch but sums the distance, so
its weight grows with the batch; here both are of one image.)

References: Jeanneret, Simon, Jurie (CVPR 2023), "Adversarial counterfactual visual explanations",
https://github.com/guillaumejs2403/ACE (issue 2 for other data); Lugmayr et al. (2022), "RePaint".
"""

import math
from dataclasses import dataclass, replace
from itertools import count, pairwise
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.solvers import ddpm_step
from cfx.counterfactual.baselines.attack import signs
from cfx.counterfactual.baselines.respaced import dilate
from cfx.counterfactual.method import Attempts, Problem, Proposal


@dataclass(frozen=True)
class Ace:
    """Settings of ACE, as published for CelebA.

    Attributes:
        iterations: Iterations of the attack.
        step: Change of every voxel in one of them (range [-1, 1]).
        distance: Weight of the sum of absolute differences to x, in units of [-1, 1] images (half the published 1e-3).
        start_sigma: Noise level tau of the filter.
        steps: Steps of the filter.
        threshold: Changes above this share of the largest one are inside the mask.
        dilation: Width of the dilation as a share of the image's shortest side (15 of 128 voxels); at least 3 voxels.
    """

    name: ClassVar[str] = "ace"
    iterations: int = 50
    step: float = 2 / 255
    distance: float = 5e-4
    start_sigma: float = 0.273
    steps: int = 5
    threshold: float = 0.15
    dilation: float = 15 / 128

    @torch.no_grad()
    def propose(self, problem: Problem) -> Proposal:
        """The refined images; the strength is the mean absolute change of the pre-explanation.

        Raises:
            InputError: no diffusion model, one without a gradient, or with fewer noise levels than `steps` up to tau.
        """
        filtered = Filter(problem, self.start_sigma, self.steps)
        edited = self._attack(problem, filtered)
        inside = self._mask(problem.x, edited)
        attempts = Attempts(problem)
        size = (edited - problem.x).abs().flatten(1).mean(1)
        attempts.add(problem.everyone, torch.where(inside, filtered(edited, inside), problem.x), size)
        return attempts.proposal()

    def _attack(self, problem: Problem, filtered: "Filter") -> Tensor:
        """The pre-explanation."""
        x = problem.x
        here = x.clone()
        for _ in range(self.iterations):
            g = self.distance * (here - x).sign() - filtered.log_gradient(here)
            here = problem.restrict(problem.everyone, (here - self.step * signs(g)).clamp(-1, 1))
        return here

    def _mask(self, x: Float[Tensor, "b c *space"], edited: Float[Tensor, "b c *space"]) -> Bool[Tensor, "b 1 *space"]:
        """Where a change is large against the row's largest, dilated; everywhere in rows with NaN, to be noticed."""
        change = (edited - x).abs().sum(1, keepdim=True)
        width = max(3, 2 * math.floor(self.dilation * min(x.shape[2:]) / 2) + 1)
        return ~(dilate(change, width) <= self.threshold * each(change.flatten(1).amax(1), change))


class Filter:
    """F_tau for all rows of a problem, with new noise at every call.

    Args:
        problem: Images and generator.
        start_sigma: Noise level tau.
        steps: Steps from tau to 0.
    """

    def __init__(self, problem: Problem, start_sigma: float, steps: int) -> None:
        """See the class."""
        self.problem, self.schedule = problem, problem.diffusion.schedule
        self.times = self.schedule.times(steps, start=self.schedule.time_of(start_sigma))
        self._calls = count()

    def _draw(self, call: int, k: int) -> Tensor:
        p = self.problem
        return normal(p.x.shape[1:], seed=p.seed, row=p.row, stream=2 * len(self.times) * call + k).to(p.x)

    def __call__(
        self, image: Float[Tensor, "b c *space"], inside: Bool[Tensor, "b 1 *space"] | None = None
    ) -> Float[Tensor, "b c *space"]:
        """F_tau(image); with a mask, the problem's own images are what is denoised outside it."""
        call = next(self._calls)
        x_t = self.schedule.noised(image, self.times[0], self._draw(call, 0))
        for k, (t, s) in enumerate(pairwise(self.times)):
            if inside is not None:
                x_t = torch.where(inside, x_t, self.schedule.noised(self.problem.x, t, self._draw(call, 2 * k)))
            q = self.problem.posterior(self.problem.everyone, x_t, t)
            if x_t.requires_grad and not q.mean.requires_grad:
                raise InputError("generator: expected a posterior with a gradient to its image, got a detached one")
            x_t = ddpm_step(self.schedule, replace(q, mean=q.mean.clamp(-1, 1)), t, s, self._draw(call, 2 * k + 1))
        return x_t

    def log_gradient(self, image: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
        """Gradient of log p(target | F_tau(image)) with respect to the image, through the generator."""
        with torch.enable_grad():
            image = image.detach().requires_grad_(True)
            clean = self(image)
        slope = self.problem.log_gradient(self.problem.everyone, clean)
        for _ in self.times[1:]:
            self.problem.meter.count("unet_backward", self.problem.everyone)
        (g,) = torch.autograd.grad(clean, image, slope)
        return g

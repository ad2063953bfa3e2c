"""Guided DDIM: carry the image to x_tau by the deterministic sampler run backwards, and bring it back under guidance.

Forward, without a label, x_t -> x_(t+1) by DDIM. Back from tau with the one-step estimate x0 moved to

    x0(null) + s (x0(target) - x0(null))                  generator with the classifier's labels (classifier-free),
    x0 + s sigma_t^2 / alpha_t grad log p(target | x0)    any other: eps - s sigma_t grad log p,

where x0 is then scaled back into the range of images by its quantile (dynamic normalisation). The gradient is that of
the classifier being explained, at the one-step estimate, and not of a classifier trained on noise, which a user does
not have; there is no back-propagation through the generator. tau is where sigma = 0.998, the level of 0.75 T of the
authors' linear schedule of 1000. Scales s are tried in order from the same x_tau.
With labels one scale costs 2 generator evaluations a step, else one and a classifier gradient; 75 + 150 in all for
the first scale with labels.

References: Song, Meng, Ermon (2021), DDIM; Sanchez, Kascenas, Liu, O'Neil, Tsaftaris (2022), "What is healthy?
Generative counterfactual diffusion for lesion localization", for labels; Wolleb, Bieder, Sandkuehler, Cattin (2022),
"Diffusion models for medical anomaly detection", for the gradient (s = 100 there).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.denoiser import Posterior
from cfx.core.solvers import ddim_step
from cfx.counterfactual.baselines.respaced import ladder
from cfx.counterfactual.method import Problem, Proposal


@dataclass(frozen=True)
class DdimGuidance:
    """Settings of the method; those for labels are as published for brain tumours.

    Attributes:
        start_sigma: Noise level tau.
        steps: Steps from 0 to tau, and as many back.
        scales: Scales s of generators with labels, tried in order on rows that have not reached the margin.
        classifier_scales: Scales s of the classifier's gradient, likewise.
        quantile: Share of voxels of x0 that must lie in the range of images before scaling.
    """

    name: ClassVar[str] = "ddim-guidance"
    start_sigma: float = 0.998
    steps: int = 75
    scales: tuple[float, ...] = (3.0, 6.0, 12.0)
    classifier_scales: tuple[float, ...] = (3.0, 10.0, 30.0, 100.0)
    quantile: float = 0.99

    @torch.no_grad()
    def propose(self, problem: Problem) -> Proposal:
        """The images of the first scale that convinces.

        Raises:
            InputError: no diffusion model, or one with fewer noise levels than `steps` up to tau.
        """
        schedule = problem.diffusion.schedule
        times = schedule.times(self.steps, start=schedule.time_of(self.start_sigma))
        x_tau = self._invert(problem, times)
        scales = self.scales if problem.labelled else self.classifier_scales
        return ladder(problem, scales, lambda rows, scale: self._decode(problem, times, rows, x_tau[rows], scale))

    def _invert(self, problem: Problem, times: Sequence[int]) -> Tensor:
        """The noise that made the images, at tau."""
        x_t = problem.x
        for s, t in pairwise(reversed(times)):
            q = problem.posterior(problem.everyone, x_t, max(s, 1))
            x_t = ddim_step(problem.diffusion.schedule, q, s, t)
        return x_t

    def _decode(self, problem: Problem, times: Sequence[int], rows: Tensor, x_t: Tensor, scale: float) -> Tensor:
        for t, s in pairwise(times):
            q = self._guided(problem, rows, x_t, t, scale)
            q = replace(q, mean=normalised(q.mean, self.quantile))
            x_t = ddim_step(problem.diffusion.schedule, q, t, s)
        return x_t

    def _guided(self, problem: Problem, rows: Tensor, x_t: Tensor, t: int, scale: float) -> Posterior:
        q = problem.posterior(rows, x_t, t)
        if problem.labelled:
            d = problem.posterior(rows, x_t, t, problem.target[rows]).mean - q.mean
        else:
            d = q.sigma**2 / q.alpha * problem.log_gradient(rows, q.mean.clamp(-1, 1))
        return replace(q, mean=q.mean + scale * d)


def normalised(x0: Float[Tensor, "b c *space"], quantile: float) -> Float[Tensor, "b c *space"]:
    """Every row clipped to its quantile of absolute values and divided by it, where that is above 1."""
    size = x0.abs().flatten(1)
    # kthvalue: torch.quantile refuses more than 2^24 values
    rank = max(1, math.ceil(quantile * size.shape[1]))
    limit = each(size.kthvalue(rank, dim=1).values.clamp_min(1), x0)
    return x0.clamp(-limit, limit) / limit

"""One step: the generator's conditional difference at one noise level, added to the image.

    d = D(x_tau, tau, target) - D(x_tau, tau, source),      x_tau = alpha_tau x + sigma_tau eps,
    x_cf = paste(x + s d),

with the first of the strengths s that convinces. No replay: two generator evaluations an image, whatever the strength,
and one classifier evaluation a strength. Changes below an absolute threshold are not made (`shrink.paste`), so the
image stays itself outside them. It asks what a trajectory adds to the difference that `minimal` begins with; edits from
one evaluation of a flow model are published for detection (REFLECT) and, with a mask, for explanation (FiRe).

References: Beizaee, Lodygensky, Desrosiers, Dolz (MICCAI 2025), "REFLECT: Rectified flows for efficient brain anomaly
correction transport"; Ho and Salimans (2022), "Classifier-free diffusion guidance", for the difference.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.counterfactual.method import Attempts, Problem, Proposal
from cfx.counterfactual.shrink import pasted


@dataclass(frozen=True)
class OneStep:
    """Settings of the method.

    Attributes:
        start_sigma: Noise level tau.
        strengths: Strengths s, tried in order on rows that have not reached the margin.
        draws: Draws of eps that the difference is averaged over; each costs two evaluations.
        threshold: Changes below this absolute value (range [-1, 1]) are not made.
    """

    name: ClassVar[str] = "one-step"
    start_sigma: float = 0.9
    strengths: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0)
    draws: int = 1
    threshold: float = 0.03

    @torch.no_grad()
    def propose(self, problem: Problem) -> Proposal:
        """The images of the first strength that convinces.

        Raises:
            InputError: no diffusion model with the classifier's classes.
        """
        schedule, rows = problem.diffusion.schedule, problem.everyone
        if not problem.labelled:
            raise InputError("generator: one-step expected one whose class labels are the classifier's classes")
        t, d = schedule.time_of(self.start_sigma), torch.zeros_like(problem.x)
        for k in range(self.draws):
            eps = normal(problem.x.shape[1:], seed=problem.seed, row=problem.row, stream=k).to(problem.x)
            x_t = schedule.noised(problem.x, t, eps)
            there, here = (problem.posterior(rows, x_t, t, label).mean for label in (problem.target, problem.source))
            d += (there - here) / self.draws
        attempts = Attempts(problem)
        for s in self.strengths:
            rows = attempts.unsolved
            if len(rows) == 0:
                break
            attempts.add(rows, pasted(problem, rows, problem.x[rows] + s * d[rows], self.threshold), s)
        return attempts.proposal()

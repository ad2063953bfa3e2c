"""Latent shift: move an autoencoder's code along the classifier's gradient and decode it.

    x_cf = D(z + lambda dy/dz),      z = mean of E(x),      y = margin(f)(D(z)).

lambda grows in steps, each a tenth longer than the one before, until the margin is reached, the margin falls, or the
image is no longer the one that it was: |D(z + lambda dy/dz) - D(z)|_1 > 0.05 |D(z)|_1 ends the row. The shift is along
the gradient at z only, so one back-propagation through the decoder is all it takes; every other step is one decoder
pass and one classifier evaluation. As published, the reconstruction is what changes: x_cf also carries the
reconstruction error, and is compared with x all the same. Lengths are in units of the latent's entries (root mean
square of the shift); the authors' step is in units of the raw gradient, which no two classifiers share.

Reference: Cohen, Brooks, En, Zucker, Pareek, Lungren, Chaudhari (MIDL 2021), "Gifsplanation via latent shift"; growth
and bound as in the authors' program, https://github.com/ieee8023/latentshift.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.core.broadcast import unit
from cfx.core.errors import InputError
from cfx.counterfactual.method import Attempts, Problem, Proposal


@dataclass(frozen=True)
class LatentShift:
    """Settings of the method.

    Attributes:
        step: Length of the first step, and by how much the length grows at least.
        growth: Share of its length by which it grows besides.
        steps: Most steps of a row.
        bound: Sum of absolute changes of the reconstruction, relative to its own, that ends a row.
    """

    name: ClassVar[str] = "latent-shift"
    step: float = 0.1
    growth: float = 0.1
    steps: int = 40
    bound: float = 0.05

    @torch.no_grad()
    def propose(self, problem: Problem) -> Proposal:
        """The reconstruction where it convinces already, else the first image on the way that does.

        Raises:
            InputError: no autoencoder, or a decoder without a gradient.
        """
        problem.meter.count("unet_forward", problem.everyone)
        z = problem.vae.encode(problem.x)[0]
        reconstruction, direction = _slope(problem, z)
        attempts = Attempts(problem)
        last = attempts.add(problem.everyone, reconstruction, 0.0)
        room = self.bound * reconstruction.abs().flatten(1).sum(1)
        rows, length = attempts.unsolved, 0.0
        for _ in range(self.steps):
            if len(rows) == 0:
                break
            length = (1 + self.growth) * length + self.step
            image, before = _decode(problem, rows, z[rows] + length * direction[rows]), last[rows]
            last[rows] = after = attempts.add(rows, image, length)
            attempts.smaller[rows[after >= 0]] = (before + problem.margin[rows])[after >= 0]
            near = (image - reconstruction[rows]).abs().flatten(1).sum(1) <= room[rows]
            rows = rows[near & (after > before) & (after < 0)]
        return attempts.proposal()


def _decode(problem: Problem, rows: Tensor, z: Tensor) -> Tensor:
    problem.meter.count("unet_forward", rows)
    return problem.vae.decode(z)


def _slope(problem: Problem, z: Tensor) -> tuple[Tensor, Tensor]:
    """The reconstruction, and dy/dz of root mean square 1."""
    with torch.enable_grad():
        z = z.detach().requires_grad_(True)
        image = problem.restrict(problem.everyone, _decode(problem, problem.everyone, z))
    if not image.requires_grad:
        raise InputError("generator: expected a decoder with a gradient to its latent, got a detached image")
    problem.meter.count("unet_backward", problem.everyone)
    (g,) = torch.autograd.grad(image, z, problem.gradient(problem.everyone, image))
    return image.detach(), unit(g)

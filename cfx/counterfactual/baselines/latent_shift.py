"""Latent shift: move an autoencoder's code along the classifier's gradient and decode it.

    x_cf = D(z + lambda dy/dz),      z = mean of E(x),      y = margin(f)(D(z)),

with the least lambda that reaches the margin, found by a search for every row. The shift is along the gradient at z
only, so one back-propagation through the decoder is all it takes; every other trial is one decoder pass and one
classifier evaluation. As published, the reconstruction is what changes: x_cf also carries the reconstruction error,
and is compared with x all the same. Lengths are in units of the latent's entries (root mean square of the shift).

Reference: Cohen, Brooks, En, Zucker, Pareek, Lungren, Chaudhari (MIDL 2021), "Gifsplanation via latent shift".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.core.broadcast import each, unit
from cfx.core.errors import InputError
from cfx.counterfactual.method import Attempts, Problem, Proposal
from cfx.counterfactual.search import least_strength


@dataclass(frozen=True)
class LatentShift:
    """Settings of the method.

    Attributes:
        first: Length of the first shift tried; it is doubled until one reaches the margin.
        trials: Most shifts tried for a row.
        tolerance: A margin this far above the one asked for is near enough.
    """

    name: ClassVar[str] = "latent-shift"
    first: float = 0.1
    trials: int = 12
    tolerance: float = 0.1

    @torch.no_grad()
    def propose(self, problem: Problem) -> Proposal:
        """The reconstruction where it convinces already, else the image of the least shift that does.

        Raises:
            InputError: no autoencoder, or a decoder without a gradient.
        """
        problem.meter.count("unet_forward", problem.everyone)
        z = problem.vae.encode(problem.x)[0]
        reconstruction, direction = _slope(problem, z)
        attempts = Attempts(problem)
        attempts.add(problem.everyone, reconstruction, 0.0)
        rows = attempts.unsolved

        def trial(r: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            at = rows[r]
            shifted = z[at] + each(s * self.first, z) * direction[at]
            image = problem.restrict(at, _decode(problem, at, shifted).clamp(-1, 1))
            return image, problem.excess(at, image)

        found = least_strength(
            trial, attempts.image[rows], attempts.excess[rows], trials=self.trials, tolerance=self.tolerance
        )
        attempts.image[rows], attempts.excess[rows] = found.image, found.excess
        attempts.strength[rows], attempts.finite[rows] = found.strength * self.first, found.finite
        attempts.smaller[rows] = found.failed + problem.margin[rows]
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

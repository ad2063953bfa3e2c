"""The `morph` method: a morphological counterfactual x_cf = x o exp(s v) + s r, a small deformation plus a residual.

Atrophy moves tissue; written as a difference of pixels it is never small. The guided replay of `minimal` at w = 1 says
what the target class would look like (the generator is the judge of that), a stationary velocity field v is fitted that
carries x there, and what no deformation explains is the residual r:

    v = argmin sum (x o exp(K v) - e)^2 + stiffness sum |D K v|^2,        r = e - x o exp(K v)

with e the replayed image and K Gaussian smoothing. The strength s is searched with the classifier alone: the path s v
is a geodesic of deformations, so half a strength is half the atrophy, not a double exposure.

Reference: Arsigny et al. (2006) for exp(v); the decomposition is ours.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core import geometry
from cfx.core.broadcast import each
from cfx.counterfactual.guidance import Guidance, Guided
from cfx.counterfactual.method import Problem, Proposal
from cfx.counterfactual.search import least_strength
from cfx.counterfactual.shrink import pasted, settled


@dataclass(frozen=True)
class Morph:
    """Settings of the method.

    Attributes:
        smoothness: Standard deviation of K in voxels.
        stiffness: Weight of the elastic term, against squared image units.
        iterations: Steps of the fit (Adam).
        rate: Its step size in voxels.
        trials: Most strengths tried for a row.
        tolerance: A margin this far above the one asked for is near enough.
        threshold: Changes below this absolute value (range [-1, 1]) are not made.
        guide: The replay that says where to go.
    """

    name: ClassVar[str] = "morph"

    smoothness: float = 1.5
    stiffness: float = 0.02
    iterations: int = 30
    rate: float = 0.2
    trials: int = 8
    tolerance: float = 0.3
    threshold: float = 0.03
    guide: Guidance = field(default_factory=Guidance)

    def null(self, problem: Problem) -> Float[Tensor, "b c *space"]:
        """The image under the deformation of strength 0, nothing pasted."""
        x = problem.x
        return geometry.warp(x, geometry.exponential(x.new_zeros(len(x), x.ndim - 2, *x.shape[2:])))

    def propose(self, problem: Problem) -> Proposal:
        """Deform and correct every image as little as convinces the classifier."""
        everyone = problem.everyone
        guided = Guided.of(self.guide, problem)
        e = guided.edit(everyone, torch.ones(len(problem), device=problem.x.device))
        finite = e.isfinite().flatten(1).all(1)
        e = torch.where(each(finite, e), e, problem.x).clamp(-1, 1)
        v, r = self.decompose(problem.x, e)

        def trial(rows: Int[Tensor, " r"], s: Float[Tensor, " r"]) -> tuple[Tensor, Tensor]:
            x = problem.x[rows]
            edited = geometry.warp(x, geometry.exponential(each(s, x) * v[rows])) + each(s, x) * r[rows]
            return edited, problem.attempt(rows, pasted(problem, rows, edited, self.threshold))

        whole = problem.goal.whole and problem.labelled
        found = least_strength(
            trial, problem.x, problem.before - problem.margin, trials=self.trials, tolerance=self.tolerance,
            first=1.0, least=1.0 if whole else 0.0,
        )  # fmt: skip
        image, smaller = settled(problem, found, self.threshold)
        return Proposal(image, found.strength, found.finite & finite, smaller, guided.asked)

    def decompose(
        self, x: Float[Tensor, "b c *space"], e: Float[Tensor, "b c *space"]
    ) -> tuple[Float[Tensor, "b d *space"], Float[Tensor, "b c *space"]]:
        """Velocity and residual that together carry x to e: x o exp(v) + r = e.

        Args:
            x: Images.
            e: Where to carry them.

        Returns:
            Velocities in voxels and residuals in image units.
        """
        u = torch.zeros(len(x), x.ndim - 2, *x.shape[2:], device=x.device, requires_grad=True)
        # eps: where images agree the gradient is rounding noise, which Adam would otherwise blow up to a full step
        adam = torch.optim.Adam([u], lr=self.rate, eps=1e-3)
        with torch.enable_grad():
            for _ in range(self.iterations):
                v = geometry.smooth(u, self.smoothness)
                miss = (geometry.warp(x, geometry.exponential(v)) - e).square().sum()
                bend = sum(v.diff(dim=k).square().sum() for k in range(2, v.ndim))
                (u.grad,) = torch.autograd.grad(miss + self.stiffness * bend, u)
                adam.step()
        v = geometry.smooth(u.detach(), self.smoothness)
        return v, e - geometry.warp(x, geometry.exponential(v))

"""An additive map, sparse and smooth: gradient descent on what is added to the image, without a generator.

    min_a  max(0, margin - margin(f)(x + a)) + lambda (|a|_1 + v TV(a)),      TV(a) = sum sqrt((D a)^2 + e^2) - e,

by Adam from a = 0, every weight lambda of a decreasing ladder in turn until one reaches the margin. D are the
differences to the next voxel along each axis; |a|_1 and TV are divided by the number of voxels and channels, so that
lambda does not depend on the size of the image. Of all iterates the cheapest one that reaches the margin is kept.
A step costs one classifier evaluation, and a gradient (with its evaluation) while the margin is not reached.

References: Wachter, Mittelstadt, Russell (2017), "Counterfactual explanations without opening the black box", for the
loss and its ladder; Dhurandhar et al. (2018), "Explanations based on the missing", for the hinge and |a|_1;
Fong and Vedaldi (2017), "Interpretable explanations of black boxes by meaningful perturbation", for TV.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.broadcast import each
from cfx.counterfactual.method import Attempts, Problem, Proposal

_CORNER = 1e-3  # e, where |D a| is rounded off


@dataclass(frozen=True)
class AdditiveMap:
    """Settings of the map.

    Attributes:
        weights: Weights lambda, tried in order on rows that have not reached the margin.
        variation: Weight v of the total variation beside |a|_1.
        steps: Steps of Adam for each weight.
        rate: Its learning rate, in image units (range [-1, 1]).
    """

    name: ClassVar[str] = "additive-map"
    weights: tuple[float, ...] = (100.0, 30.0, 10.0, 3.0, 1.0)
    variation: float = 1.0
    steps: int = 100
    rate: float = 0.01

    @torch.no_grad()
    def propose(self, problem: Problem) -> Proposal:
        """The images of the first weight that convinces; the strength is 1 / lambda."""
        attempts = Attempts(problem)
        for weight in self.weights:
            rows = attempts.unsolved
            if len(rows) == 0:
                break
            attempts.add(rows, self._descend(problem, rows, weight), 1 / weight)
        return attempts.proposal()

    def _descend(self, problem: Problem, rows: Tensor, weight: float) -> Tensor:
        """The cheapest iterate of every row that reaches the margin, else the closest; NaN where a row broke."""
        x, excess = problem.x[rows], (problem.before - problem.margin)[rows]
        a = torch.zeros_like(x)
        adam = torch.optim.Adam([a], lr=self.rate)
        image, best, cost = x.clone(), excess.clone(), torch.full_like(excess, torch.inf)
        for _ in range(self.steps):
            g = weight * self._penalty_gradient(a)
            below = (excess < 0).nonzero().flatten()
            if len(below):
                g[below] -= problem.gradient(rows[below], (x + a)[below])
            a.grad = g
            adam.step()
            a.copy_(problem.restrict(rows, (x + a).clamp(-1, 1)) - x)
            alive = excess.isfinite().nonzero().flatten()  # a margin of NaN stays NaN: its row has left
            if len(alive) == 0:
                break
            excess[alive] = problem.attempt(rows[alive], (x + a)[alive])
            penalty = self._penalty(a)
            better = torch.where(excess >= 0, penalty < cost, (excess > best) & (best < 0))
            image = torch.where(each(better, x), x + a, image)
            best, cost = torch.where(better, excess, best), torch.where(better & (excess >= 0), penalty, cost)
        return image.masked_fill(each(excess.isnan(), x), torch.nan)

    def _penalty_gradient(self, a: Tensor) -> Tensor:
        with torch.enable_grad():
            leaf = a.detach().requires_grad_(True)
            (g,) = torch.autograd.grad(self._penalty(leaf).sum(), leaf)
        return g

    def _penalty(self, a: Tensor) -> Float[Tensor, " b"]:
        """|a|_1 + v TV(a) of every row, over its number of values."""
        total = a.abs().flatten(1).sum(1)
        for axis in range(2, a.ndim):
            d = a.diff(dim=axis)
            total = total + self.variation * ((d.square() + _CORNER**2).sqrt() - _CORNER).flatten(1).sum(1)
        return total / a[0].numel()

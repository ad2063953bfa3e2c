"""The `minimal` method: replay the image's own noise under guidance, at the least strength that convinces f.

    x_cf = paste(x, replay of x at strength w),    w = least with margin(f, x_cf) >= the one asked for

Guidance (`cfx.counterfactual.guidance`) says where a replay of strength w leads; at w = 0 it returns x. Changes below
an absolute threshold are shrunk to exactly zero (`paste`), so x stays bit for bit outside the mask. The least w is
searched (`cfx.counterfactual.search`).

Depth `boundary` takes the least w, then shrinks the edit (`cfx.counterfactual.shrink`) and leaves a certified local
minimum. Depth `typical` wants a whole change: w = 1, the generator's own version of the target class, or more, until f
is as sure as of real images; what misses that by a hair is touched up (`cfx.counterfactual.touch_up`).
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.broadcast import each
from cfx.counterfactual.guidance import Guidance, Guided
from cfx.counterfactual.method import Problem, Proposal
from cfx.counterfactual.search import least_strength
from cfx.counterfactual.shrink import pasted, settled
from cfx.counterfactual.touch_up import touch_up


@dataclass(frozen=True)
class Minimal(Guidance):
    """Settings of the method beside those of the guided replay; the defaults are meant to be left alone.

    Attributes:
        trials: Most strengths tried for a row.
        tolerance: A margin this far above the one asked for is near enough.
        resolution: So near to the least strength, relative to it, ends the search.
        threshold: Changes below this absolute value (range [-1, 1]) are not made.
    """

    name: ClassVar[str] = "minimal"

    trials: int = 4
    tolerance: float = 0.3
    resolution: float = 0.1
    threshold: float = 0.03

    def propose(self, problem: Problem) -> Proposal:
        """The edit of least strength for every row; at depth `boundary` shrunk to a certified local minimum."""
        guided = Guided.of(self, problem)
        whole = problem.goal.whole and problem.labelled
        found = least_strength(
            partial(self.trial, guided), problem.x, problem.before - problem.margin,
            trials=self.trials, tolerance=self.tolerance, resolution=self.resolution,
            first=1.0 if problem.goal.whole else 0.5, least=1.0 if whole else 0.0, judge=partial(self.excess, problem),
        )  # fmt: skip
        image, smaller = settled(problem, found, self.threshold)
        return Proposal(image, found.strength, found.finite, smaller, guided.asked)

    def trial(
        self, guided: Guided, rows: Int[Tensor, " r"], w: Float[Tensor, " r"]
    ) -> tuple[Float[Tensor, "r c *space"], Float[Tensor, " r"]]:
        """The images of these rows replayed at strengths `w`, before pasting, and the `excess` of each."""
        problem, judge = guided.problem, partial(self.excess, guided.problem)
        edited, x = guided.edit(rows, w), problem.x[rows]
        finite = edited.isfinite().flatten(1).all(1)
        edited = torch.where(each(finite, x), edited, x)
        excess = judge(rows, edited)
        if problem.goal.whole and problem.labelled:
            edited, excess = touch_up(
                rows, x, edited, excess, judge=judge, tolerance=self.tolerance,
                gradient=lambda k, image: guided.averaged(problem.gradient, image, 0, k),
            )  # fmt: skip
        return edited, excess.where(finite, torch.nan)

    def excess(
        self, problem: Problem, rows: Int[Tensor, " r"], edited: Float[Tensor, "r c *space"]
    ) -> Float[Tensor, " r"]:
        """By how much edited images, once pasted, exceed the margin."""
        return problem.attempt(rows, pasted(problem, rows, edited, self.threshold))

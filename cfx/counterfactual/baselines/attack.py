"""The naive gradient baseline: projected gradient ascent in pixels, without a generator.

    x_(k+1) = clip(x_k + step sign(grad_x margin(f)(x_k))),      x_0 = x,

until the margin asked for is reached; a row stops at its first success. For two classes the sign of the margin's
gradient is that of log p(target). There is no ball to project on but the range of images: k steps change no voxel by
more than k `step`. What comes out is an adversarial example, the thing that an explanation must not be.
Each step costs two classifier evaluations and one gradient.

References: Goodfellow, Shlens, Szegedy (2015), "Explaining and harnessing adversarial examples"; Madry et al. (2018),
"Towards deep learning models resistant to adversarial attacks".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.counterfactual.method import Attempts, Problem, Proposal


@dataclass(frozen=True)
class GradientAttack:
    """Settings of the attack.

    Attributes:
        step: Change of every voxel in one step (range [-1, 1]).
        steps: Most steps of a row.
    """

    name: ClassVar[str] = "gradient-attack"
    step: float = 2 / 255
    steps: int = 100

    @torch.no_grad()
    def propose(self, problem: Problem) -> Proposal:
        """The first image on every row's path that reaches its margin."""
        attempts, here = Attempts(problem), problem.x.clone()
        for k in range(1, self.steps + 1):
            rows = attempts.unsolved
            if len(rows) == 0:
                break
            g = problem.gradient(rows, here[rows])
            here[rows] = problem.restrict(rows, (here[rows] + self.step * signs(g)).clamp(-1, 1))
            attempts.add(rows, here[rows], k * self.step)
        return attempts.proposal()


def signs(g: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
    """Sign of every entry; NaN stays NaN, where `torch.sign` says 0 and would hide it."""
    return g.sign().where(~g.isnan(), g)

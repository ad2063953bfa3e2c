"""DiME: guided diffusion whose loss is taken at a fully denoised image of every step.

From z_tau = q(x), at every one of the 60 steps walked from sigma_tau = 0.774, with x_t the clean image of z_t (x itself
at the first step, afterwards z_t carried to time 0 by the unguided sampler),

    g = (1 / alpha_t) lc grad_x L(x_t) + ll grad_z |z_t - x|_1,      z_(t-1) ~ N(mu(z_t) - Sigma_t g, Sigma_t).

L is minus the margin of the target: for two classes exactly minus its logit, as the authors' command line asks for
(`use_logits`). The scales lc are tried in order from the same z_tau. One scale costs
60 + 60 * 59 / 2 = 1830 generator evaluations, 60 classifier gradients and one classifier evaluation. The start is the
level of the last 60 of 200 respaced steps of the authors' linear schedule of 500 (`respaced`).

Left out: the perceptual (VGG-19) term, whose ImageNet features do not exist for medical images and volumes.

Reference: Jeanneret, Simon, Jurie (ACCV 2022), "Diffusion models for counterfactual explanations".
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from cfx.counterfactual.baselines.respaced import Reverse, ladder
from cfx.counterfactual.method import Problem, Proposal


@dataclass(frozen=True)
class Dime:
    """Settings of DiME, as published for CelebA.

    Attributes:
        scales: Classifier scales lc, tried in order on rows that have not reached the margin.
        l1: Weight ll of the distance to the image.
        start_sigma: Noise level tau to start from.
        steps: Number of steps walked.
    """

    name: ClassVar[str] = "dime"
    scales: tuple[float, ...] = (8.0, 10.0, 15.0)
    l1: float = 0.05
    start_sigma: float = 0.774
    steps: int = 60

    def propose(self, problem: Problem) -> Proposal:
        """The images of the first scale that convinces.

        Raises:
            InputError: no diffusion model, or one with fewer times than `steps` below the start.
        """
        reverse = Reverse(problem, self.start_sigma, self.steps)
        start = reverse.noised(problem.everyone, 0)
        return ladder(problem, self.scales, lambda rows, scale: self._walk(reverse, rows, start[rows], scale))

    def _walk(self, reverse: Reverse, rows: Tensor, z: Tensor, scale: float) -> Tensor:
        problem = reverse.problem
        x = clean = problem.x[rows]
        for i in range(len(reverse)):
            alpha = reverse.schedule.alpha(reverse.times[i], x)
            g = self.l1 * (z - x).sign() - scale / alpha * problem.gradient(rows, clean)
            z = reverse.step(rows, reverse.estimate(rows, z, i), z, i, g)
            clean = z
            for j in range(i + 1, len(reverse)):
                clean = reverse.step(rows, reverse.estimate(rows, clean, j), clean, j)
        return z

"""MaskDiME: one-step guidance that acts only where the classifier's gradient is strongest.

From z_tau = q(x), with x_t = x at the first step, and G = |grad_x L(x_t)| averaged over channels,

    M_z = dilate(top k of G),      M_x = dilate(top rho k of G),      k, rho k: shares of the voxels,
    g = (s / alpha_t) lc grad_x L(x_t) + ll grad_z |z_t - x|_1,
    z_(t-1) = M_z (mu(z_t) - Sigma_t g + Sigma_t^(1/2) eps) + (1 - M_z) q(x, t-1),
    x_(t-1) = M_x x0_t + (1 - M_x) x,      x0_t the one-step estimate at z_t,

and the result is M_x z_0 + (1 - M_x) x with the last M_x. L is minus the margin of the target, as in `dime`; s makes up
for the weakness of one-step gradients and is to be tuned to the data (6.5 to 14 in the paper). A voxel whose gradient
is 0 is in a mask only by dilation. One scale costs tau = 60 generator evaluations, tau classifier gradients and one
classifier evaluation.

The authors' program is not public; where the description is open, the reading here is DiME's: s multiplies the
classifier's gradient only, and the first x_t is x. Left out: the perceptual (VGG-19) term, whose ImageNet features do
not exist for medical images and volumes.

Reference: Guo, Christensen, Dahl, Hannemose (CVPR 2026), "MaskDiME: Adaptive masked diffusion for precise and efficient
visual counterfactual explanations", arXiv 2602.18792.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.counterfactual.baselines.respaced import Reverse, dilate, ladder, strongest
from cfx.counterfactual.method import Problem, Proposal


@dataclass(frozen=True)
class MaskDime:
    """Settings of MaskDiME, as published for CelebA.

    Attributes:
        scales: Classifier scales lc, tried in order on rows that have not reached the margin.
        boost: Factor s on the classifier's gradient.
        l1: Weight ll of the distance to the image.
        steps: Number of steps the generator's diffusion is respaced to.
        depth: Number tau of steps walked, the last of these.
        share: Share k of the voxels that guidance acts on, before dilation.
        ratio: rho, the part of that share which is pasted into the image.
        width: Width of the dilation, odd.
    """

    name: ClassVar[str] = "maskdime"
    scales: tuple[float, ...] = (8.0, 10.0, 15.0)
    boost: float = 8.0
    l1: float = 0.05
    steps: int = 200
    depth: int = 60
    share: float = 0.1
    ratio: float = 0.5
    width: int = 5

    def propose(self, problem: Problem) -> Proposal:
        """The images of the first scale that convinces.

        Raises:
            InputError: no diffusion model, or one with fewer noise levels than `steps`.
        """
        reverse = Reverse(problem, self.steps, self.depth)
        start = reverse.noised(problem.everyone, 0)
        return ladder(problem, self.scales, lambda rows, scale: self._walk(reverse, rows, start[rows], scale))

    def _walk(self, reverse: Reverse, rows: Tensor, z: Tensor, scale: float) -> Tensor:
        problem = reverse.problem
        x = clean = problem.x[rows]
        inner = torch.ones_like(x[:, :1], dtype=torch.bool)
        for i in range(len(reverse)):
            slope = problem.gradient(rows, clean)
            outer, inner = self._mask(slope, self.share), self._mask(slope, self.ratio * self.share)
            alpha = reverse.schedule.alpha(reverse.times[i], x)
            g = self.l1 * (z - x).sign() - self.boost * scale / alpha * slope
            x0 = reverse.estimate(rows, z, i)
            z = torch.where(outer, reverse.step(rows, x0, z, i, g), reverse.noised(rows, i + 1))
            clean = torch.where(inner, x0, x)
        return torch.where(inner, z, x)

    def _mask(self, slope: Tensor, share: float) -> Tensor:
        """Where the gradient is strongest, dilated."""
        strong = strongest(slope.abs().mean(1, keepdim=True), share)
        return dilate(strong.to(slope), self.width) > 0

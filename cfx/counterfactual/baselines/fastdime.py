"""FastDiME: DiME with one-step estimates instead of nested denoising, and a mask found on the way.

From z_tau = q(x), sigma_tau = 0.774, with x_t the one-step estimate of the step before (x itself at the first step),

    g = lc grad_x L(x_t) + ll grad_z |z_t - x|_1,      z_(t-1) ~ N(mu(z_t) - Sigma_t g, Sigma_t),
    m = dilate(|x0_t - x|) > threshold max |x0_t - x|                                     (after the warm-up),
    x_(t-1) = m x0_t + (1 - m) x,      z_(t-1) <- m z_(t-1) + (1 - m) q(x, t),

and the result is z_0 inside the last m and x outside. L is minus the margin of the target: for two classes exactly
minus its logit, and g has no 1 / alpha_t, both as the authors' script runs it; so is the noise of t, not t - 1, outside
m. A row that has not changed at all has an empty mask. One pass costs 60 generator evaluations and 60 classifier
gradients; a scale costs one classifier evaluation more. The start is that of `dime`.

`fastdime-2` runs every scale twice: first without a mask, then from the same z_tau with the mask of that first result
at every step.

For medical images the authors have another program (`medical`): L is -log p(target), the second term acts on the
estimate, g = s (grad L(x0_t) + ll grad |x0_t - x|_1), both at this step's estimate. Its settings are one scale s = 100,
sigma_tau = 0.897 (400 of 1000 steps), 400 steps with a mask in the last 200, ll = 200 / number of values, and a
dilation of 21 voxels at 224.

Left out: the perceptual (VGG-19) term, whose ImageNet features do not exist for medical images and volumes.

Reference: Weng, Pegios, Petersen, Feragen, Bigdeli (ECCV 2024), "Fast diffusion-based counterfactuals for shortcut
removal and generation", https://github.com/ppegiosk/FastDiME_CelebA and https://github.com/nina-weng/FastDiME_Med.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.errors import InputError
from cfx.counterfactual.baselines.respaced import Reverse, dilate, ladder
from cfx.counterfactual.method import Problem, Proposal


@dataclass(frozen=True)
class FastDime:
    """Settings of FastDiME, as published for CelebA.

    Attributes:
        scales: Classifier scales lc, tried in order on rows that have not reached the margin.
        l1: Weight ll of the distance to the image.
        start_sigma: Noise level tau to start from.
        steps: Number of steps walked.
        warmup: Steps before the first mask, where it is found on the way.
        threshold: Share of the largest change above which a voxel is in the mask.
        width: Width of the dilation, odd.
        passes: 1 finds the mask on the way; 2 takes the mask of a first pass without one, and so on.
        medical: Descend the loss of the authors' program for medical images.

    Raises:
        InputError: passes below 1.
    """

    name: ClassVar[str] = "fastdime"
    scales: tuple[float, ...] = (8.0, 10.0, 15.0)
    l1: float = 0.05
    start_sigma: float = 0.774
    steps: int = 60
    warmup: int = 30
    threshold: float = 0.15
    width: int = 5
    passes: int = 1
    medical: bool = False

    def __post_init__(self) -> None:
        """Check the number of passes."""
        if self.passes < 1:
            raise InputError(f"passes: expected at least 1, got {self.passes}")

    def propose(self, problem: Problem) -> Proposal:
        """The images of the first scale that convinces.

        Raises:
            InputError: no diffusion model, or one with fewer times than `steps` below the start.
        """
        reverse = Reverse(problem, self.start_sigma, self.steps)
        start = reverse.noised(problem.everyone, 0)

        def attempt(rows: Tensor, scale: float) -> Tensor:
            warmup = self.warmup if self.passes == 1 else self.steps
            image = self._walk(reverse, rows, start[rows], scale, warmup, None)
            for _ in range(self.passes - 1):
                mask = self._changed(problem.x[rows], image)
                image = self._walk(reverse, rows, start[rows], scale, self.steps, mask)
            return image

        return ladder(problem, self.scales, attempt)

    def _walk(
        self, reverse: Reverse, rows: Tensor, z: Tensor, scale: float, warmup: int, mask: Tensor | None
    ) -> Tensor:
        """One pass; from step `warmup` on the mask is found anew at every step."""
        problem = reverse.problem
        x = clean = problem.x[rows]
        for i in range(len(reverse)):
            x0 = reverse.estimate(rows, z, i)
            if self.medical:
                g = scale * (self.l1 * (x0 - x).sign() - problem.log_gradient(rows, x0))
            else:
                g = self.l1 * (z - x).sign() - scale * problem.gradient(rows, clean)
            z, clean = reverse.step(rows, x0, z, i, g), x0
            if i >= warmup:
                mask = self._changed(x, clean)
            if mask is not None:
                clean = torch.where(mask, clean, x)
                z = torch.where(mask, z, reverse.noised(rows, i))
        return z if mask is None else torch.where(mask, z, x)

    def _changed(self, x: Tensor, edited: Tensor) -> Tensor:
        """Where the change is large; all true where it is NaN, so that NaN stays and is noticed."""
        size = (edited - x).abs().sum(1, keepdim=True)
        largest = each(size.flatten(1).amax(1), x)
        return ~(dilate(size, self.width) <= self.threshold * largest)


@dataclass(frozen=True)
class FastDime2(FastDime):
    """Settings of FastDiME-2: two passes, the second with the fixed mask of the first."""

    name: ClassVar[str] = "fastdime-2"
    passes: int = 2

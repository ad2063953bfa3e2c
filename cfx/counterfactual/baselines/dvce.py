"""DVCE: guided diffusion whose two gradients go back through the generator and are as long as its noise estimate.

From z = q(x, tau), sigma_tau = 0.960, at each of 100 steps with x0 = D(z, t), eps its noise,

    g_class = grad_z mean_a log p(target | a(x0)),      g_dist = grad_z |x0 - x|_1,
    g = lc |eps| g_class / |g_class| - ld |eps| g_dist / |g_dist|,      z_s ~ N(mu(z) + Sigma_t g, Sigma_t),

where a runs over `copies` of x0, the first as it is and the others shifted at random. If a robust classifier is given,
g_class is projected onto the cone around that one's gradient: inside it stays, outside it becomes the direction on the
cone's surface that is nearest in angle.

The authors' program evaluates the generator twice a step, once to sample and once to guide, with the same input; here
one evaluation serves both. One lc costs 100 generator evaluations, 200 back-propagations (300 with a robust
classifier), `copies` classifier gradients a step (twice that with a robust classifier) and one classifier evaluation.
The start is the level of the last 100 of 200 respaced steps of their linear schedule of 1000. The ladder of lc is an
addition: the paper has lc = 0.1 only.

The published augmentations (affine and perspective) exist for 2D images; shifting is the part of them that images and
volumes share.

Reference: Augustin, Boreiko, Croce, Hein (NeurIPS 2022), "Diffusion visual counterfactual explanations".
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.broadcast import each, rms, unit
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.counterfactual.baselines.respaced import Reverse, ladder
from cfx.counterfactual.method import Problem, Proposal
from cfx.models.judge import Judge


@dataclass(frozen=True)
class Dvce:
    """Settings of DVCE, as published for ImageNet.

    Attributes:
        scales: Classifier scales lc, tried in order on rows that have not reached the margin.
        distance: Weight ld of the distance to the image.
        start_sigma: Noise level tau to start from.
        steps: Number of steps walked.
        copies: Copies of the estimate that the class gradient is averaged over.
        shift: Largest shift of a copy, as a share of the side.
        robust: Classifier with the classes of the one explained, in whose gradient's cone the class gradient must
            lie; None for no projection.
        cone: Half the opening angle of that cone, degrees.
    """

    name: ClassVar[str] = "dvce"
    scales: tuple[float, ...] = (0.1, 0.2, 0.4)
    distance: float = 0.15
    start_sigma: float = 0.960
    steps: int = 100
    copies: int = 16
    shift: float = 0.1
    robust: nn.Module | None = None
    cone: float = 30.0

    def propose(self, problem: Problem) -> Proposal:
        """The images of the first scale that convinces.

        Raises:
            InputError: no diffusion model, one with fewer times than `steps` below the start, or one whose posterior
                has no gradient.
        """
        reverse = Reverse(problem, self.start_sigma, self.steps)
        start = reverse.noised(problem.everyone, 0)
        return ladder(problem, self.scales, lambda rows, scale: self._walk(reverse, rows, start[rows], scale))

    def _walk(self, reverse: Reverse, rows: Tensor, z: Tensor, scale: float) -> Tensor:
        for i in range(len(reverse)):
            x0, g = self._guidance(reverse, rows, z, i, scale)
            z = reverse.step(rows, x0, z, i, -g)
        return z

    def _guidance(self, reverse: Reverse, rows: Tensor, z: Tensor, i: int, scale: float) -> tuple[Tensor, Tensor]:
        """The estimate of the clean image at `times[i]`, and the direction to move in."""
        problem, t = reverse.problem, reverse.times[i]
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            q = problem.posterior(rows, z, t)
            if not q.mean.requires_grad:
                raise InputError("generator: expected a posterior with a gradient to its image, got a detached one")
            shifts = self._shifts(problem, rows, t)
            copies = shifted(q.mean, shifts).clamp(-1, 1)
        every = rows.repeat_interleave(self.copies)

        def back(at: Tensor, slope: Tensor) -> Tensor:
            problem.meter.count("unet_backward", rows)
            (g,) = torch.autograd.grad(at, z, slope, retain_graph=True)
            return g

        g_class = back(copies, problem.log_gradient(every, copies) / self.copies)
        if self.robust is not None:
            g_class = onto_cone(g_class, back(copies, self._robust_slope(problem, every, copies)), self.cone)
        g_distance = back(q.mean, (q.mean.detach() - problem.x[rows]).sign())
        g = each(rms(q.eps.detach()), z) * (scale * unit(g_class) - self.distance * unit(g_distance))
        return q.mean.detach(), g

    def _shifts(self, problem: Problem, rows: Tensor, t: int) -> Tensor:
        """Voxels to shift every copy by, `(copies, r, axes)`; the first copies are not shifted."""
        space = problem.x.shape[2:]
        u = uniform((self.copies, len(space)), seed=problem.seed, row=problem.row[rows], stream=t)
        far = torch.tensor([math.floor(self.shift * n) for n in space], device=u.device)
        shifts = ((2 * far + 1) * u).long() - far
        shifts[:, 0] = 0
        return shifts

    def _robust_slope(self, problem: Problem, every: Tensor, copies: Tensor) -> Tensor:
        """The robust classifier's gradient at the copies, counted as one of the classifier's."""
        assert self.robust is not None
        problem.meter.count("classifier", every)
        problem.meter.count("classifier_backward", every)
        judge = Judge(self.robust, "robust")
        with judge.at_rest():
            return judge.log_gradient(copies, problem.target[every])


def shifted(x: Float[Tensor, "b c *space"], shifts: Int[Tensor, "b k axes"]) -> Float[Tensor, "bk c *space"]:
    """Several copies of every image, each moved by its own whole numbers of voxels; the border is repeated."""
    k = shifts.shape[1]
    out, moves = x.repeat_interleave(k, dim=0), shifts.flatten(0, 1)
    for axis, n in enumerate(x.shape[2:]):
        index = (torch.arange(n, device=x.device) - moves[:, axis : axis + 1]).clamp(0, n - 1)
        ones = [1] * (x.ndim - 2)
        ones[axis] = n
        out = out.gather(2 + axis, index.view(-1, 1, *ones).expand_as(out))
    return out


def onto_cone(
    g: Float[Tensor, "b c *space"], around: Float[Tensor, "b c *space"], degrees: float
) -> Float[Tensor, "b c *space"]:
    """Every row of g if it is within `degrees` of that of `around`, else the direction at that angle nearest to it."""
    axis, tilt = unit(around), math.radians(degrees)
    along = each((unit(g) * axis).flatten(1).mean(1), g)
    edge = math.cos(tilt) * axis + math.sin(tilt) * unit(unit(g) - along * axis)
    return torch.where(along >= math.cos(tilt), g, edge)

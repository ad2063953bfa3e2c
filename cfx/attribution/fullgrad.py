"""FullGrad: the output divided among the image and the biases of all layers, each where it is.

    f(x) = x grad f(x) + sum_b (grad of b) b

Biases are those of affine operations and the implicit ones of activations, phi(z) - phi'(z) z. What every bias adds is
summed over its channels and spread over the voxels under its cell, so that the map sums to f(x); what has no place (the
bias of the last layer) is spread over all of them. The paper's picture takes absolute values before it is spread, which
gives up the sum.

Reference: Srinivas and Fleuret (2019), "Full-gradient representation for neural network visualization".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cfx.attribution.method import Family, Found, Question, Whole
from cfx.attribution.override import Override, Plain
from cfx.core.broadcast import each

_POOL = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


@dataclass(frozen=True)
class FullGrad:
    """x grad f(x) and the biases; one channel."""

    name: ClassVar[str] = "fullgrad"
    whole: ClassVar[Whole] = "value"
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        total = torch.zeros_like(question.x[:, :1])

        def told(part: Tensor) -> None:
            total.add_(spread(part, question.space))

        with torch.enable_grad():
            x = question.x.detach().clone().requires_grad_(True)
            with Override(Plain(), told, implicit=True) as mode:
                out = question.traced(x, torch.arange(len(x), device=x.device))
            (g,) = torch.autograd.grad(out, x)
        foreign = tuple(sorted(name for name in mode.foreign if not name.endswith("_norm")))
        return Found(total + (question.x * g).sum(1, keepdim=True), foreign=foreign)


def spread(part: Float[Tensor, "b ..."], space: tuple[int, ...]) -> Float[Tensor, "b 1 *space"]:
    """A map of the layer `(b, c, *coarse)` over the voxels under its cells, of the same sum; anything else over all."""
    if part.ndim != 2 + len(space):
        share = part.flatten(1).sum(1) / torch.Size(space).numel()
        return each(share, part.new_empty((1, 1, *space))).expand(-1, 1, *space)
    cells = part.sum(1, keepdim=True)
    with torch.enable_grad():  # the adjoint of the mean over the voxels of a cell
        zero = torch.zeros(len(cells), 1, *space, dtype=cells.dtype, device=cells.device, requires_grad=True)
        mean = _POOL[len(space)](zero, tuple(cells.shape[2:]))  # type: ignore[arg-type]  # one side an axis
        (found,) = torch.autograd.grad(mean, zero, cells)
    return found

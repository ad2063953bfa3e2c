"""DeepLIFT with the rescale rule: gradients in which every activation has its slope between image and baseline.

    A = (x - b) g,    sum A = f(x) - f(b)

where g is the gradient of the network whose activations have the slope (phi(z) - phi(z')) / (z - z'), and whose
maxima hand their change to one number (`cfx.attribution.override`). Exact for networks of affine operations,
activations of one number, and maxima; normalisation by an image's own statistics, attention and products have no rule,
which the verdict says. One evaluation of image and baseline side by side, and one gradient.

Reference: Shrikumar, Greenside, Kundaje (2017), "Learning important features through propagating activation
differences".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.attribution.method import Family, Found, Question, Whole
from cfx.attribution.override import Override, Secant


@dataclass(frozen=True)
class DeepLift:
    """(x - b) times the gradient of secants."""

    name: ClassVar[str] = "deeplift"
    whole: ClassVar[Whole] = "change"
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        slope, foreign = secants(question, question.x, question.baseline)
        return Found((question.x - question.baseline) * slope, foreign=foreign)


def secants(question: Question, x: Tensor, b: Tensor) -> tuple[Tensor, tuple[str, ...]]:
    """The gradient of secants between images of the first rows and baselines, and operations without a rule."""
    rows = torch.arange(len(x), device=x.device)
    with torch.enable_grad():
        both = torch.cat([x, b]).detach().clone().requires_grad_(True)
        with Override(Secant()) as mode:
            total = question.traced(both, torch.cat([rows, rows]))
        # of both halves, whose slopes are the same; half of a score's sum would cut a maximum of logits differently
        (g,) = torch.autograd.grad(total, both)
    return g[: len(x)], tuple(sorted(mode.foreign))

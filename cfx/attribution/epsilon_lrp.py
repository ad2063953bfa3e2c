"""Epsilon-LRP: the output is handed back layer by layer, to every input in proportion to what it added.

    R_i = sum_j z_ij / (z_j + e sign z_j) R_j,    z_j = sum_i z_ij + b_j

Activations pass relevance on. That is x times a gradient in which an activation has the slope phi(z) / z and every
affine operation is damped by z / (z + e sign z) (`cfx.attribution.override`). What goes to biases is counted:
sum R + bias = f(x). For networks of rectifiers and small e it is input times gradient; there is no rule for
normalisation by an image's own statistics, attention and products.

Reference: Bach, Binder, Montavon, Klauschen, Mueller, Samek (2015), "On pixel-wise explanations for non-linear
classifier decisions by layer-wise relevance propagation".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.attribution.method import Family, Found, Question, Whole
from cfx.attribution.override import Override, Ratio
from cfx.core.errors import InputError


@dataclass(frozen=True)
class EpsilonLrp:
    """x times the gradient of ratios.

    Attributes:
        epsilon: What keeps an affine operation's output from zero, above 0.
    """

    epsilon: float = 1e-9

    name: ClassVar[str] = "epsilon-lrp"
    whole: ClassVar[Whole] = "value"
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch.

        Raises:
            InputError: an epsilon that is not positive.
        """
        if not self.epsilon > 0:
            raise InputError(f"epsilon: expected a positive number, got {self.epsilon}")
        n = len(question)
        bias = torch.zeros(n, device=question.x.device)

        def told(part: Tensor) -> None:
            bias.add_(part.reshape(n, -1).sum(1))

        with torch.enable_grad():
            x = question.x.detach().clone().requires_grad_(True)
            with Override(Ratio(self.epsilon), told) as mode:
                total = question.traced(x, torch.arange(n, device=x.device))
            (g,) = torch.autograd.grad(total, x)
        return Found(question.x * g, bias, tuple(sorted(mode.foreign)))

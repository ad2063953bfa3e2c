"""Attribution-constrained training: on an image of the healthy class nothing may speak for another.

With d(x) the margin of the best other class over the healthy one, and black (-1) what an image is compared with,

    A = (x + 1) grad d(x),    penalty = lambda sum over voxels of max(A, 0)

averaged over rows, zero in rows of other classes. A is input times gradient (`cfx.attribution`, method
`input-x-gradient`, baseline `black`, output `margin`), in logits; it takes a second differentiation a step. What speaks
against disease in a healthy image is left alone, and so is all of a diseased one.

After Wargnier-Dauchelle, Grenier, Durand-Dubief, Cotton, Sdika (2023), "A weakly supervised gradient attribution
constraint for interpretable classification and anomaly detection", who ask for it of gradients of lesions' logit.
"""

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from cfx.core.cohort import Source
from cfx.core.errors import InputError
from cfx.runtime.config import Frozen


class ConstraintConfig(Frozen):
    """No attribution for another class on images of the healthy one."""

    weight: float = Field(default=0.1, gt=0)
    """lambda, weight of the positive attribution in logits, relative to the cross-entropy in nats."""
    healthy: int = Field(default=0, ge=0)
    """The healthy class."""

    def check(self, cohort: Source, multilabel: bool) -> None:
        """Refuse rows that have no such class.

        Raises:
            InputError: labels of several findings, or no row of the healthy class.
        """
        y = cohort.y
        if multilabel or y is None or y.ndim != 1 or not bool((y == self.healthy).any()):
            raise InputError(f"constraint.healthy: expected exclusive classes with rows of class {self.healthy}")


def positive_attribution(
    logits: Float[Tensor, "b k"], x: Float[Tensor, "b c *space"], y: Int[Tensor, " b"], healthy: int
) -> Float[Tensor, " b"]:
    """Sum of the positive attribution for another class than the healthy one, in logits; 0 in rows of other classes.

    Args:
        logits: Of the images, with their graph; one column is that of class 1 over class 0.
        x: The images, which need a gradient.
        y: Their classes.
        healthy: The healthy class.
    """
    every = torch.cat([torch.zeros_like(logits), logits], 1) if logits.shape[1] == 1 else logits
    own = every[:, healthy]
    others = every.masked_fill(torch.arange(every.shape[1], device=x.device) == healthy, -torch.inf)
    (slope,) = torch.autograd.grad((others.amax(1) - own).sum(), x, create_graph=True)
    found: Tensor = ((x.detach() + 1) * slope).clamp_min(0).flatten(1).sum(1)
    return torch.where(y == healthy, found, 0.0)

"""Grad-CAM at any layer: its feature maps, weighted by the mean gradient of each.

    A = relu(sum_k w_k F_k),    w_k = mean over places of df/dF_k

resized to the image linearly. One gradient. Reference: Selvaraju, Cogswell, Das, Vedantam, Parikh, Batra (2017),
"Grad-CAM: visual explanations from deep networks via gradient-based localization".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from cfx.attribution.layer import only, resolved, watched
from cfx.attribution.method import Family, Found, Question, Whole
from cfx.core.errors import InputError

_LINEAR = {2: "bilinear", 3: "trilinear"}


@dataclass(frozen=True)
class GradCam:
    """relu(sum_k w_k F_k).

    Attributes:
        layer: Name of the layer, as `named_modules` gives it; by default the last that returns a map.
        positive: Whether only evidence for the target is kept, as published.
    """

    layer: str = ""
    positive: bool = True

    name: ClassVar[str] = "grad-cam"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch; errors as `coarse`."""
        return Found(resized(self.coarse(question), question.space))

    def coarse(self, question: Question) -> Float[Tensor, "b 1 *coarse"]:
        """The maps at the size of the layer.

        Raises:
            InputError: no such layer, or one that is no map, ran not once, or that the output does not depend on.
        """
        name = resolved(question, self.layer)
        with torch.enable_grad():
            x = question.x.detach().clone().requires_grad_(True)
            with watched(question, name) as seen:
                total = question.traced(x, torch.arange(len(x), device=x.device))
            maps = only(seen, question, name)
            if not maps.requires_grad:
                raise InputError(f"layer: expected one that the output depends on differentiably, got {name}")
            (g,) = torch.autograd.grad(total, maps, allow_unused=True)
        if g is None:
            raise InputError(f"layer: expected one that the output depends on, got {name}")
        found = (g.flatten(2).mean(2).view(*g.shape[:2], *[1] * (g.ndim - 2)) * maps.detach()).sum(1, keepdim=True)
        return found.clamp_min(0) if self.positive else found


def resized(maps: Float[Tensor, "b k *coarse"], space: tuple[int, ...]) -> Float[Tensor, "b k *space"]:
    """Maps at the size of the image, linearly."""
    return F.interpolate(maps, size=space, mode=_LINEAR[len(space)], align_corners=False)

"""Score-CAM: feature maps weighted by the output of the image seen through each of them. No gradient.

    A = relu(sum_k w_k F_k),    w = softmax over k of  f(x m_k + b (1 - m_k)) - f(b)

with m_k the map F_k, resized to the image and scaled to [0, 1]. One evaluation a channel of the layer. Reference: Wang,
Wang, Du, Yang, Zhang, Ding, Mardziel, Hu (2020), "Score-CAM: score-weighted visual explanations for convolutional
neural networks".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.attribution.grad_cam import resized
from cfx.attribution.layer import only, resolved, watched
from cfx.attribution.method import Family, Found, Question, Whole


@dataclass(frozen=True)
class ScoreCam:
    """relu(sum_k w_k F_k).

    Attributes:
        layer: Name of the layer, as `named_modules` gives it; by default the last that returns a map.
    """

    layer: str = ""

    name: ClassVar[str] = "score-cam"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch; errors as `GradCam.coarse`."""
        name = resolved(question, self.layer)
        with watched(question, name) as seen:
            question.value(question.x)
        maps = torch.cat([only([part], question, name) for part in seen])
        outputs = torch.stack([_seen_through(question, channel) for channel in maps.split(1, 1)], 1)
        weight = (outputs - question.at_baseline[:, None]).softmax(1)
        found = (weight.view(*weight.shape, *[1] * (maps.ndim - 2)) * maps).sum(1, keepdim=True)
        return Found(resized(found.clamp_min(0), question.space))


def _seen_through(question: Question, channel: Tensor) -> Tensor:
    """Outputs of the images, with the baseline where a channel is low."""
    mask = resized(channel, question.space)
    flat = mask.flatten(1)
    low, high = (v.view(-1, *[1] * (mask.ndim - 1)) for v in (flat.amin(1), flat.amax(1)))
    mask = (mask - low) / torch.where(high > low, high - low, 1.0)
    return question.value(question.baseline + mask * (question.x - question.baseline))

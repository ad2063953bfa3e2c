"""CAM: the feature maps that the last linear layer reads the means of, weighted by its weights for the target.

    A = sum_k w_k F_k,    mean over places of A + bias = f(x)

One evaluation, of networks that end with a mean over places and a linear layer; others are refused. Reference: Zhou,
Khosla, Lapedriza, Oliva, Torralba (2016), "Learning deep features for discriminative localization".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from cfx.attribution.grad_cam import resized
from cfx.attribution.layer import only, resolved, watched
from cfx.attribution.method import Family, Found, Question, Whole
from cfx.core.errors import InputError
from cfx.models.features import last_layer

_ROUNDING = 1e-4


@dataclass(frozen=True)
class Cam:
    """sum_k w_k F_k, signed, bias left out.

    Attributes:
        layer: Name of the layer whose maps are averaged; by default the last that returns a map.
    """

    layer: str = ""

    name: ClassVar[str] = "cam"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch.

        Raises:
            InputError: no last linear layer, or one that does not read the means of the maps of the layer.
        """
        name, head = resolved(question, self.layer), last_layer(question.judge.classifier)
        if not isinstance(head, nn.Linear):
            raise InputError("cam: expected a network that ends with a linear layer, got none; grad-cam needs none")
        read: list[Tensor] = []
        handle = head.register_forward_pre_hook(lambda _, given: read.append(given[0]))
        try:
            with watched(question, name) as seen, torch.no_grad():
                logits = question.judge.logits(question.x)
        finally:
            handle.remove()
        question.spent.count("classifier", torch.arange(len(question), device=question.x.device))
        maps = only(seen, question, name)
        _check_means(read, maps, name)
        return Found(resized(_weighted(question, head, maps, logits), question.space))


def _check_means(read: list[Tensor], maps: Tensor, name: str) -> None:
    """Make sure that the head reads the means of the maps."""
    means = maps.flatten(2).mean(2)
    if len(read) != 1 or read[0].shape != means.shape or not torch.allclose(read[0], means, _ROUNDING, _ROUNDING):
        raise InputError(
            f"layer: expected one whose means over places are what the last linear layer reads, got {name}; grad-cam "
            "works at any layer"
        )


def _weighted(question: Question, head: nn.Linear, maps: Tensor, logits: Tensor) -> Tensor:
    """Maps weighted by what the output is of them: a logit, or a margin over the best other."""
    maps_of_classes = torch.einsum("kd,bd...->bk...", head.weight.detach().to(maps), maps)
    if maps_of_classes.shape[1] == 1:
        maps_of_classes = torch.cat([torch.zeros_like(maps_of_classes), maps_of_classes], 1)
    if maps_of_classes.shape[1] != logits.shape[1]:
        raise InputError(f"cam: expected a linear layer of {logits.shape[1]} classes, got {head.weight.shape[0]}")
    rows = torch.arange(len(maps), device=maps.device)
    found = maps_of_classes[rows, question.target]
    if question.margin:
        others = logits.scatter(1, question.target[:, None], -torch.inf).argmax(1)
        found = found - maps_of_classes[rows, others]
    return found[:, None]

"""Maps that know nothing of the classifier, to read every table against: edges, the centre, and chance.

A map that is no better than an edge detector shows the image, not the classifier (Adebayo et al. 2018, "Sanity checks
for saliency maps"); on centred objects a blob in the middle of the image is a strong guess.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.attribution.method import Family, Found, Question, Whole
from cfx.core.geometry import gradient, identity
from cfx.core.random import uniform

_CHANCE = 0x5601  # stream
_WIDTH = 0.25  # of the image's side: standard deviation of the centre


@dataclass(frozen=True)
class Edges:
    """Length of the spatial gradient of the image, over all channels."""

    name: ClassVar[str] = "edges"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "control"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        parts = [gradient(channel[:, None]).square().sum(1, keepdim=True) for channel in question.x.unbind(1)]
        return Found(torch.stack(parts).sum(0).sqrt())


@dataclass(frozen=True)
class Centre:
    """A normal density in the middle of the image, a quarter of its side wide."""

    name: ClassVar[str] = "centre"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "control"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        size = torch.tensor(question.space).to(question.x).view(1, -1, *[1] * len(question.space))
        offset = (identity(question.space, question.x) - (size - 1) / 2) / (_WIDTH * size)
        blob: Tensor = (-offset.square().sum(1, keepdim=True) / 2).exp()
        return Found(blob.expand(len(question), *blob.shape[1:]).clone())


@dataclass(frozen=True)
class Chance:
    """Uniform random numbers, by the row's counter."""

    name: ClassVar[str] = "random"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "control"
    gradient: ClassVar[bool] = False

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        u = uniform((1, *question.space), seed=question.seed, row=question.row, stream=_CHANCE)
        return Found(u.to(question.x))

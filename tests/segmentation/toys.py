"""Networks that draw masks and need no training."""

import torch
from torch import Tensor

from cfx.core.random import normal, uniform
from cfx.models.samplers import Draw, MaskSampler
from cfx.models.samplers.sampler import Code


class Threshold(MaskSampler):
    """What is brighter than a level that every draw has its own of; with `empty`, some draws hold nothing."""

    multiple = 4

    def __init__(self, level: float = 0.0, spread: float = 0.2, empty: float = 0.2, classes: int = 2) -> None:
        super().__init__(classes)
        self.level, self.spread, self.empty = level, spread, empty
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor, readings: Tensor, draw: Draw) -> tuple[Tensor, dict[str, Tensor]]:
        raise NotImplementedError

    def encode(self, x: Tensor) -> Code:
        if x.shape[1] != 1:
            raise RuntimeError(f"expected 1 channel, got {x.shape[1]}")
        return (x[:, 0],)

    def draw(self, code: Code, *, seed: int, row: Tensor) -> Tensor:
        (x,) = code
        shape = (-1, *[1] * (x.ndim - 1))
        at = self.level + self.spread * normal((1,), seed=seed, row=row, stream=64).view(shape)
        kind = (((x - at) * 8).long() + 1).clamp(1, self.classes - 1)
        there = uniform((1,), seed=seed, row=row, stream=65).view(shape) >= self.empty
        return torch.where((x > at) & there, kind, 0).to(torch.uint8)


class Broken(Threshold):
    """Its answer is finite for images that are dark in the middle only."""

    def encode(self, x: Tensor) -> Code:
        (code,) = super().encode(x)
        return (torch.where(code.flatten(1).mean(1).view(-1, 1, 1) > 0, torch.nan, code),)

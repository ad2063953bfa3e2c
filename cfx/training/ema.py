"""Exponentially averaged weights."""

from copy import deepcopy

import torch
from torch import Tensor, nn


class Ema:
    """A copy of a network whose parameters follow the trained ones, with a decay that warms up.

    After step k (from 0) the decay is min(limit, 1 - (1 + k)^(-3/4)), as in diffusers' `EMAModel` with
    `use_ema_warmup=True, power=3/4`: 0.994 at 1 000 steps, 0.999 at 10 000. Buffers are copied.
    """

    def __init__(self, network: nn.Module, limit: float = 0.9999) -> None:
        """Start from the network's present weights.

        Args:
            network: The network, not wrapped for distribution.
            limit: Largest decay.
        """
        self.module = deepcopy(network).eval().requires_grad_(False)
        self.limit = limit

    def decay(self, step: int) -> float:
        """The share of the average that survives step `step` (0 for the first: the average starts there)."""
        return min(self.limit, 1 - float((1 + step) ** -0.75))

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move towards the weights after optimizer step `step`."""
        mine: list[Tensor] = list(self.module.parameters())
        theirs: list[Tensor] = list(network.parameters())
        torch._foreach_lerp_(mine, theirs, 1 - self.decay(step))
        for kept, new in zip(self.module.buffers(), network.buffers(), strict=True):
            kept.copy_(new)

"""How weights move: which learn at which rate, at every step."""

import math
from typing import Any

from pydantic import Field
from torch import nn

from cfx.runtime.config import Frozen


class OptimizerConfig(Frozen):
    """AdamW and its learning rate over time."""

    lr: float = Field(default=3e-4, gt=0)
    """Peak learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the moment estimates."""
    weight_decay: float = Field(default=0.0, ge=0)
    """Decoupled weight decay."""
    warmup: int = Field(default=100, ge=0, le=10**9)
    """Steps of linear warm-up."""
    cosine: bool = True
    """Whether the rate falls to zero along a cosine until the last step."""
    class_lr: float = Field(default=10.0, gt=0)
    """Factor on the rate of class embeddings, which see few gradients and learn slowly otherwise."""


def parameter_groups(net: nn.Module, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Parameters with their factor on the learning rate: class embeddings apart from the rest."""
    labels = [p for k, p in net.named_parameters() if "class_embedding" in k]
    rest = [p for k, p in net.named_parameters() if "class_embedding" not in k]
    groups = [{"params": rest, "factor": 1.0}, {"params": labels, "factor": config.class_lr}]
    return [g for g in groups if g["params"]]


def rate_at(config: OptimizerConfig, step: int, steps: int) -> float:
    """Learning rate of step `step` (from 0) of `steps`: linear warm-up times a cosine to zero, if asked."""
    warm = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    return config.lr * warm * (0.5 * (1 + math.cos(math.pi * step / steps)) if config.cosine else 1.0)

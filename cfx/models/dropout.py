"""Dropout at test time with masks that are the same for every image, so that an answer belongs to its image alone.

Drawing masks anew for each image, as switching dropout modules to training mode does, is as good for a mean over many
masks; but an image shown twice, or in another batch, would get another answer. Here a pattern is one set of masks for
the whole network, drawn once: one of the sub-networks that dropout trains. Nothing else changes its mode, so batch
normalisation keeps its statistics.

Reference: Gal and Ghahramani (2016), arXiv 1506.02142.
"""

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import count

import torch
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.models.running import here

_STREAM = 0xD0_0000
_ALPHA = -1.7580993408473766  # what SELU tends to on the left, which its dropout puts in the place of a value

Dropout = nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d | nn.AlphaDropout | nn.FeatureAlphaDropout


def dropouts(network: object, name: str = "classifier") -> list[Dropout]:
    """The parts of a network that leave values out in training.

    Args:
        network: What a user handed in.
        name: What it is called in errors.

    Raises:
        InputError: it has none, or all leave out nothing.
    """
    parts = list(network.modules()) if isinstance(network, nn.Module) else []
    found = [m for m in parts if isinstance(m, Dropout)]
    if not any(m.p > 0 for m in found):
        idle = "only with probability 0" if found else "without any"
        raise InputError(
            f"{name}: expected a network with dropout modules (torch.nn.Dropout and its like; F.dropout inside forward "
            f"and compiled scripts cannot be reached), got {type(network).__name__} {idle}; train one with "
            "network.dropout, or use an ensemble"
        )
    return found


@contextmanager
def dropped(network: object, seed: int, pattern: int, name: str = "classifier") -> Iterator[None]:
    """Let a network at rest drop, in one pass inside, the values of one pattern, the same for every image.

    Args:
        network: A module in evaluation mode.
        seed: Seed of all patterns.
        pattern: Which of them; the k-th dropout that runs in the pass has its own mask of it.
        name: What the network is called in errors.

    Raises:
        InputError: as `dropouts`, or none of its dropout ran.
    """
    order = count()
    with ExitStack() as stack:
        for part in dropouts(network, name):
            if part.p > 0:
                hook = part.register_forward_hook(here(lambda m, _, x: _drop(m, x, seed, pattern, next(order))))
                stack.callback(hook.remove)
        yield
        if next(order) == 0:
            raise InputError(
                f"{name}: expected its dropout modules to run, got a pass without them; hand in the network as it was "
                "before it was compiled"
            )


def _drop(module: nn.Module, x: Tensor, seed: int, pattern: int, k: int) -> Tensor:
    """What a dropout module makes of values, for the k-th mask of a pattern."""
    p = float(module.p)  # type: ignore[arg-type]
    if p == 1:
        return torch.zeros_like(x)
    each = isinstance(module, nn.Dropout | nn.AlphaDropout)  # others leave out whole channels
    shape = tuple(x.shape[1:]) if each else (x.shape[1], *[1] * (x.ndim - 2))
    kept = (uniform(shape, seed=seed, row=torch.tensor([pattern]), stream=_STREAM + k) >= p).to(x)
    if isinstance(module, nn.AlphaDropout | nn.FeatureAlphaDropout):
        a = 1 / math.sqrt((1 - p) * (1 + p * _ALPHA * _ALPHA))
        return a * (x * kept + _ALPHA * (1 - kept) - _ALPHA * p)
    return x * kept / (1 - p)

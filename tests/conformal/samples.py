"""Probabilities and classes that follow them, drawn by seed."""

import torch

from cfx.core.random import normal, uniform


def drawn(n, k=4, *, seed=0, sharpness=1.5):
    """n rows of k probabilities, and classes drawn from them."""
    rows = torch.arange(n)
    p = (sharpness * normal((k,), seed=seed, row=rows, stream=0).double()).softmax(1)
    u = uniform((1,), seed=seed, row=rows, stream=1).double()
    return p, (u > p.cumsum(1)).sum(1).clamp_max(k - 1)

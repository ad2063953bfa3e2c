"""The noise that a generator sees on the way of an image to pure noise, by DDIM run backwards.

x_(k+1) = alpha_(k+1) E[x | x_k] + sigma_(k+1) eps_k: the probability flow, which in u = x / alpha and rho = sigma /
alpha is du / drho = eps; so eps is the direction of the path, and a change of eps its curvature.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.solvers import ddim_step
from cfx.ood.detector import Ask
from cfx.ood.walks import every, generator_of, signal


def even_levels(steps: int) -> list[float]:
    """Noise levels at even times of the cosine schedule, sin(pi k / 2 steps) for k = 1 .. steps - 1."""
    return torch.linspace(0, torch.pi / 2, steps + 1, dtype=torch.float64)[1:-1].sin().tolist()


def directions(ask: Ask, times: list[int]) -> Float[Tensor, "b k c *space"]:
    """Eps at the image itself and at each time on its way, of images or codes; 1 + len(times) evaluations.

    Args:
        ask: The batch.
        times: Rising times, from 1 or later.
    """
    z, found = signal(ask), []
    grid = [0, *times]
    for t, s in pairwise([*grid, 0]):
        q = ask.posterior(z, max(t, 1), every(ask))
        found.append(q.eps)
        z = ddim_step(generator_of(ask).schedule, q, t, s) if s else z
    return torch.stack(found, 1)

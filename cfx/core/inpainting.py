"""Masked diffusion: pixels that are not known are drawn from the generator, given those that are.

At every time the known pixels are those of the image, noised to that time; the others follow the reverse diffusion. A
step down is repeated, with noise added in between to come back up, so that both parts have time to agree.

Reference: Lugmayr et al. (2022), "RePaint: Inpainting using denoising diffusion probabilistic models", algorithm 1.
"""

import math
from itertools import pairwise

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.denoiser import Generative
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.solvers import ddpm_step


@torch.no_grad()
def inpaint(
    generator: Generative,
    x: Float[Tensor, "n c *space"],
    known: Bool[Tensor, "n 1 *space"],
    *,
    seed: int,
    row: Int[Tensor, " n"],
    label: Int[Tensor, " n"] | None = None,
    steps: int = 25,
    rounds: int = 4,
) -> Float[Tensor, "n c *space"]:
    """The images with their unknown pixels drawn anew; steps times rounds network evaluations.

    Args:
        generator: Generator of such images.
        x: Images in [-1, 1]; what they hold where they are not known does not matter.
        known: Pixels to keep, bit for bit.
        seed: Seed of the draw.
        row: Counter of every row, as in `core.random.normal`.
        label: Class of every row, or None.
        steps: Times from T to 0.
        rounds: How often each step is made; 1 is plain replacement.

    Returns:
        Images in [-1, 1].

    Raises:
        InputError: fewer than one round, or steps, seed, row or label out of range.
    """
    if rounds < 1:
        raise InputError(f"rounds: expected 1 or more, got {rounds}")
    schedule, streams = generator.schedule, iter(range(2**32))

    def noise() -> Tensor:
        return normal(x.shape[1:], seed=seed, row=row, stream=next(streams)).to(x)

    x_t, x_s = noise(), x
    for t, s in pairwise(schedule.times(steps)):
        for k in range(rounds):
            q = generator(x_t, t, label)
            below = schedule.alpha(s, x) * x + schedule.sigma(s, x) * noise()
            x_s = torch.where(known, below, ddpm_step(schedule, q, t, s, noise()))
            if k < rounds - 1:
                keep = schedule.alpha_squared(t) / schedule.alpha_squared(s)
                x_t = math.sqrt(keep) * x_s + math.sqrt(1 - keep) * noise()
        x_t = x_s
    return torch.where(known, x, x_s.clamp(-1, 1))

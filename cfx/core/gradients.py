"""Gradients that do not hang on a single point: averages over noisy copies of the image, or along a line.

    g(x) = mean_j grad f(x + s eps_j),                eps_j standard normal
    g(x, e) = mean_j grad f(x + (j + 1/2) / n e),     j = 0 .. n - 1

The first is the gradient of f smoothed by the noise, whatever f does from pixel to pixel. The second makes e g(x, e)
the integrated gradients of f from x to x + e, which sum to f(x + e) - f(x) as n grows. Thrice as many midpoints have
those of n among them, so that a mean over too few of them is refined by what is missing alone.

References: Smilkov, Thorat, Kim, Viegas, Wattenberg (2017), "SmoothGrad: removing noise by adding noise"; Sundararajan,
Taly, Yan (2017), "Axiomatic attribution for deep networks".
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def smoothed(
    gradient: Callable[[Tensor], Tensor], x: Float[Tensor, "n c *space"], noise: Float[Tensor, "n k c *space"]
) -> Float[Tensor, "n c *space"]:
    """Mean gradient over k noisy copies of every image, all seen at once.

    Args:
        gradient: Images `(n k, c, *space)`, the copies of the first image first, to gradients of that shape.
        x: Images, or codes of images.
        noise: What is added to each copy, s eps_j.
    """
    copies = (x[:, None] + noise).flatten(0, 1)
    return gradient(copies).view(noise.shape).mean(1)


def midpoints(n: int, *, refining: bool = False) -> list[float]:
    """The midpoints of n equal parts of [0, 1]; when refining, those only that n / 3 parts do not have."""
    return [(j + 0.5) / n for j in range(n) if not (refining and j % 3 == 1)]


def along(
    gradient: Callable[[Tensor], Tensor],
    x: Float[Tensor, "n c *space"],
    e: Float[Tensor, "n c *space"],
    points: Sequence[float],
    at_once: int = 1,
) -> Float[Tensor, "n c *space"]:
    """Sum of the gradients at x + a e over points a of the line.

    Args:
        gradient: Images `(n m, c, *space)`, the points of the first image first, to gradients of that shape.
        x: Where the lines begin.
        e: Where they lead, from there.
        points: The places a.
        at_once: Points m that are asked for together.
    """
    total = torch.zeros_like(x)
    for i in range(0, len(points), at_once):
        a = torch.tensor(points[i : i + at_once], device=x.device, dtype=x.dtype).view(1, -1, *[1] * (x.ndim - 1))
        images = (x[:, None] + a * e[:, None]).flatten(0, 1)
        total += gradient(images).view(len(x), a.shape[1], *x.shape[1:]).sum(1)
    return total

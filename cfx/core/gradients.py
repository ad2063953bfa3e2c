"""Gradients that do not hang on a single point: averages over noisy copies of the image, or along a line.

    g(x) = mean_j grad f(x + s eps_j),                eps_j standard normal
    g(x, e) = mean_j grad f(x + (j + 1/2) / n e),     j = 0 .. n - 1

The first is the gradient of f smoothed by the noise, whatever f does from pixel to pixel. The second makes e g(x, e)
the integrated gradients of f from x to x + e, which sum to f(x + e) - f(x) as n grows; of a network of rectifiers like
1 / n only, since every kink on the way costs a piece of one part.

`refined` puts the points where they are needed. Of a part from u to v the change f(v) - f(u) is known, and what the
gradient at its middle leaves of it is its own error. Parts whose error is too large are halved, and the others done.

References: Smilkov, Thorat, Kim, Viegas, Wattenberg (2017), "SmoothGrad: removing noise by adding noise"; Sundararajan,
Taly, Yan (2017), "Axiomatic attribution for deep networks".
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.broadcast import each

_SHARE = 1 / 64  # of the tolerance, that a part may miss however short it is
_SHORTEST = 2.0**-16  # of a line: shorter parts are not told apart in single precision


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


def along(
    gradient: Callable[[Tensor], Tensor],
    x: Float[Tensor, "b c *space"],
    e: Float[Tensor, "b c *space"],
    n: int,
    at_once: int = 1,
) -> Float[Tensor, "b c *space"]:
    """Mean gradient at n midpoints of the line from x to x + e; times e it is the integrated gradients.

    Args:
        gradient: Images `(b m, c, *space)`, the points of the first one first, to gradients of that shape.
        x: Where the lines begin.
        e: Where they lead, from there.
        n: Number of points.
        at_once: Points m that are asked for together.
    """
    total = torch.zeros_like(x)
    for a in ((torch.arange(n, dtype=x.dtype, device=x.device) + 0.5) / n).split(at_once):
        images = x[:, None] + a.view(1, -1, *[1] * (x.ndim - 1)) * e[:, None]
        total += gradient(images.flatten(0, 1)).view_as(images).sum(1)
    return total / n


Values = Callable[[Int[Tensor, " m"], Float[Tensor, "m c *space"]], Float[Tensor, " m"]]
"""`value(rows, images)`: f of images of these rows."""
Both = Callable[[Int[Tensor, " m"], Float[Tensor, "m c *space"]], tuple[Tensor, Tensor]]
"""`both(rows, images)`: f of them and its gradients."""


def refined(
    value: Values,
    both: Both,
    x: Float[Tensor, "b c *space"],
    e: Float[Tensor, "b c *space"],
    n: int,
    tolerance: Float[Tensor, " b"],
    most: int,
    at_once: int,
) -> Float[Tensor, "b c *space"]:
    """Mean gradient on the line from x to x + e, of parts none of which misses more than its share of a tolerance.

    Args:
        value: f.
        both: f and its gradient.
        x: Where the lines begin.
        e: Where they lead, from there.
        n: Parts to begin with.
        tolerance: Error of the whole that is small enough, in units of f, a row each. Errors of smooth parts have one
            sign, so that each has its share by length; those of kinks have either, and may be a few of it each.
        most: Points of a row from which on no part is halved any more.
        at_once: Images that are asked for together.
    """
    total, spent = torch.zeros_like(x), torch.zeros(len(x), dtype=torch.long, device=x.device)
    queue = _uniform(value, x, e, n)
    while len(queue[0]):
        order = queue[-1].argsort(descending=True)  # where most is missing first
        (row, a, h, low, high, _), queue = (v[order[:at_once]] for v in queue), [v[order[at_once:]] for v in queue]
        middle, g = both(row, x[row] + each(a + h / 2, x) * e[row])
        spent += torch.bincount(row, minlength=len(x))
        missed = (high - low - h * (g * e[row]).flatten(1).sum(1)).abs()
        enough = tolerance[row] * torch.maximum(h, torch.full_like(h, _SHARE))
        done = ~(missed > enough) | (spent[row] >= most) | (h < _SHORTEST)
        total.index_add_(0, row[done], each(h[done], x) * g[done])
        row, a, h, low, high, middle, missed = (v[~done] for v in (row, a, h, low, high, middle, missed))
        missed = missed / tolerance[row]
        halves = [(row, row), (a, a + h / 2), (h / 2, h / 2), (low, middle), (middle, high), (missed, missed)]
        queue = [torch.cat([v, *pair]) for v, pair in zip(queue, halves, strict=True)]
    return total


def _uniform(value: Values, x: Tensor, e: Tensor, n: int) -> list[Tensor]:
    """N equal parts of every line: row, beginning, length, values at both ends, and what is missed as far as known."""
    a = torch.arange(n + 1, dtype=x.dtype, device=x.device) / n
    every = torch.arange(len(x), device=x.device)
    ends = torch.stack([value(every, x + point * e) for point in a], 1)
    row = every.repeat_interleave(n)
    h = torch.full_like(row, 1 / n, dtype=x.dtype)
    low, high = ends[:, :-1].flatten(), ends[:, 1:].flatten()
    return [row, a[:-1].repeat(len(x)), h, low, high, torch.full_like(low, torch.inf)]

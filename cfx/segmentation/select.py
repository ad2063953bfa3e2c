"""Few masks that stand for many: those nearest to a pool of samples in energy distance. No reader is asked.

A cheap sampler draws a pool P of m masks of an image; n of them are to be looked at, or handed on. With d = 1 - IoU the
chosen set C is to be near P in the V-form of the squared energy distance, as far as C enters it

    E(C) = 2 mean d(C, P) - mean d(C, C),    a_i = mean d(i, P),    b_i = sum of d(i, C).

Herding takes, k times, the mask that leaves E least, which is the one of least a_i - b_i / k: central, and unlike those
that were taken. Exchange then swaps a chosen i for another j as long as that lowers E, the swap that lowers it most
first; it changes E by

    2/n (v_j - v_i + d_ij / n),    v_i = a_i - b_i / n.

It starts from the herded set or from the first n of the pool, whichever is nearer. So the set that is returned is at
least as near to the pool as either, and no swap of one mask improves it; for n = 1 (the medoid) and n = m - 1 that
makes it the best there is. n independent samples are D / n away on average, D the diversity; chosen ones much less.

References: Szekely and Rizzo (2013), "Energy statistics"; Chen, Welling, Smola (2010), "Super-samples from kernel
herding"; Mak and Joseph (2018), "Support points".
"""

from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.errors import InputError
from cfx.segmentation.metrics.drawings import Masks, alike, layers
from cfx.segmentation.metrics.energy import diversity
from cfx.segmentation.result import Segmentations

D = TypeVar("D", Segmentations, Tensor)
_LESS = 1e-12  # by which a swap has to lower the distance, above its rounding


def herded(masks: Masks, n: int, classes: int | None = None) -> Int[Tensor, "b n"]:
    """Positions of the n samples of every image that represent all of them best, ascending.

    Args:
        masks: Samples `(b, m, *space)`, boolean or class numbers.
        n: How many to choose, 1 .. m.
        classes: Number of classes, for class numbers.

    Raises:
        InputError: masks that are none, class numbers out of range, or another n.
    """
    own = layers(masks, "masks", classes)
    m = masks.shape[1]
    if not 1 <= n <= m:
        raise InputError(f"n: expected 1 .. {m}, as many as there are samples of an image, got {n}")
    return nearest(alike(own, own).distance, n)


def representative(drawn: D, n: int, classes: int | None = None) -> D:
    """The n samples of every image that represent all of them best; errors as `herded`.

    Of a result the diversity becomes that of the n (NaN of one); its verdicts and costs stay those of all that were
    drawn.

    Args:
        drawn: What was drawn: a result, or masks `(b, m, *space)`.
        n: How many to choose.
        classes: Number of classes of masks that are class numbers; a result knows it.
    """
    if isinstance(drawn, Tensor):
        return picked(drawn, herded(drawn, n, classes))
    masks = representative(drawn.masks, n, len(drawn.labels))
    apart = drawn.diversity * torch.nan if n < 2 else diversity(masks, len(drawn.labels)).to(drawn.diversity)
    return drawn.replace(masks=masks, samples=n, diversity=torch.where(drawn.diversity.isnan(), torch.nan, apart))


def picked(masks: Masks, at: Int[Tensor, "b n"]) -> Masks:
    """Some samples of every image."""
    return masks[torch.arange(len(masks), device=masks.device)[:, None], at]


def nearest(d: Float[Tensor, "b m m"], n: int) -> Int[Tensor, "b n"]:
    """Positions of n points of every set that are near all of them, by the distances of its points."""
    first = torch.zeros_like(d[..., 0], dtype=torch.bool)
    first[:, :n] = True
    greedy = _herd(d, n)
    nearer = _energy(d, greedy) < _energy(d, first)
    chosen = _exchange(d, torch.where(nearer[:, None], greedy, first))
    return chosen.nonzero()[:, 1].reshape(len(d), n)


def _energy(d: Float[Tensor, "b m m"], chosen: Bool[Tensor, "b m"]) -> Float[Tensor, " b"]:
    """E of the chosen sets."""
    c, n = chosen.to(d.dtype), chosen.sum(1)
    return 2 * (c * d.mean(2)).sum(1) / n - torch.einsum("bi,bij,bj->b", c, d, c) / n**2


def _herd(d: Float[Tensor, "b m m"], n: int) -> Bool[Tensor, "b m"]:
    """The herded set."""
    a, b = d.mean(2), torch.zeros_like(d[..., 0])
    chosen = torch.zeros_like(b, dtype=torch.bool)
    every = torch.arange(len(d), device=d.device)
    for k in range(1, n + 1):
        best = (a - b / k).masked_fill(chosen, torch.inf).argmin(1)
        chosen[every, best] = True
        b += d[every, best]
    return chosen


def _exchange(d: Float[Tensor, "b m m"], chosen: Bool[Tensor, "b m"]) -> Bool[Tensor, "b m"]:
    """Swap until no swap is to the better; E falls each time and there are finitely many sets, so it ends."""
    n, a, every = chosen.sum(1, keepdim=True), d.mean(2), torch.arange(len(d), device=d.device)
    while True:
        v = a - (d * chosen[:, None]).sum(2) / n
        change = v[:, None] - v[:, :, None] + d / n[..., None]
        best = change.masked_fill(~(chosen[:, :, None] & ~chosen[:, None]), torch.inf).flatten(1).min(1)
        better = best.values < -_LESS
        if not bool(better.any()):
            return chosen
        out, new = best.indices // d.shape[1], best.indices % d.shape[1]
        chosen = chosen.clone()
        chosen[every[better], out[better]] = False
        chosen[every[better], new[better]] = True

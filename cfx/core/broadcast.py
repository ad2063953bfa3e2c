"""One number a row beside the images of these rows, in any number of dimensions."""

from jaxtyping import Float, Shaped
from torch import Tensor


def each(value: Shaped[Tensor, "n *k"], like: Shaped[Tensor, "..."]) -> Shaped[Tensor, "n ..."]:
    """A number (or `k` of them) a row, with axes of length one behind until it has as many as `like`."""
    return value.reshape(*value.shape, *[1] * (like.ndim - value.ndim))


def rms(x: Float[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Root mean square of every row."""
    return x.flatten(1).square().mean(1).sqrt()


def unit(x: Float[Tensor, "n ..."]) -> Float[Tensor, "n ..."]:
    """Every row divided by its root mean square (which is never taken below 1e-12)."""
    return x / each(rms(x).clamp_min(1e-12), x)

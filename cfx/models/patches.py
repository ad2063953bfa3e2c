"""Space to depth and back, over any number of spatial axes."""

from jaxtyping import Float
from torch import Tensor


def space_to_depth(x: Float[Tensor, "b c *space"], patch: int) -> Float[Tensor, "b c2 *coarse"]:
    """Fold each `patch`-sided block of pixels into channels: `(b, c, *s)` to `(b, c * patch^d, *(s / patch))`."""
    dims = x.ndim - 2
    split = [n for s in x.shape[2:] for n in (s // patch, patch)]
    blocks = x.reshape(*x.shape[:2], *split)
    inner, outer = [3 + 2 * i for i in range(dims)], [2 + 2 * i for i in range(dims)]
    return blocks.permute(0, 1, *inner, *outer).reshape(x.shape[0], -1, *[s // patch for s in x.shape[2:]])


def depth_to_space(h: Float[Tensor, "b c2 *coarse"], patch: int, dims: int) -> Float[Tensor, "b c *space"]:
    """Inverse of `space_to_depth` for `dims` spatial axes."""
    blocks = h.reshape(h.shape[0], -1, *[patch] * dims, *h.shape[2:])
    order = [axis for i in range(dims) for axis in (2 + dims + i, 2 + i)]
    return blocks.permute(0, 1, *order).reshape(h.shape[0], blocks.shape[1], *[s * patch for s in h.shape[2:]])

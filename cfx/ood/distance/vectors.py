"""What detectors of distance read: the feature maps of an image, each averaged over space."""

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn


def vectors(ask: Ask) -> list[Float[Tensor, "b _"]]:
    """One vector of each image a layer, float64, on the CPU.

    Raises:
        InputError: features that are no maps or vectors with an entry an image, or not finite.
    """
    return [_vector(found, len(ask), k) for k, found in enumerate(ask.features(ask.x))]


def collected(learn: Learn) -> list[Float[Tensor, "n _"]]:
    """The vectors of all images that a detector is fitted to, a layer each; errors as `vectors`."""
    widths: list[int] = []

    def of(ask: Ask) -> Float[Tensor, "b d"]:
        found = vectors(ask)
        widths[:] = [v.shape[1] for v in found]
        return torch.cat(found, 1)

    return list(learn.collect(of).split(widths, 1))


def _vector(found: Tensor, n: int, k: int) -> Float[Tensor, "n d"]:
    """The features of one layer, averaged over space."""
    if found.ndim < 2 or len(found) != n:
        came = tuple(found.shape)
        raise InputError(f"features: expected vectors ({n}, d) or maps ({n}, d, *space) of layer {k}, got {came}")
    v: Tensor = (found.flatten(2).mean(2) if found.ndim > 2 else found).cpu().double()
    if not bool(v.isfinite().all()):
        raise InputError(f"features: expected finite features, got NaN or infinity in layer {k}")
    return v

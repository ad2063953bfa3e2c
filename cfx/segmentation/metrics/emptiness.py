"""Is a mask as often empty as it should be? Whether there is anything to draw, apart from what it looks like.

Of every image a sampler says by the share q of its masks that are empty how probable an empty mask is; p is that
probability, known, or the share of readers who drew nothing. Images go into bins by q, and

    ECE = sum over bins of n_b / n |mean q - mean p|.

A share of few samples is noisy, and where it is high by chance p is not: the true sampler would seem overconfident. So
the bins are made of one half of the samples, and q is read off the other.

Reference: Naeini, Cooper, Hauskrecht (2015) for the expected calibration error.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.segmentation.metrics.drawings import Masks

BINS = 10


def empty_share(masks: Masks) -> Float[Tensor, " n"]:
    """Share of the masks `(n, s, *space)` of an image that are empty, float64."""
    return (~(masks != 0).flatten(2).any(2)).double().mean(1)


def empty_ece(samples: Masks, probability: Float[Tensor, " n"], *, bins: int = BINS) -> float:
    """Expected calibration error of the probability of an empty mask; 0 is best, few images alone make it larger.

    Args:
        samples: Samples `(n, s, *space)`, boolean or class numbers.
        probability: Probability of an empty mask of every image, or the share of its readers who drew nothing.
        bins: Bins of equal width.

    Raises:
        InputError: no image, fewer than two samples, or another number of probabilities.
    """
    n, s = samples.shape[:2]
    if not n or s < 2 or probability.shape != (n,):
        wanted = "expected one of each image, and two samples or more"
        raise InputError(f"samples, probability: {wanted}, got {s} samples of {n} and shape {tuple(probability.shape)}")
    place = (empty_share(samples[:, 0::2]) * bins).long().clamp(max=bins - 1)
    apart = empty_share(samples[:, 1::2]) - probability.double()
    return float(torch.zeros(bins, dtype=torch.float64).index_add_(0, place, apart).abs().sum() / n)

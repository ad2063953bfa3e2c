"""Classifiers whose reason is exactly known, and what makes an arbitrary network look like a trained one.

    Weighted     u(x) = sum_v w_v x_v                              reads the voxels of non-zero weight, and no others
    Dark         u(x) = sum_v w_v clamp((high - x_v) / (high - low), 0, 1)    reads fluid; blind to what is brighter
    Sum          u(x) = sum_k a_k m_k(x), m_k the margin of network k         reads what its parts read, as much as a_k
    Centred      u(x) = (m(x) - middle) / scale                    reads what its network reads
    Exchanged    the two columns of a network the other way round

Each is a binary logit, positive for class 1 (`Exchanged` keeps the two columns). In 2D and 3D.
"""

from collections.abc import Sequence
from typing import Self

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.models.judge import Judge

SPREAD = 3.0
"""Standard deviation of a centred logit over real images: about that of the shipped classifiers."""
_PLAIN = 0.5  # a place is worth reading where the classes differ by at least this share of the most they differ
_STREAM = 901


class Weighted(nn.Module):
    """A weighted sum of voxels.

    Attributes:
        weight: The weights.
    """

    weight: Float[Tensor, "c *space"]

    def __init__(self, weight: Float[Tensor, "c *space"]) -> None:
        """Of these weights."""
        super().__init__()
        self.register_buffer("weight", weight)

    @property
    def reads(self) -> Bool[Tensor, "1 *space"]:
        """The voxels it reads."""
        return (self.weight != 0).any(0, keepdim=True)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """The logit of class 1."""
        return (x * self.weight).flatten(1).sum(1, keepdim=True)


class Dark(Weighted):
    """How much of a region is dark, partial volumes counted in part."""

    def __init__(self, weight: Float[Tensor, "c *space"], low: float, high: float) -> None:
        """Up to `low` a voxel counts in full, from `high` on it does not count, and has no gradient."""
        super().__init__(weight)
        self.low, self.high = low, high

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """The logit of class 1."""
        return super().forward(((self.high - x) / (self.high - self.low)).clamp(0, 1))


class Sum(nn.Module):
    """A weighted sum of the margins of networks of two classes."""

    def __init__(self, networks: Sequence[nn.Module], weights: Sequence[float]) -> None:
        """One weight a network."""
        super().__init__()
        self.networks, self.weights = nn.ModuleList(networks), tuple(weights)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """The logit of class 1."""
        parts = [a * margin(f, x) for a, f in zip(self.weights, self.networks, strict=True)]
        return torch.stack(parts).sum(0)[:, None]


class Exchanged(nn.Module):
    """A network of two classes that numbers them the other way round."""

    def __init__(self, network: nn.Module) -> None:
        """Of this network."""
        super().__init__()
        self.network = network

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 2"]:
        """The logits, exchanged."""
        return Judge(self.network).logits(x).flip(1)


class Centred(nn.Module):
    """A network whose logit is 0 in the middle of real images, and spread among them as that of a trained one.

    Without it one class would have all images, and nothing could be asked of an untrained network.
    """

    def __init__(self, network: nn.Module, middle: float, scale: float) -> None:
        """Subtract the middle, divide by the scale."""
        super().__init__()
        self.network, self.middle, self.scale = network, middle, scale

    @classmethod
    def on(cls, network: nn.Module, x: Float[Tensor, "n c *space"]) -> Self:
        """Centred at the median of these images, with a standard deviation of `SPREAD` over them.

        Raises:
            InputError: the network says the same of all of them.
        """
        with torch.no_grad():
            m = torch.cat([margin(network, part) for part in x.split(64)])
        if not float(m.std()) > 0:
            raise InputError("network: expected one that tells images apart, got the same logit for all of them")
        return cls(network, float(m.median()), float(m.std()) / SPREAD)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """The logit of class 1."""
        return ((margin(self.network, x) - self.middle) / self.scale)[:, None]


def margin(network: nn.Module, x: Float[Tensor, "b c *space"]) -> Float[Tensor, " b"]:
    """Logit of class 1 minus that of class 0, of a network of two classes."""
    logits = Judge(network).logits(x)
    return logits[:, 1] - logits[:, 0]


def patches(reference: Cohort, side: int, count: int, seed: int) -> list[Weighted]:
    """Classifiers of one small patch each, at places where the class means of labelled images differ.

    Args:
        reference: Images of classes 0 and 1.
        side: Edge of a patch in voxels; 1 for one voxel.
        count: Number of places.
        seed: Which of the places, any two of them apart.

    Raises:
        InputError: images without these classes, or fewer places than that.
    """
    gap = class_gap(reference)
    means = getattr(F, f"avg_pool{gap.ndim - 1}d")(gap[None], side, 1)[0]
    found: list[Weighted] = []
    for corner in _corners(means.abs().amax(0), seed):
        box = tuple(slice(c, c + side) for c in corner)
        if not any(bool(other.reads[0][box].any()) for other in found):
            weight = torch.zeros_like(gap)
            weight[(slice(None), *box)] = means[(slice(None), *corner)].sign().view(-1, *[1] * len(box))
            found.append(Weighted(weight))
        if len(found) == count:
            return found
    raise InputError(f"reference: expected {count} places where the classes differ, got {len(found)}")


def _corners(strength: Float[Tensor, "*space"], seed: int) -> list[tuple[int, ...]]:
    """First corners of the patches where the classes plainly differ, in an order drawn at random."""
    places = (strength >= _PLAIN * strength.max()).nonzero()
    order = uniform((len(places),), seed=seed, row=torch.zeros(1, dtype=torch.long), stream=_STREAM)[0].argsort()
    return [tuple(map(int, place)) for place in places[order]]


def class_gap(reference: Cohort) -> Float[Tensor, "c *space"]:
    """Mean image of class 1 minus that of class 0.

    Raises:
        InputError: labelled images of both classes are missing.
    """
    y = reference.y
    if y is None or y.ndim != 1 or not {0, 1} <= set(y.tolist()):
        raise InputError("reference: expected images of classes 0 and 1, got none of one of them")
    return reference.x[y == 1].mean(0) - reference.x[y == 0].mean(0)

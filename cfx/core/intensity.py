"""Intensities of images matched to those of others: what is left of a difference is none of contrast or brightness.

Otsu's cut divides the pixels of an image (of each channel) into a dark and a bright part, such as air and tissue; the
mean quantile function of either part over the reference images is the norm. A pixel whose rank within its part is u
becomes the norm's value at u. So an image comes out the same after any increasing affine change of its intensities, and
after any increasing change that leaves the cut where it is; equal pixels stay equal, and nothing moves in space.

A change of contrast v^g moves the cut, when dark tissue goes over to the air. So the cut is made at the power of a few
at which the image's quantile function, from 0 to 1, is nearest to the reference's.

References: Otsu (1979), "A threshold selection method from gray-level histograms"; Nyul and Udupa (1999), "On
standardizing the MR image intensity scale".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_POINTS = 256  # of a quantile function
_POWERS = tuple(2 ** (k / 6) for k in range(-6, 7))  # of contrast, from a half to two


@dataclass(frozen=True)
class Norm:
    """Quantile functions to match, by channel, at (i + 1/2) / points.

    Attributes:
        dark: Of the dark part.
        bright: Of the bright part.
        whole: Of all pixels, from 0 to 1.
    """

    dark: Float[Tensor, "c points"]
    bright: Float[Tensor, "c points"]
    whole: Float[Tensor, "c points"]

    @classmethod
    def of(cls, x: Float[Tensor, "n c *space"]) -> "Norm":
        """The mean quantile functions of images; of a part that an image lacks, the nearest value it has."""
        v = x.flatten(2).sort(2).values
        m, p = otsu(v)[..., None], v.shape[2]
        u = (torch.arange(_POINTS, device=x.device) + 0.5) / _POINTS
        places = [(u * m).long(), m + (u * (p - m)).long()]
        dark, bright = (v.gather(2, at.clamp(max=p - 1)).mean(0) for at in places)
        return cls(dark, bright, _lit(v)[..., (u * p).long()].mean(0))

    def match(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n c *space"]:
        """The images with these intensities."""
        flat = x.flatten(2).contiguous()
        v = flat.sort(2).values
        m = self._cut(_lit(v))[..., None]
        rank = (torch.searchsorted(v, flat) + torch.searchsorted(v, flat, right=True)) / 2  # the middle of equal ones
        dark, bright = rank / m, (rank - m) / (v.shape[2] - m).clamp(min=1)
        found = torch.where(rank < m, _at(self.dark, dark), _at(self.bright, bright))
        return found.view_as(x)

    def _cut(self, v: Float[Tensor, "n c p"]) -> Int[Tensor, "n c"]:
        """Pixels below the cut of sorted values in [0, 1], at the power that comes nearest to the norm."""
        at = ((torch.arange(_POINTS, device=v.device) + 0.5) / _POINTS * v.shape[2]).long()
        misses = torch.stack([(v[..., at] ** g - self.whole).square().mean(2) for g in _POWERS])
        power = torch.tensor(_POWERS).to(v)[misses.argmin(0)]
        return otsu(v ** power[..., None])


def _lit(rising: Float[Tensor, "n c p"]) -> Float[Tensor, "n c p"]:
    """Sorted values from 0, the least, to 1, all above 99 of 100."""
    low, high = rising[..., :1], rising[..., int(0.99 * (rising.shape[2] - 1))][..., None]
    return ((rising - low) / (high - low).clamp(min=1e-12)).clamp(max=1)


def otsu(rising: Float[Tensor, "n c p"]) -> Int[Tensor, "n c"]:
    """How many of sorted values are below the cut that parts their means most; all where they are equal."""
    p = rising.shape[2]
    v, below = rising.double(), torch.arange(1, p, device=rising.device)
    total = v.cumsum(2)
    apart = (total[..., -1:] - total[..., :-1]) / (p - below) - total[..., :-1] / below
    between = below * (p - below) * apart.square()
    between = between.masked_fill(rising[..., 1:] == rising[..., :-1], -1.0)
    best, at = between.max(2)
    return torch.where(best < 0, p, at + 1)


def _at(table: Float[Tensor, "c points"], u: Float[Tensor, "n c p"]) -> Float[Tensor, "n c p"]:
    """The quantile function at ranks u, linear between its points."""
    place = (u * _POINTS - 0.5).clamp(0, _POINTS - 1)
    low = place.long().clamp(max=_POINTS - 2)
    every = table.expand(len(u), -1, -1)
    return torch.lerp(every.gather(2, low), every.gather(2, low + 1), (place - low).to(table))

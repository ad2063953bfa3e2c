"""Small helpers that the networks share."""

from collections.abc import Sequence
from math import gcd

from torch import nn

CONV = {2: nn.Conv2d, 3: nn.Conv3d}


def groups(channels: Sequence[int], most: int = 32) -> int:
    """The largest number of normalisation groups, at most `most`, that divides every width and keeps two channels each.

    Groups of one channel would erase its mean, and with it a global brightness that may tell classes apart.
    """
    limit = max(1, min(most, min(channels) // 2))
    return max(g for g in range(1, limit + 1) if gcd(*channels) % g == 0)

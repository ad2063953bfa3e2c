"""A distribution of masks that is known: two masks of four voxels, drawn with probability 0.3 and 0.7."""

import torch

FIRST = 0.3
N = 2000


def modes(classes: int) -> torch.Tensor:
    """The two masks, which differ in three of four voxels."""
    last = classes - 1
    return torch.tensor([[[last, 0], [1, 1]], [[0, 1], [0, 1]]], dtype=torch.uint8)


def check(drawn: torch.Tensor, classes: int, tolerance: float = 0.0) -> None:
    """Every draw is one of the two, the first as often as it should be, to within four standard errors and a bias."""
    first, second = ((drawn == m).flatten(1).all(1) for m in modes(classes))
    assert bool((first | second).all())
    error = 4 * (FIRST * (1 - FIRST) / len(drawn)) ** 0.5
    assert abs(float(first.float().mean()) - FIRST) < error + tolerance

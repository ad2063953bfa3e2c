"""Principal components: the directions in which rows vary most.

With rows x `(n, p)` less their mean, C = x'x / n = V diag(l) V' and x x' / n = U diag(l) U' have the same positive
eigenvalues l, and V = x'U / (n l)^(1/2): the smaller of the two matrices is decomposed. Columns x'u of small l are
orthogonal only as far as rounding allows, so V is taken as the orthonormal factor of x'U, the largest l first.

Variances come from squares, so a standard deviation below 1e-8 of the largest is rounding. The sign of a direction
means nothing.

References: Pearson (1901), "On lines and planes of closest fit"; Turk and Pentland (1991), "Eigenfaces for
recognition", for the smaller matrix.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_COLUMNS = 1 << 16  # of wide rows, brought to double precision at a time


@dataclass(frozen=True)
class Components:
    """Principal components, the largest first.

    Attributes:
        mean: Mean of the rows.
        variance: Variance of the rows along each direction (over n), float64.
        axes: Orthonormal directions, in the dtype of the rows.
    """

    mean: Float[Tensor, " p"]
    variance: Float[Tensor, " r"]
    axes: Float[Tensor, "p r"]

    @property
    def spread(self) -> Float[Tensor, " r"]:
        """Standard deviation of the rows along each direction."""
        return self.variance.sqrt()

    def scores(self, x: Float[Tensor, "m p"]) -> Float[Tensor, "m r"]:
        """Coefficients of such rows, the same or others."""
        return (x - self.mean) @ self.axes


def components(
    x: Float[Tensor, "n p"], *, least: float = 0.0, share: float = 1e-6, most: int | None = None
) -> Components:
    """Principal components of rows.

    Args:
        x: Rows.
        least: Standard deviation up to which a direction counts as none.
        share: The same, relative to the largest standard deviation.
        most: How many to return at most; None for all.
    """
    n, p = x.shape
    mean = x.mean(0)
    variance, vector = _spectrum(_gram(x) if n < p else (x - mean).T.double() @ (x - mean).double(), n)
    spread = variance[:most].sqrt()
    some = spread > (share * spread[:1]).clamp_min(least)
    vector = vector[:, :most][:, some].to(x.dtype)
    return Components(mean, variance[:most][some], torch.linalg.qr((x - mean).T @ vector).Q if n < p else vector)


def coordinates(x: Float[Tensor, "n p"]) -> Float[Tensor, "n n"]:
    """Rows with the same distances between them in as many columns as there are rows, however wide they were, float64.

    The scores of all components without the work of finding their axes.
    """
    variance, vector = _spectrum(_gram(x), len(x))
    return vector * (len(x) * variance).sqrt()


def _gram(x: Float[Tensor, "n p"]) -> Float[Tensor, "n n"]:
    """Inner products of all pairs of rows about their mean, in double precision."""
    total = torch.zeros(len(x), len(x), dtype=torch.float64, device=x.device)
    for part in x.split(_COLUMNS, dim=1):
        part = part.double() - part.double().mean(0)
        total += part @ part.T
    return total


def _spectrum(square: Float[Tensor, "k k"], n: int) -> tuple[Float[Tensor, " k"], Float[Tensor, "k k"]]:
    """Eigenvalues over n, the largest first, and their eigenvectors."""
    value, vector = torch.linalg.eigh(square)
    return value.flip(0).clamp_min(0) / n, vector.flip(1)

"""A normal distribution fitted to few rows, and how far others are from it.

The covariance is shrunk towards a multiple of the identity, Sigma = (1 - w) S + w mu I with mu = tr S / d, by the
weight that is best in squared error. With x_i the n rows less their mean and S their covariance (over n) it is

    w = min(1, sum_i ||x_i x_i' - S||^2 / n^2 / ||S - mu I||^2)

so that Sigma has an inverse however few rows there are. The squared distance (x - m)' Sigma^-1 (x - m) of a normal row
is chi-square with d degrees of freedom where w is 0 and n large.

References: Mahalanobis (1936); Ledoit and Wolf (2004), "A well-conditioned estimator for large-dimensional covariance
matrices".
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError


@dataclass(frozen=True)
class Gaussian:
    """A normal distribution, float64.

    Attributes:
        mean: Its mean.
        factor: Lower triangular L with Sigma = L L'.
        weight: Weight w of the identity in Sigma.
    """

    mean: Float[Tensor, " d"]
    factor: Float[Tensor, "d d"]
    weight: float

    def whitened(self, z: Float[Tensor, "m d"]) -> Float[Tensor, "m d"]:
        """Rows as L^-1 (z - mean), of unit covariance where they are of this distribution."""
        centred = (z.to(self.mean) - self.mean).T
        found: Tensor = torch.linalg.solve_triangular(self.factor, centred, upper=False)
        return found.T

    def distance2(self, z: Float[Tensor, "m d"]) -> Float[Tensor, " m"]:
        """Squared Mahalanobis distance of rows."""
        return self.whitened(z).square().sum(1)


def gaussian(z: Float[Tensor, "n d"], *, mean: Float[Tensor, "n d"] | None = None, shrunk: bool = True) -> Gaussian:
    """The normal distribution of rows.

    Args:
        z: Rows.
        mean: What is taken from each row instead of the mean of all, that of its class, say; the mean of the result is
            then 0, and rows are to be centred likewise.
        shrunk: Whether the covariance is shrunk.

    Raises:
        InputError: fewer than two rows, rows that are not finite, rows that are all the same, or a covariance without
            an inverse that may not be shrunk.
    """
    z = z.double()
    if len(z) < 2 or not bool(z.isfinite().all()):
        odd = "rows that are not finite" if len(z) >= 2 else f"{len(z)}"
        raise InputError(f"z: expected at least two finite rows to fit a normal distribution to, got {odd}")
    centre = z.mean(0) if mean is None else torch.zeros_like(z[0])
    x = z - (centre if mean is None else mean.double())
    covariance = x.T @ x / len(x)
    scale = float(covariance.diagonal().mean())
    if not scale > 0:
        raise InputError("z: expected rows that differ, got rows that are all the same")
    weight = _weight(x, covariance, scale) if shrunk else 0.0
    shrunken = (1 - weight) * covariance + weight * scale * torch.eye(z.shape[1]).to(covariance)
    factor, failed = torch.linalg.cholesky_ex(shrunken)
    if int(failed) or not bool((factor.diagonal() > 1e-9 * scale**0.5).all()):
        raise InputError(
            f"z: expected a covariance with an inverse, got a singular one of {len(z)} rows in {z.shape[1]} columns; "
            f"fit to more rows{'' if shrunk else ', to fewer features, or let it be shrunk'}"
        )
    return Gaussian(centre, factor, weight)


def _weight(x: Float[Tensor, "n d"], covariance: Float[Tensor, "d d"], scale: float) -> float:
    """Weight of the identity; sum_i ||x_i x_i' - S||^2 is sum_i ||x_i||^4 - n ||S||^2."""
    n, size = len(x), covariance.square().sum()
    spread = size - scale**2 * len(covariance)  # ||S - mu I||^2
    noise = (x.square().sum(1).square().sum() - n * size) / n**2
    return float((noise / spread).clamp(0, 1)) if spread > 1e-12 * size else 1.0

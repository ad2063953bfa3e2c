"""A density from few rows: a normal kernel at each of them, in coordinates of unit covariance.

    p(w) = mean_i N(w; w_i, h^2 I),   h = n^(-1 / (d + 4)) (Scott's rule),   w as `Density.whitened`

References: Parzen (1962); Scott (1992), "Multivariate density estimation".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.ood.standard import Density


@dataclass(frozen=True)
class Kernel:
    """The density.

    Attributes:
        density: Scale and covariance of the numbers.
        rows: The fitted rows w_i.
    """

    density: Density
    rows: Float[Tensor, "n k"]

    @classmethod
    def of(cls, v: Float[Tensor, "n k"], what: str) -> "Kernel":
        """That of the fitted images; arguments and errors as `Density.of`."""
        density = Density.of(v, what)
        return cls(density, density.whitened(v))

    @property
    def bandwidth(self) -> float:
        """H."""
        n, d = self.rows.shape
        return float(n ** (-1 / (d + 4)))

    def surprise(self, v: Float[Tensor, "m k"]) -> Float[Tensor, " m"]:
        """-log p of the numbers of other images, in the coordinates w."""
        n, d = self.rows.shape
        far = torch.cdist(self.density.whitened(v), self.rows) / self.bandwidth
        constant = math.log(n) + d * math.log(self.bandwidth * math.sqrt(2 * math.pi))
        return constant - (-far.square() / 2).logsumexp(1)

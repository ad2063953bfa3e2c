"""Several numbers of an image on one scale, and how unusual they are together.

z_k = (v_k - m_k) / s_k          m, s: mean and deviation of number k over the images it was fitted to
d^2 = z' Sigma^-1 z              Sigma: covariance of z, shrunk (`cfx.core.density`)
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.density import Gaussian, gaussian
from cfx.core.errors import InputError

_SAME = 1e-6  # deviation over mean from which values are taken to differ: above the rounding of float32
_LEAST = 3  # images for a covariance


@dataclass(frozen=True)
class Standard:
    """Means and deviations.

    Attributes:
        mean: Mean of each number, float64.
        deviation: Its deviation, float64.
    """

    mean: Float[Tensor, " k"]
    deviation: Float[Tensor, " k"]

    @classmethod
    def of(cls, v: Float[Tensor, "n k"], what: str) -> "Standard":
        """Those of the fitted images.

        Args:
            v: Numbers of each image.
            what: What they are, for errors.

        Raises:
            InputError: numbers that are not finite, or the same for every image.
        """
        v = v.double()
        mean, deviation = v.mean(0), v.std(0)
        if not bool(v.isfinite().all()):
            raise InputError(f"cohort: expected finite {what}, got NaN or infinite ones; does the network know images?")
        if same := (~(deviation > _SAME * mean.abs())).nonzero().flatten().tolist():
            raise InputError(
                f"cohort: expected {what} that differ between images, got the same for all {len(v)} at {same[:8]} of "
                f"{v.shape[1]}; does the network return its input, or a constant?"
            )
        return cls(mean, deviation)

    def __call__(self, v: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """The numbers of other images as z, float64, on the CPU."""
        return (v.cpu().double() - self.mean) / self.deviation


@dataclass(frozen=True)
class Density:
    """How unusual several numbers are together.

    Attributes:
        standard: Their scale.
        normal: The normal distribution of z.
    """

    standard: Standard
    normal: Gaussian

    @classmethod
    def of(cls, v: Float[Tensor, "n k"], what: str) -> "Density":
        """That of the fitted images; arguments as `Standard.of`.

        Raises:
            InputError: as `Standard.of`; also fewer than three images.
        """
        if len(v) < _LEAST:  # of two rows the shrinkage is 0, and their covariance has no inverse
            raise InputError(f"cohort: expected at least {_LEAST} images for the density of {what}, got {len(v)}")
        standard = Standard.of(v, what)
        return cls(standard, gaussian(standard(v)))

    def distance2(self, v: Float[Tensor, "m k"]) -> Float[Tensor, " m"]:
        """Squared distance d^2 of the numbers of other images."""
        return self.normal.distance2(self.standard(v))

    def whitened(self, v: Float[Tensor, "m k"]) -> Float[Tensor, "m k"]:
        """The numbers as rows of about unit covariance."""
        return self.normal.whitened(self.standard(v))


def check_positive(what: str, value: float | int, least: float | int = 1) -> None:
    """Refuse a setting below what it can be.

    Raises:
        InputError: it is.
    """
    if not value >= least or value == torch.inf:
        raise InputError(f"{what}: expected a number of at least {least}, got {value}")

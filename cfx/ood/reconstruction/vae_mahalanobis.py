"""Error of a reconstruction, and how unusual its code is.

    score = mean |x - x_hat| + lambda (z - mu)' Sigma^-1 (z - mu),      z the mean of q(z | x), x_hat decoded from it

Reconstruction alone misses what is far from the codes of training and still on the decoder's surface. mu and Sigma are
mean and shrunk covariance (`cfx.core.density`) of the codes it is fitted to, lambda is the deviation of the first term
over that of the second, so that both count alike. Distances of the very codes that Sigma was made of hardly differ
where a code has more numbers than there are images; so those that lambda is made of are of each half of the images to
the other half. The map is that of the reconstruction. Cost: 2 passes of the autoencoder.

Reference: Denouden, Salay, Czarnecki, Abdelzad, Phan, Vernekar (2018), "Improving reconstruction autoencoder
out-of-distribution detection with Mahalanobis distance".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.density import Gaussian, gaussian
from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.errors import check_features, check_kind
from cfx.ood.reconstruction.vae import reconstruction_error
from cfx.ood.standard import Standard

_LEAST, _MOST = 6, 8192  # images, three in each half; numbers of a code, whose covariance has the square of it


@dataclass(frozen=True)
class VaeMahalanobis:
    """Settings of the detector.

    Attributes:
        error: Distance of an image and its reconstruction, as `VaeError` has it.

    Raises:
        InputError: another distance.
    """

    name: ClassVar[str] = "vae-mahalanobis"
    needs: ClassVar[tuple[str, ...]] = ("autoencoder",)
    error: str = "l1"

    def __post_init__(self) -> None:
        """Check the distance."""
        check_kind(self.error)

    def fit(self, learn: Learn) -> "VaeMahalanobisScorer":
        """The density of the codes and the weight of their distance.

        Raises:
            InputError: fewer than six images, codes of more than 8192 numbers, errors or distances that are the same
                for every image, or a perceptual distance without features.
        """
        check_features(self.error, learn)
        found = learn.collect(self._error_and_code).double()
        error, codes = found[:, 0], found[:, 1:]
        _check(codes)
        across = torch.cat([gaussian(codes[a::2]).distance2(codes[1 - a :: 2]) for a in (0, 1)])
        spread = Standard.of(error[:, None], "errors").deviation / Standard.of(across[:, None], "distances").deviation
        return VaeMahalanobisScorer(self.error, gaussian(codes), float(spread))

    def _error_and_code(self, ask: Ask) -> Float[Tensor, "b more"]:
        """The error of each image, and its code."""
        mean, _ = ask.encode(ask.x)
        error, _ = reconstruction_error(self.error, ask, ask.decode(mean))
        return torch.cat([error[:, None], mean.flatten(1)], 1)


def _check(codes: Float[Tensor, "n d"]) -> None:
    """Refuse too few codes, or too large ones."""
    if len(codes) < _LEAST:
        raise InputError(f"cohort: expected at least {_LEAST} images to weigh two terms, got {len(codes)}")
    if codes.shape[1] > _MOST:
        raise InputError(
            f"autoencoder: expected codes of at most {_MOST} numbers, for their covariance, got {codes.shape[1]}; "
            "fit to smaller images, or use the detector vae"
        )


@dataclass(frozen=True)
class VaeMahalanobisScorer:
    """The detector, fitted.

    Attributes:
        error: Distance of an image and its reconstruction.
        density: Normal distribution of the codes.
        weight: lambda.
    """

    error: str
    density: Gaussian
    weight: float

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        mean, _ = ask.encode(ask.x)
        error, where = reconstruction_error(self.error, ask, ask.decode(mean))
        distance = self.density.distance2(mean.flatten(1).cpu())
        score = error.cpu().double() + self.weight * distance
        return Scored(score, where, {"reconstruction": error, "mahalanobis": distance})

"""Squared Mahalanobis distance of features to the nearest class, with one covariance for all classes.

With z_l the features of layer l, m_lc their mean in class c and Sigma_l their covariance about the mean of their own
class,

    s(x) = min_c sum_l (z_l - m_lc)' Sigma_l^-1 (z_l - m_lc).

Several layers are taken for independent, so that their distances add to that of all. Without labels there is one class.
Relative, the same with one mean and its covariance for all classes is subtracted: what is unusual about any image
whatever its class cancels. Covariances are shrunk (`cfx.core.density`), so that few images and many features do; not
shrunk, s of a normal vector of d entries is chi-square with d degrees of freedom, noncentral for another mean. Cost: 1
evaluation of the features.

References: Lee et al. (2018), arXiv 1807.03888 (whose layers are weighed by images out of distribution); Ren et al.
(2021), arXiv 2106.09022 (relative).
"""

from dataclasses import dataclass
from typing import ClassVar, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.density import Gaussian, gaussian
from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.distance.vectors import collected, vectors


@dataclass(frozen=True)
class Mahalanobis:
    """Settings of the detector.

    Attributes:
        relative: Whether the distance to all images is subtracted; needs labels.
        shrunk: Whether covariances are shrunk.
    """

    name: ClassVar[str] = "mahalanobis"
    needs: ClassVar[tuple[str, ...]] = ("features",)
    relative: bool = False
    shrunk: bool = True

    def fit(self, learn: Learn) -> "MahalanobisScorer":
        """Means and covariances.

        Raises:
            InputError: no labels where they are needed, one image a class, or a singular covariance that is not shrunk.
        """
        y = place(learn.cohort.y)
        if y is None and self.relative:
            raise InputError("cohort.y: expected one class label an image for a relative distance, got none")
        if y is not None and int(y.max()) + 1 == len(y):
            raise InputError(f"cohort.y: expected more than one image of some class, got {len(y)} classes of one each")
        return MahalanobisScorer(self.relative, tuple(self._layer(k, z, y) for k, z in enumerate(collected(learn))))

    def _layer(self, k: int, z: Float[Tensor, "n d"], y: Int[Tensor, " n"] | None) -> "Layer":
        """One layer, which errors name."""
        try:
            return Layer.of(z, y, self.shrunk)
        except InputError as error:
            raise InputError(f"features of layer {k}: {error}") from error


def place(y: Tensor | None) -> Int[Tensor, " n"] | None:
    """Number of each image's class among those that occur; None without exclusive labels."""
    return None if y is None or y.ndim != 1 else y.unique(return_inverse=True)[1]


@dataclass(frozen=True)
class Layer:
    """One layer, fitted.

    Attributes:
        density: Features about the mean of their class.
        mean: Whitened mean of every class.
        whole: Features without regard to class.
    """

    density: Gaussian
    mean: Float[Tensor, "k d"]
    whole: Gaussian

    @classmethod
    def of(cls, z: Float[Tensor, "n d"], y: Int[Tensor, " n"] | None, shrunk: bool) -> Self:
        """The layer with these features."""
        y = torch.zeros(len(z), dtype=torch.long) if y is None else y
        member = torch.nn.functional.one_hot(y).to(z)
        mean = member.T @ z / member.sum(0)[:, None]
        density = gaussian(z, mean=mean[y], shrunk=shrunk)
        return cls(density, density.whitened(mean), gaussian(z, shrunk=shrunk))

    def distance2(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        """Squared distance to every class."""
        return (self.density.whitened(z)[:, None] - self.mean).square().sum(2)


@dataclass(frozen=True)
class MahalanobisScorer:
    """The detector, fitted.

    Attributes:
        relative: Whether the distance to all images is subtracted.
        layers: Its layers.
    """

    relative: bool
    layers: tuple[Layer, ...]

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch; with several layers, the distance in each as well."""
        z = vectors(ask)
        each = [layer.distance2(v) for layer, v in zip(self.layers, z, strict=True)]
        score = torch.stack(each).sum(0).amin(1)
        if self.relative:
            score = score - torch.stack([f.whole.distance2(v) for f, v in zip(self.layers, z, strict=True)]).sum(0)
        return Scored(score, None, {f"layer_{k}": d.amin(1) for k, d in enumerate(each)} if len(each) > 1 else {})

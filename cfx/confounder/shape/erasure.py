"""What shape leaves in an image after its support is normalised, erased.

A brain warped to the template still says what shape it had: its inside was carried along. Let z be what is known of the
shape: k principal scores of the signed distance of the brain as it was, and the products of the first few of them,
because the traces are not linear in the shape. With S the covariance of normalised images x within the classes, and C
that of x and z, the least change of images (in the metric of S) after which no linear reader finds z is

    x' = x - S^(1/2) P S^(-1/2) (x - m),    P the projector on the columns of S^(-1/2) C,

which reads the traces off the image itself and takes them away: a warp that changes the outline alone changes nothing
here. Covariances are those within the classes, so what goes with the class for other reasons is not looked for, also
where class and shape go together. The map is fixed by training images and never sees those to classify.

Reference: Belrose, Schneider-Joseph, Ravfogel, Cotterell, Raff, Biderman (2023), "LEACE: Perfect linear concept erasure
in closed form", Theorem 4.2, here with covariances within classes.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.confounder.probes.features import sdf
from cfx.confounder.shape.normalise import BACKGROUND, Normaliser
from cfx.core.cohort import Cohort
from cfx.core.components import components
from cfx.core.distance import solid
from cfx.core.errors import InputError

_RIDGE = 1e-4  # added to the variance of every direction, relative to the mean variance of a voxel
_NONE = 1e-3  # standard deviations this small, relative to the largest, are rounding
_UNLINKED = 1e-6  # so are correlations with what is known
_DARKEST = BACKGROUND + 2 / 255  # inside, nothing is as dark as the background


@dataclass(frozen=True)
class ShapeFree:
    """Images in one shape, without what their own shape left in them.

    Attributes:
        normaliser: Brings every brain to the template and forces its support.
        mean: Mean of the voxels of the support, channels first: m.
        reading: Voxels to traces `(p, r)`.
        writing: Traces to voxels `(r, p)`; `reading` of it is the identity.
    """

    normaliser: Normaliser
    mean: Float[Tensor, " p"]
    reading: Float[Tensor, "p r"]
    writing: Float[Tensor, "r p"]

    @classmethod
    def fit(cls, cohort: Cohort, normaliser: Normaliser, *, scores: int = 80, products: int = 12) -> Self:
        """Learn the map from training images; some thousands of them, since errors of C are traces that stay.

        Args:
            cohort: Labelled training images with masks, as they were before normalisation.
            normaliser: Brings them to the template.
            scores: Principal scores of the shape; at most a tenth of the rows are used.
            products: First scores whose products are erased as well; at most as many as give a tenth of the rows.

        Raises:
            InputError: no masks or class labels, fewer than 20 rows, no scores, or fewer than no products.
        """
        if cohort.mask is None or cohort.y is None or cohort.y.ndim != 1:
            raise InputError("cohort: expected masks and one class label a row, got not both")
        if len(cohort) < 20 or scores < 1 or products < 0:
            raise InputError(
                f"cohort, scores, products: expected 20 rows, a score and 0 or more, got {len(cohort)}, {scores}, "
                f"{products}"
            )
        x = normaliser.cohort(replace(cohort, x_true=None)).x
        flat = _voxels(x, normaliser.support).double()
        mean = flat.mean(0)
        z = _within(_known(cohort.mask, scores, products), cohort.y)
        reading, writing = _erase(_within(flat, cohort.y), z)
        return cls(normaliser, mean.float(), reading.float(), writing.float())

    def __call__(self, x: Float[Tensor, "n c *space"], mask: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n c *space"]:
        """Images in the template's shape, their traces erased.

        Args:
            x: Images in [-1, 1].
            mask: Their brains.

        Raises:
            InputError: as `Normaliser`.
        """
        return self._less(self.normaliser(x, mask).x)

    def cohort(self, cohort: Cohort) -> Cohort:
        """A cohort of such images, as `Normaliser.cohort`; the true counterfactuals lose their traces likewise.

        Raises:
            InputError: as `Normaliser.cohort`.
        """
        done = self.normaliser.cohort(cohort)
        other = None if done.x_true is None else self._less(done.x_true)
        return replace(done, x=self._less(done.x), x_true=other)

    def _less(self, x: Tensor) -> Tensor:
        support = self.normaliser.support
        flat = _voxels(x, support)
        left = flat - ((flat - self.mean) @ self.reading) @ self.writing
        out = torch.full_like(x, BACKGROUND)
        out[support.expand_as(x)] = left.clamp(_DARKEST, 1).flatten()
        return out


def _voxels(x: Float[Tensor, "n c *space"], support: Bool[Tensor, "1 1 *space"]) -> Float[Tensor, "n p"]:
    """The voxels of the support, channels first."""
    return x[support.expand_as(x)].view(len(x), -1)


def _known(mask: Tensor, scores: int, products: int) -> Float[Tensor, "n k"]:
    """What is known of the shapes: scores of unit variance, and products of the first ones."""
    n = len(mask)
    columns = sdf(solid(mask)).values.double()
    found = components(columns, share=_NONE, most=min(scores, n // 10))
    z = found.scores(columns) / found.spread
    while products * (products + 1) // 2 > n // 10:
        products -= 1
    i, j = torch.triu_indices(min(products, z.shape[1]), min(products, z.shape[1]))
    return torch.cat([z, z[:, i] * z[:, j]], 1)


def _within(v: Float[Tensor, "n k"], y: Int[Tensor, " n"]) -> Float[Tensor, "n k"]:
    """Columns less their means in each class."""
    hot = torch.nn.functional.one_hot(y).to(v)
    return v - hot @ (hot.T @ v / hot.sum(0)[:, None].clamp_min(1))


def _erase(x: Float[Tensor, "n p"], z: Float[Tensor, "n k"]) -> tuple[Float[Tensor, "p r"], Float[Tensor, "r p"]]:
    """S^(-1/2) U and its left inverse, U an orthonormal basis of the columns of S^(-1/2) C."""
    n, p = x.shape
    found = components(x, share=_NONE)
    v, spread = found.axes, (found.variance + _RIDGE * found.variance.sum() / p).sqrt()
    u, size, _ = torch.linalg.svd((v / spread).T @ (x.T @ z / n), full_matrices=False)
    u = u[:, size > _UNLINKED * size[0]]
    return (v / spread) @ u, (v * spread @ u).T

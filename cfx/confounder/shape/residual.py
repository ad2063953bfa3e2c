"""What shape leaves in an image after its support is normalised, taken out by regression.

A brain warped to the template still says what shape it had: its inside was carried along. So every voxel is regressed
on the shape, beside the class, in training images,

    x_i = a_(y_i) + B z_i + e_i,    z the principal scores of the signed distance of the brain as it was,

and B z is subtracted from every image. With the class in the model the part of the image that goes with the disease
stays, also where class and shape go together. B is fixed by training images and never sees those to classify.

References: Snoek, Miletic and Scholte (2019), "How to control for confounds in decoding analyses of neuroimaging data":
regression within the training set; Johnson, Li and Rabinovic (2007) for keeping the class in the model.
"""

from dataclasses import dataclass, replace
from typing import Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfx.confounder.shape.normalise import BACKGROUND, Normaliser
from cfx.confounder.views.features import sdf
from cfx.core.distance import solid
from cfx.core.errors import InputError
from cfx.core.values import Cohort

_RIDGE = 1.0  # in units of one row: scores have unit variance
_DARKEST = BACKGROUND + 2 / 255  # inside, nothing is as dark as the background


@dataclass(frozen=True)
class ShapeFree:
    """Images in one shape, without what their own shape left in them.

    Attributes:
        normaliser: Brings every brain to the template and forces its support.
        mean: Mean of the shape's columns.
        basis: Columns to scores of unit variance `(p, k)`.
        weight: Scores to voxels `(k, c, *space)`: B.
    """

    normaliser: Normaliser
    mean: Float[Tensor, " p"]
    basis: Float[Tensor, "p k"]
    weight: Float[Tensor, "k c *space"]

    @classmethod
    def fit(cls, cohort: Cohort, normaliser: Normaliser, *, scores: int = 80) -> Self:
        """Learn B from training images.

        Args:
            cohort: Labelled training images with masks, as they were before normalisation.
            normaliser: Brings them to the template.
            scores: Principal scores of the shape, k; at most a tenth of the rows are used.

        Raises:
            InputError: no masks or class labels, fewer than 20 rows, or no scores.
        """
        if cohort.mask is None or cohort.y is None or cohort.y.ndim != 1:
            raise InputError("cohort: expected masks and one class label a row, got not both")
        if len(cohort) < 20 or scores < 1:
            raise InputError(f"cohort, scores: expected 20 rows and a score, got {len(cohort)} and {scores}")
        columns = sdf(solid(cohort.mask)).values.double()
        mean = columns.mean(0)
        _, size, v = torch.linalg.svd(columns - mean, full_matrices=False)
        k = min(scores, len(cohort) // 10, int((size > 1e-6 * size[0]).sum()))
        basis = v[:k].T / (size[:k] / len(cohort) ** 0.5)
        x = normaliser.cohort(cohort).x.double()
        z = (columns - mean) @ basis
        hot = torch.nn.functional.one_hot(cohort.y).double()
        design = torch.cat([z, hot], 1)
        penalty = torch.diag(torch.tensor([_RIDGE] * k + [1e-6] * hot.shape[1], dtype=torch.float64))
        weight = torch.linalg.solve(design.T @ design + penalty, design.T @ x.flatten(1))[:k]
        return cls(normaliser, mean, basis, weight.view(k, *x.shape[1:]).float())

    def __call__(self, x: Float[Tensor, "n c *space"], mask: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n c *space"]:
        """Images in the template's shape, B z less.

        Args:
            x: Images in [-1, 1].
            mask: Their brains.

        Raises:
            InputError: as `Normaliser`.
        """
        return self._less(self.normaliser(x, mask).x, mask)

    def cohort(self, cohort: Cohort) -> Cohort:
        """A cohort of such images, as `Normaliser.cohort`; without true counterfactuals, whose shape is not known.

        Raises:
            InputError: as `Normaliser.cohort`.
        """
        done = self.normaliser.cohort(replace(cohort, x_true=None))
        assert cohort.mask is not None
        return replace(done, x=self._less(done.x, cohort.mask))

    def scores(self, mask: Bool[Tensor, "n 1 *space"]) -> Float[Tensor, "n k"]:
        """The shape of brains: z."""
        return ((sdf(solid(mask)).values.double() - self.mean) @ self.basis).float()

    def _less(self, x: Tensor, mask: Tensor) -> Tensor:
        left = x - torch.tensordot(self.scores(mask), self.weight, 1)
        return torch.where(self.normaliser.support, left.clamp(_DARKEST, 1), BACKGROUND)

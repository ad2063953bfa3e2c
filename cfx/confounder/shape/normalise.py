"""Every image in one shape: the remedy whose effect can be proved, because the support is the same afterwards.

A warp alone leaves the shape readable (masks that overlap by 0.97 are still told apart), so the support is forced: the
template eroded by a few voxels, the same bits for every image, with one background value outside it. What the shape
was is then still in the log-Jacobian, which is returned so that it can be probed; it is not in the image's support.
"""

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cfx.confounder.shape.transfer import Transfer, Transferred
from cfx.core import geometry
from cfx.core.cohort import Cohort
from cfx.core.distance import check_mask, signed_distance, solid
from cfx.core.errors import InputError

BACKGROUND = -1.0
_GREY = 2 / 255  # the least that the inside differs from the background
_VOXELS = 1 << 19  # most voxels worked on together


@dataclass(frozen=True)
class Normalised:
    """Images in the shape of the template.

    Attributes:
        x: Images `(n, c, *space)` in [-1, 1]: `BACKGROUND` outside the support, above it inside.
        mask: The support, the same in every row.
        log_jacobian: Logarithm of the volume that each voxel had in the image, per volume now; 0 outside the support.
        transfer: The warp and its quality; its `ok` says which rows came out as they should.
    """

    x: Float[Tensor, "n c *space"]
    mask: Bool[Tensor, "n 1 *space"]
    log_jacobian: Float[Tensor, "n 1 *space"]
    transfer: Transferred


@dataclass(frozen=True)
class Normaliser:
    """Warps to a template, and forces its support.

    Attributes:
        template: The shape `(1, 1, *space)`, as from `mean_shape`.
        erosion: Voxels taken off its surface, so that the rim, where images differ most, is left out.
        transfer: How a shape is given.

    Raises:
        InputError: a template that is not one mask, or nothing left of it.
    """

    template: Bool[Tensor, "1 1 *space"]
    erosion: int = 1
    transfer: Transfer = field(default_factory=Transfer)

    def __post_init__(self) -> None:
        """Check that there is a support."""
        check_mask(self.template, "template")
        if len(self.template) != 1 or self.erosion < 0:
            raise InputError(
                f"template, erosion: expected one mask and 0 or more, got {len(self.template)}, {self.erosion}"
            )
        if not bool(self.support.any()):
            raise InputError(f"erosion: expected something left of the template, got none after {self.erosion} voxels")

    @property
    def support(self) -> Bool[Tensor, "1 1 *space"]:
        """The eroded template."""
        return signed_distance(self.template) <= -self.erosion

    def __call__(self, x: Float[Tensor, "n c *space"], mask: Bool[Tensor, "n 1 *space"]) -> Normalised:
        """Images in the template's shape.

        Args:
            x: Images in [-1, 1].
            mask: Their brains; holes are filled and the largest component is taken.

        Raises:
            InputError: see `transfer.Transfer`.
        """
        mask = solid(mask)
        done = self.transfer(x, mask, self.template.expand(len(x), *self.template.shape[1:]))
        support = self.support.expand_as(mask)
        return Normalised(self._cut(done.x), support, geometry.log_jacobian(done.u) * support, done)

    def cohort(self, cohort: Cohort) -> Cohort:
        """A cohort in the template's shape: lesions and true counterfactuals take the same warp as their image.

        Returns:
            The cohort with `mask` the support, and the covariate `normalised_ok`: 1 where the warp can be trusted.

        Raises:
            InputError: a cohort without masks; see `transfer.Transfer`.
        """
        if cohort.mask is None:
            raise InputError("cohort: expected masks, got none")
        rows = max(1, _VOXELS // cohort.x[0, 0].numel())
        parts = [self._some(cohort[k : k + rows]) for k in range(0, len(cohort), rows)]
        joined = {k: torch.cat([p[k] for p in parts]) for k in parts[0]}
        covariates = {**cohort.covariates, "normalised_ok": joined.pop("ok").float()}
        return replace(cohort, covariates=covariates, **joined)  # type: ignore[arg-type]

    def _some(self, cohort: Cohort) -> dict[str, Tensor]:
        """Fields that the warp changes, of a few rows."""
        assert cohort.mask is not None
        n = self(cohort.x, cohort.mask)
        fields = {"x": n.x, "mask": n.mask.clone(), "ok": n.transfer.ok}
        if cohort.lesion is not None:
            fields["lesion"] = (geometry.warp(cohort.lesion.to(n.x), n.transfer.u) >= 0.5) & n.mask
        if cohort.x_true is not None:
            fields["x_true"] = self._cut(n.transfer.along(cohort.x_true))
        return fields

    def _cut(self, x: Tensor) -> Tensor:
        """The images on the support alone; inside, nothing is as dark as the background."""
        return torch.where(self.support, x.clamp_min(BACKGROUND + _GREY), BACKGROUND)


def mean_shape(masks: Bool[Tensor, "n 1 *space"]) -> Bool[Tensor, "1 1 *space"]:
    """The mean of shapes: where the mean of their signed distances is negative.

    Raises:
        InputError: see `core.distance.check_mask`; or shapes so far apart that their mean is empty.
    """
    mean = signed_distance(masks).mean(0, keepdim=True) <= 0
    check_mask(mean, "masks")
    return solid(mean)

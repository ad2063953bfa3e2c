"""How near images are to real ones, against how near real ones are to each other; in pixels, with no network."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.cohort import Cohort, subjects


@dataclass(frozen=True)
class Neighbours:
    """Real images, and how near they are to each other.

    Attributes:
        real: The images, flat.
        apart: Mean distance of a real image to the nearest of another subject.
    """

    real: Float[Tensor, "m values"]
    apart: float

    @classmethod
    def of(cls, reference: Cohort) -> "Neighbours | None":
        """Those of a reference; None if it is of fewer than two subjects, or of one image over and over."""
        real, of = reference.x.flatten(1).float(), subjects(reference)
        of = torch.arange(len(real)) if of is None else of
        distance = torch.cdist(real, real).masked_fill(of[:, None] == of, torch.inf)
        apart = float(distance.amin(1).mean()) if len(real) else torch.inf
        return cls(real, apart) if 0 < apart < torch.inf else None

    def nearest(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
        """Distance of each image to the nearest real one, over `apart`: 1 is as near as real ones are to each other."""
        return torch.cdist(x.flatten(1).to(self.real), self.real).amin(1).double() / self.apart

    def strayed(self, before: Float[Tensor, "n c *space"], after: Float[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
        """`nearest` of images that were changed, over that of the images before where these were farther than 1."""
        return self.nearest(after) / self.nearest(before).clamp_min(1)

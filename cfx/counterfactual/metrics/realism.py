"""Where the counterfactuals are compared with real images: as a set in named feature spaces, and each with its nearest.

The distances of sets are in `cfx.core.sets`; one means nothing without the name of its space. The nearest real image is
sought in pixels, which needs no network and works in any dimension.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.cohort import Cohort, subjects
from cfx.core.errors import InputError
from cfx.models.features import PooledFeatures
from cfx.models.running import in_batches


@dataclass(frozen=True)
class FeatureSpace:
    """Where images are compared; a distance means nothing without the name of its space.

    Attributes:
        name: What the space is called in reports.
        features: Images to feature vectors `(b, d)`.
    """

    name: str
    features: Callable[[Tensor], Tensor]

    def __call__(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n d"]:
        """Features of all images, in float64 on the CPU.

        Raises:
            InputError: the features are not one finite vector an image.
        """
        found = in_batches(self.features, x).double()
        if found.ndim != 2 or not bool(found.isfinite().all()):
            raise InputError(f"features of {self.name}: expected finite vectors (n, d), got shape {tuple(found.shape)}")
        return found


def penultimate(classifier: nn.Module, name: str, layer: str | None = None) -> FeatureSpace:
    """The space a classifier decides in: its last feature map, averaged over space.

    Args:
        classifier: A network of this package, or any other with `layer`.
        name: What the space is called in reports.
        layer: Name of the part that returns the map, or the vectors.

    Raises:
        InputError: see `cfx.models.features.FeatureMaps`.
    """
    return FeatureSpace(name, PooledFeatures(classifier, layer))


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
        nearest = distance.amin(1) if len(real) else torch.full((1,), torch.inf)
        apart = float(nearest.mean())
        return cls(real, apart) if 0 < apart < torch.inf else None

    def nearest(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
        """Distance of each image to the nearest real one, over `apart`: 1 is as near as real ones are to each other."""
        return torch.cdist(x.flatten(1).to(self.real), self.real).amin(1).double() / self.apart

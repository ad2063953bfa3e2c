"""Where the counterfactuals, as a set, are compared with real images: named feature spaces.

The distances themselves are in `cfx.core.sets`; one means nothing without the name of its space.
"""

from collections.abc import Callable
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

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

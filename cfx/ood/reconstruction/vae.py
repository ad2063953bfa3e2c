"""Error of a variational autoencoder's reconstruction: what it has not learnt it cannot give back.

    score = mean |x - x_hat|, or another distance of `errors`, with x_hat decoded from the mean of q(z | x)

One-sided: an image that is simpler than those it was fitted to is restored better, and passes (a blurred one, say). The
map is the distance at every voxel. Cost: 2 passes of the autoencoder; perceptual, 2 of the feature extractor too.

Reference: An, Cho (2015), "Variational autoencoder based anomaly detection using reconstruction probability".
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.errors import check_features, check_kind, error_map, feature_error, per_image


@dataclass(frozen=True)
class VaeError:
    """Settings of the detector.

    Attributes:
        error: Distance of an image and its reconstruction: `l1`, `l2`, `ssim`, or `perceptual`, in the maps of the
            features.

    Raises:
        InputError: another distance.
    """

    name: ClassVar[str] = "vae"
    needs: ClassVar[tuple[str, ...]] = ("autoencoder",)
    error: str = "l1"

    def __post_init__(self) -> None:
        """Check the distance."""
        check_kind(self.error)

    def fit(self, learn: Learn) -> "VaeError":
        """Itself: there is nothing to fit.

        Raises:
            InputError: a perceptual distance without features.
        """
        check_features(self.error, learn)
        return self

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        score, where = reconstruction_error(self.error, ask, ask.decode(ask.encode(ask.x)[0]))
        return Scored(score, where, {"feature_distance": score} if self.error == "perceptual" else {})


def reconstruction_error(
    kind: str, ask: Ask, back: Float[Tensor, "b c *space"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b 1 *space"] | None]:
    """The distance of each image of a batch to what was made of it, and where it is."""
    if kind == "perceptual":
        return feature_error(ask.features(ask.x), ask.features(back), tuple(ask.x.shape[2:]))
    where = error_map(kind, ask.x, back)
    return per_image(where), where

"""What a fitted detector returns: a score and a p-value of every image, and what they cost."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.codes import Code
from cfx.core.conformal import benjamini_hochberg
from cfx.core.rows import Rows, about


class Membership(Code):
    """Whether an image is of the distribution; `meaning` says it in a sentence."""

    IN = 0, "As ordinary as the images it was calibrated on, at the level asked for."
    OUT = 1, "More unusual than all but a share `level` of the images it was calibrated on."


@dataclass(frozen=True)
class OodScores(Rows):
    """How far images are out of distribution, one row an image.

    Attributes:
        score: Higher is more out of distribution; in units of the detector's own.
        p: Conformal p-value, (1 + calibration images of at least this score) / (1 + calibration images): of images of
            the distribution at most a share u has p <= u, for every u.
        verdict: `Membership` codes: out where p is at most `level`.
        row: Index of the row in the user's input.
        nfe_unet_forward: Generator (U-Net) evaluations spent on the row.
        nfe_unet_backward: Back-propagations through the generator.
        nfe_autoencoder: Passes through the encoder or the decoder of an autoencoder.
        nfe_classifier: Classifier forward evaluations, members of an ensemble included.
        nfe_classifier_backward: Classifier gradients.
        nfe_features: Passes through a feature extractor.
        seconds: Wall-clock seconds spent on the row: an equal share of those of its batch.
        detector: Name of the detector.
        level: Share of in-distribution images that may be called out.
        calibrated: Number of images the p-values stand on; none is below 1 / (1 + calibrated).
        map: Where in the image, higher likewise, `(n, 1, *space)`; None where the detector does not say.
        statistics: What the score was made of, by name.
    """

    score: Float[Tensor, " n"]
    p: Float[Tensor, " n"]
    verdict: Int[Tensor, " n"] = field(metadata=about(codes=Membership))
    row: Int[Tensor, " n"]
    nfe_unet_forward: Int[Tensor, " n"]
    nfe_unet_backward: Int[Tensor, " n"]
    nfe_autoencoder: Int[Tensor, " n"]
    nfe_classifier: Int[Tensor, " n"]
    nfe_classifier_backward: Int[Tensor, " n"]
    nfe_features: Int[Tensor, " n"]
    seconds: Float[Tensor, " n"]
    detector: str
    level: float
    calibrated: int
    map: Float[Tensor, "n 1 *space"] | None = None
    statistics: Mapping[str, Float[Tensor, " n"]] = field(default_factory=dict)

    def discoveries(self, alpha: float) -> Tensor:
        """Rows called out so that on average at most a share `alpha` of them is of the distribution (all rows at once).

        Raises:
            InputError: `alpha` outside (0, 1).
        """
        return benjamini_hochberg(self.p) <= alpha

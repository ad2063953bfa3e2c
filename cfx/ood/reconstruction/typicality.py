"""How far the likelihood of an image is from that of ordinary ones, on either side.

    score = |L(x) - mean of L over the images it is fitted to|,    L = -ELBO of `elbo`

The typical set, not the most likely place: an image that is far too likely is as odd as one that is unlikely. This is
the test for a single image. Cost: 1 + `draws` passes of the autoencoder.

Reference: Nalisnick, Matsukawa, Teh, Lakshminarayanan (2019), "Detecting out-of-distribution inputs to deep generative
models using typicality".
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.elbo import Elbo
from cfx.ood.standard import check_positive


@dataclass(frozen=True)
class Typicality:
    """Settings of the detector.

    Attributes:
        draws: Draws of the latent.

    Raises:
        InputError: no draws.
    """

    name: ClassVar[str] = "typicality"
    needs: ClassVar[tuple[str, ...]] = ("autoencoder",)
    draws: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("draws", self.draws)

    def fit(self, learn: Learn) -> "TypicalityScorer":
        """The bound and its mean over these images; errors as `Elbo.of`."""
        elbo = Elbo.of(learn, self.draws)
        return TypicalityScorer(elbo, float(learn.collect(elbo.negative).double().mean()))


@dataclass(frozen=True)
class TypicalityScorer:
    """The detector, fitted.

    Attributes:
        elbo: The bound.
        entropy: Mean of -ELBO over the images it was fitted to.
    """

    elbo: Elbo
    entropy: float

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        surprise = self.elbo.negative(ask)
        return Scored((surprise - self.entropy).abs(), statistics={"surprise": surprise})

"""The negative evidence lower bound of a variational autoencoder, -ELBO(x) of `elbo`: unlikely images score high.

Likelihood is no reliable sign: what is simpler than the images of training is often more likely than they are. Parts
say how much is the reconstruction and how much the code. The map is the squared error of what is decoded of the mean,
averaged over channels. Cost: 2 + `draws` passes of the autoencoder.

References: Kingma, Welling (2014), "Auto-encoding variational Bayes"; Nalisnick, Matsukawa, Teh, Gorur,
Lakshminarayanan (2019), "Do deep generative models know what they don't know?".
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.elbo import Elbo
from cfx.ood.reconstruction.errors import error_map
from cfx.ood.standard import check_positive


@dataclass(frozen=True)
class VaeElbo:
    """Settings of the detector.

    Attributes:
        draws: Draws of the latent.

    Raises:
        InputError: no draws.
    """

    name: ClassVar[str] = "vae-elbo"
    needs: ClassVar[tuple[str, ...]] = ("autoencoder",)
    draws: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("draws", self.draws)

    def fit(self, learn: Learn) -> "VaeElboScorer":
        """The bound with the variance of these images; errors as `Elbo.of`."""
        return VaeElboScorer(Elbo.of(learn, self.draws))


@dataclass(frozen=True)
class VaeElboScorer:
    """The detector, fitted.

    Attributes:
        elbo: The bound.
    """

    elbo: Elbo

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        mean, std = ask.encode(ask.x)
        surprise, code = self.elbo.parts(ask, mean, std)
        where = error_map("l2", ask.x, ask.decode(mean))
        return Scored(surprise + code, where, {"reconstruction": surprise, "kl": code})

"""By how much the bound of one image grows when its latent is fitted to it alone.

    score = max_(m, s) ELBO(x; m, s) - ELBO(x; m(x), s(x))        with ELBO of `elbo`, a value of the image

The encoder is right about images like those it was trained on, so there is little to gain; the decoder alone may know
more of an image than the encoder does. m and log s start at what the encoder says and follow Adam, with fresh draws at
every step; the bound before and after is of the same draws. The paper tunes the weights of the encoder for one image at
a time, or, as here, the posterior itself; that has no weights in common, so that a whole batch is tuned at once and no
image knows of another. Cost: 1 + 2 `draws` + 2 `steps` passes of the autoencoder, a back-propagation counted as a pass.

Reference: Xiao, Yan, Amit (2020), "Likelihood regret: an out-of-distribution detection score for variational
auto-encoder".
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.reconstruction.elbo import Elbo, kl, squared
from cfx.ood.standard import check_positive


@dataclass(frozen=True)
class LikelihoodRegret:
    """Settings of the detector.

    Attributes:
        steps: Steps of Adam.
        rate: Its rate, in units of the latent.
        draws: Draws of the latent for the bound before and after.

    Raises:
        InputError: no steps or draws, or a rate that is not positive.
    """

    name: ClassVar[str] = "likelihood-regret"
    needs: ClassVar[tuple[str, ...]] = ("autoencoder",)
    steps: int = 100
    rate: float = 0.01
    draws: int = 4

    def __post_init__(self) -> None:
        """Check the settings."""
        check_positive("steps", self.steps)
        check_positive("draws", self.draws)
        check_positive("rate", self.rate, 1e-12)

    def fit(self, learn: Learn) -> "LikelihoodRegretScorer":
        """The bound with the variance of these images; errors as `Elbo.of`."""
        return LikelihoodRegretScorer(self, Elbo.of(learn, self.draws))


@dataclass(frozen=True)
class LikelihoodRegretScorer:
    """The detector, fitted.

    Attributes:
        settings: The detector.
        elbo: The bound.
    """

    settings: LikelihoodRegret
    elbo: Elbo

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch."""
        mean, std = ask.encode(ask.x)
        before = torch.stack(self.elbo.parts(ask, mean, std)).sum(0)
        after = torch.stack(self.elbo.parts(ask, *self._tuned(ask, mean, std))).sum(0)
        return Scored(before - after, statistics={"before": before, "after": after})

    @torch.enable_grad()
    def _tuned(self, ask: Ask, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation of each latent after the steps, without gradient."""
        mean, log_std = (v.detach().clone().requires_grad_() for v in (mean, std.log()))
        adam = torch.optim.Adam([mean, log_std], lr=self.settings.rate)
        rows = torch.arange(len(ask), device=ask.x.device)
        for k in range(self.elbo.draws, self.elbo.draws + self.settings.steps):
            error = squared(ask, mean, log_std.exp(), range(k, k + 1), self.elbo.seed)
            loss = self.elbo.surprise(error) + kl(mean, log_std.exp()) / ask.x[0].numel()
            mean.grad, log_std.grad = torch.autograd.grad(loss.sum(), [mean, log_std])
            ask.spent.count("autoencoder", rows)
            adam.step()
        return mean.detach(), log_std.detach().exp()

"""The evidence lower bound of a variational autoencoder, a value of an image.

    ELBO(x; m, s) = E_eps log N(x; D(m + s eps), v I) - KL(N(m, s^2) || N(0, I)),    q(z | x) = N(m, s^2)

in nats, divided by the number of values of an image. v is the mean squared error of reconstructions over the images it
is fitted to, the most likely variance of a decoder that gives only a mean. The draws eps are the same for every image.
Where the autoencoder was trained with a small weight of the KL term, as those of latent diffusion are, its codes are
far from N(0, I) and the bound is loose by the same amount for all images, more or less.

Reference: Kingma, Welling (2014), "Auto-encoding variational Bayes".
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.ood.detector import Ask, Learn

_TINY = 1e-12  # squared error below which a decoder returns its input


@dataclass(frozen=True)
class Elbo:
    """The bound with its fitted variance.

    Attributes:
        variance: Variance v of the decoder.
        draws: Number of draws eps.
        seed: Their seed.
    """

    variance: float
    draws: int
    seed: int

    @classmethod
    def of(cls, learn: Learn, draws: int) -> "Elbo":
        """The bound for the fitted images; 1 + `draws` passes of the autoencoder an image.

        Raises:
            InputError: the autoencoder returns every image as it is, or what is not finite, or has no deviation.
        """

        def errors(ask: Ask) -> Float[Tensor, "b 2"]:
            mean, std = ask.encode(ask.x)
            return torch.stack([squared(ask, mean, std, range(draws), learn.seed), kl(mean, std)], 1)

        variance, code = learn.collect(errors).double().mean(0).tolist()
        if not _TINY < variance < math.inf:
            raise InputError(
                f"autoencoder: expected one with some finite error, got a mean squared error of {variance:g}; "
                "does it return its input?"
            )
        if not math.isfinite(code):
            raise InputError(
                "autoencoder: expected positive deviations of the latent, got one of 0 or less; if encode gives "
                "logarithms of variances, return (mean, (logvar / 2).exp()); an autoencoder that is not variational "
                "has no such bound, its error is the detector vae"
            )
        return cls(variance, draws, learn.seed)

    def parts(self, ask: Ask, mean: Tensor, std: Tensor) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
        """-E log p(x | z) and the KL term, both over the number of values; `draws` passes of the decoder an image."""
        return self.surprise(squared(ask, mean, std, range(self.draws), self.seed)), kl(mean, std) / ask.x[0].numel()

    def negative(self, ask: Ask) -> Float[Tensor, " b"]:
        """-ELBO of a batch over the number of values; 1 + `draws` passes of the autoencoder an image."""
        return torch.stack(self.parts(ask, *ask.encode(ask.x))).sum(0)

    def surprise(self, squared_error: Float[Tensor, " b"]) -> Float[Tensor, " b"]:
        """-log N(x; x_hat, v I) over the number of values, of a mean squared error."""
        return (squared_error / self.variance + math.log(2 * math.pi * self.variance)) / 2


def squared(ask: Ask, mean: Tensor, std: Tensor, which: range, seed: int) -> Float[Tensor, " b"]:
    """Mean squared error of what is decoded of z = mean + std eps_k, over the draws k.

    Args:
        ask: The batch.
        mean: Mean of the latent of each image.
        std: Its deviation.
        which: Numbers of the draws.
        seed: Their seed.
    """
    eps = normal(tuple(mean.shape[1:]), seed=seed, row=torch.tensor(list(which)), stream=0xE1B0).to(mean)
    found = [(ask.decode(mean + std * e) - ask.x).square().flatten(1).mean(1) for e in eps]
    return torch.stack(found).mean(0)


def kl(mean: Float[Tensor, "b z *coarse"], std: Float[Tensor, "b z *coarse"]) -> Float[Tensor, " b"]:
    """KL(N(mean, std^2) || N(0, I)) of each latent, in nats; infinite where a deviation is 0."""
    return (mean.square() + std.square() - 1 - 2 * std.log()).flatten(1).sum(1) / 2

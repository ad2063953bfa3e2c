"""Stochastic segmentation network: logits that vary together, as a Gaussian of low rank.

With eta the logits of the foreground classes at all V voxels,

    eta | x ~ N(mu, P P' + diag(d)),   P of rank r,   p(y | eta) = prod_v softmax(0, eta_v)[y_v],

    loss = -log (1 / M) sum_m p(y | eta_m) / V,   eta_m = mu + P z_m + sqrt(d) e_m,   M draws.

mu, P and d are 1x1 convolutions of one map of features, so that an image is looked at once and a draw costs a
product of r numbers a voxel. The mask of a draw is its likeliest. Products of V probabilities differ by hundreds of
nats, so sums are of logarithms; d is bounded below; all of it is in single precision, whatever the trunk is in.

Reference: Monteiro, Le Folgoc, Coelho de Castro, Pawlowski, Marques, Kamnitsas, van der Wilk, Glocker (2020),
"Stochastic segmentation networks: modelling spatially correlated aleatoric uncertainty", arXiv 2006.06015.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional

from cfx.core.random import normal
from cfx.models.layers import convolution
from cfx.models.samplers.conditioned import LATENT, NOISE, PATCH_UNET, Trunk, likeliest, log_likelihood
from cfx.models.samplers.sampler import Code, Draw, MaskSampler, one_reader

_FLOOR = 1e-5  # least variance of a logit, as published


class Ssn(MaskSampler):
    """See the page."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        classes: int = 2,
        network: Mapping[str, Any] = PATCH_UNET,
        features: int = 16,
        rank: int = 10,
        draws: int = 20,
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            classes: Labels a voxel may have, background included.
            network: Registry name of a denoiser (`name`) and its own keywords; it is used without time.
            features: Numbers a voxel that the Gaussian is read from.
            rank: r.
            draws: M, draws of the logits in training.

        Raises:
            InputError: classes or network are none.
        """
        super().__init__(classes)
        self.rank, self.draws = rank, draws
        self.trunk = Trunk(spatial_dims, in_channels, features, network)
        self.multiple = self.trunk.multiple
        self.head = convolution(spatial_dims)(features, (classes - 1) * (2 + rank), 1)

    def forward(
        self, x: Float[Tensor, "b c *space"], readings: UInt8[Tensor, "b r *space"], draw: Draw
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor]]:
        """Negative log-likelihood of the mask of one reader, in nats a voxel."""
        y = one_reader(readings, draw)
        with torch.autocast(x.device.type, enabled=False):
            mean, factor, scale = self.encode(x)
            z = normal((self.draws, self.rank), seed=draw.seed, row=draw.slot, stream=LATENT)
            e = normal((self.draws, *mean.shape[1:]), seed=draw.seed, row=draw.slot, stream=NOISE)
            loss = -log_mean_likelihood(logits(mean, factor, scale, z, e), y) / y[0].numel()
        return loss, {"scale": scale.detach().mean()}

    def encode(self, x: Float[Tensor, "b c *space"]) -> Code:
        """The Gaussian: mu `(b, k, *space)`, P `(b, r, k, *space)` and sqrt(d), shaped as mu."""
        h = self.head(functional.silu(self.trunk(x))).float()
        mean, log_d, factor = h.split([self.classes - 1] * 2 + [(self.classes - 1) * self.rank], 1)
        return mean, factor.unflatten(1, (self.rank, -1)), (functional.softplus(log_d) + _FLOOR).sqrt()

    def draw(self, code: Code, *, seed: int, row: Int[Tensor, " b"]) -> UInt8[Tensor, "b *space"]:
        """The likeliest mask of one draw of the logits."""
        mean, factor, scale = code
        z = normal((1, self.rank), seed=seed, row=row, stream=LATENT)
        e = normal((1, *mean.shape[1:]), seed=seed, row=row, stream=NOISE)
        return likeliest(logits(mean, factor, scale, z, e)[:, 0])


def logits(
    mean: Float[Tensor, "b k *space"],
    factor: Float[Tensor, "b r k *space"],
    scale: Float[Tensor, "b k *space"],
    z: Float[Tensor, "b m r"],
    e: Float[Tensor, "b m k *space"],
) -> Float[Tensor, "b m k *space"]:
    """Draws eta_m = mu + P z_m + sqrt(d) e_m.

    Args:
        mean: mu.
        factor: P.
        scale: sqrt(d).
        z: Standard normals that all voxels share.
        e: Standard normals of every voxel.
    """
    shared = (z @ factor.flatten(2)).unflatten(2, mean.shape[1:])
    eta: Tensor = mean[:, None] + shared + scale[:, None] * e
    return eta


def log_mean_likelihood(eta: Float[Tensor, "b m k *space"], y: UInt8[Tensor, "b *space"]) -> Float[Tensor, " b"]:
    """Log (1 / M) sum_m p(y | eta_m) in nats."""
    m = eta.shape[1]
    each = log_likelihood(eta.flatten(0, 1), y.repeat_interleave(m, 0)).unflatten(0, (-1, m))
    total: Tensor = each.logsumexp(1)
    return total - math.log(m)

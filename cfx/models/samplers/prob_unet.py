"""Probabilistic U-Net: a conditional variational autoencoder of masks.

    z ~ p(z | x),  y ~ prod_v softmax(0, f(h(x), z))_v,

    loss = E_q [-log p(y | x, z)] + beta KL(q(z | x, y) | p(z | x)),

with p and q Gaussians of six independent numbers. Both terms are in nats of a whole mask, divided by the number of
voxels: the published remedy against a collapse of q onto p. A cross-entropy that is a mean over voxels beside a KL that
is a sum weighs the latter some thousand times too much, and nothing that is worth a nat is then learnt. beta = 1 is the
evidence bound itself, but at first z means nothing to the decoder, and q falls onto p before it does: on two readers of
whom one outlines half of an object the divergence stayed below .2 nats for 300 steps, and every draw was the same. With
beta = 0.1 both readings are learnt in 150.

The map of features h(x) is computed once an image. Combined with z voxel by voxel, as published, it gives draws that
contain one another; here z is laid out on a coarse grid, enlarged, and combined with h by a 3x3 convolution, so that a
draw may grow on one side and shrink on another.

References: Kohl, Romera-Paredes, Meyer, De Fauw, Ledsam, Maier-Hein, Eslami, Jimenez Rezende, Ronneberger (2018), "A
probabilistic U-Net for segmentation of ambiguous images", arXiv 1806.05034; Kohl et al. (2019), arXiv 1905.13077, for
latents with a place.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from cfx.core.random import normal
from cfx.models.layers import convolution
from cfx.models.samplers.conditioned import (
    LATENT,
    PATCH_UNET,
    Trunk,
    likeliest,
    log_likelihood,
    state_channels,
    state_of,
)
from cfx.models.samplers.gaussian import Gaussian, GaussianEncoder, divergence
from cfx.models.samplers.sampler import Code, Draw, MaskSampler, one_reader

_GRID, _WIDTH = 8, 8  # cells to a side that a latent is laid out on, and channels of each


class ProbUnet(MaskSampler):
    """See the page."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        classes: int = 2,
        network: Mapping[str, Any] = PATCH_UNET,
        features: int = 16,
        latent: int = 6,
        beta: float = 0.1,
    ) -> None:
        """Build the networks.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            classes: Labels a voxel may have, background included.
            network: Registry name of a denoiser (`name`) and its own keywords; it is used without time.
            features: Numbers a voxel that the trunk hands on.
            latent: Numbers in z.
            beta: Weight of the divergence.

        Raises:
            InputError: classes or network are none.
        """
        super().__init__(classes)
        self.latent, self.beta = latent, beta
        self.trunk = Trunk(spatial_dims, in_channels, features, network)
        self.multiple = self.trunk.multiple
        self.prior = GaussianEncoder(spatial_dims, in_channels, latent)
        self.posterior = GaussianEncoder(spatial_dims, in_channels + state_channels(classes), latent)
        self.layout = nn.Sequential(
            nn.Linear(latent, _WIDTH * _GRID**spatial_dims), nn.Unflatten(1, (_WIDTH, *[_GRID] * spatial_dims))
        )
        conv = convolution(spatial_dims)
        self.head = nn.Sequential(
            conv(features + _WIDTH, features, 3, padding=1),
            nn.SiLU(),
            conv(features, features, 1),
            nn.SiLU(),
            conv(features, classes - 1, 1),
        )

    def forward(
        self, x: Float[Tensor, "b c *space"], readings: UInt8[Tensor, "b r *space"], draw: Draw
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor]]:
        """The negative evidence bound of the mask of one reader, in nats a voxel; logs its parts in nats."""
        y = one_reader(readings, draw)
        q = self.posterior(torch.cat([x, state_of(y, self.classes)], 1))
        z = q.at(normal((self.latent,), seed=draw.seed, row=draw.slot, stream=LATENT))
        missed = -log_likelihood(self.logits(self.trunk(x), z).float(), y)
        kl = divergence(q, self.prior(x))
        scores = {"reconstruction": missed.detach().mean(), "kl": kl.detach().mean()}
        return (missed + self.beta * kl) / y[0].numel(), scores

    def logits(self, h: Float[Tensor, "b f *space"], z: Float[Tensor, "b z"]) -> Float[Tensor, "b k *space"]:
        """f(h, z): logits of the foreground classes."""
        mode = {2: "bilinear", 3: "trilinear"}[h.ndim - 2]
        laid = functional.interpolate(self.layout(z), size=h.shape[2:], mode=mode)
        y: Tensor = self.head(torch.cat([functional.silu(h), laid], 1))
        return y

    def encode(self, x: Float[Tensor, "b c *space"]) -> Code:
        """Features `(b, f, *space)`, and mean and logarithm of the standard deviation of p(z | x)."""
        p = self.prior(x)
        return self.trunk(x), p.mean, p.log_std

    def draw(self, code: Code, *, seed: int, row: Int[Tensor, " b"]) -> UInt8[Tensor, "b *space"]:
        """The likeliest mask of one draw of z."""
        h, mean, log_std = code
        z = Gaussian(mean, log_std).at(normal((self.latent,), seed=seed, row=row, stream=LATENT))
        return likeliest(self.logits(h, z))

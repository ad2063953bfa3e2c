"""CIMD: a diffusion model of masks with two networks for their ambiguity.

An ambiguity modelling network sees the image x and a reader's mask y, an ambiguity controlling network the image and
the mask at its present noise; each says a Gaussian of six independent numbers, q(z | x, y) and p(z | x, x_t). Then

    loss = E |eps - eps_theta(x, x_t, z, t)|^2 + w KL(q | p),   z ~ q,

and a draw takes a new z ~ p at every step: what x_t does not yet say of y. The denoiser sees z as constant channels.

`as_published` is what the released program does. There both networks keep the weights that they are initialised with
and have no part in a draw, z is never drawn, and the second one sees the predicted noise in place of the mask: the
divergence, a thousandth of it, is a penalty on the prediction as random features see it.

Reference: Rahman, Valanarasu, Hacihaliloglu, Patel (2023), "Ambiguous medical image segmentation using diffusion
models", arXiv 2304.04745.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cfx.core.broadcast import each
from cfx.core.denoiser import Denoiser
from cfx.core.random import normal
from cfx.models.samplers.conditioned import LATENT, PATCH_UNET, state_channels
from cfx.models.samplers.ddpm import LINEAR, Ddpm
from cfx.models.samplers.gaussian import Gaussian, GaussianEncoder, divergence
from cfx.models.samplers.sampler import Draw

_DRAWN = 2**20  # streams of a draw's codes, above those of its steps


class Cimd(Ddpm):
    """See the page."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        classes: int = 2,
        network: Mapping[str, Any] = PATCH_UNET,
        schedule: Mapping[str, Any] = LINEAR,
        latent: int = 6,
        kl_weight: float = 1e-3,
        as_published: bool = False,
    ) -> None:
        """Build the networks.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            classes: Labels a voxel may have, background included.
            network: Registry name of a denoiser (`name`) and its own keywords.
            schedule: A diffusers scheduler configuration; a draw takes as many steps as it has.
            latent: Numbers in z.
            kl_weight: w.
            as_published: Do as the released program does.

        Raises:
            InputError: classes, network or schedule are none.
        """
        shown = 0 if as_published else latent
        super().__init__(spatial_dims, in_channels + shown, classes, network, schedule)
        self.latent, self.kl_weight, self.as_published = latent, kl_weight, as_published
        channels = in_channels + state_channels(classes)
        self.modelling = GaussianEncoder(spatial_dims, channels, latent)
        self.controlling = GaussianEncoder(spatial_dims, channels, latent)
        if as_published:
            freeze(self.modelling)
            freeze(self.controlling)

    def forward(
        self, x: Float[Tensor, "b c *space"], readings: UInt8[Tensor, "b r *space"], draw: Draw
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor]]:
        """Mean squared error of the predicted noise and weighted divergence, of the mask of one reader."""
        at = self.noised(readings, draw)
        q: Gaussian = self.modelling(torch.cat([x, at.mask], 1))
        if self.as_published:
            eps = self.trunk(torch.cat([x, at.x_t], 1), at.t - 1)
            p = self.controlling(torch.cat([x, eps], 1))
        else:
            z = q.at(normal((self.latent,), seed=draw.seed, row=draw.slot, stream=LATENT))
            eps = self.trunk(torch.cat([beside(x, z), at.x_t], 1), at.t - 1)
            p = self.controlling(torch.cat([x, at.x_t], 1))
        missed, kl = (eps - at.eps).square().flatten(1).mean(1), divergence(q, p)
        scores = {"noise": missed.detach().mean(), "kl": kl.detach().mean()}
        return missed + self.kl_weight * kl, scores

    def given(self, x: Float[Tensor, "b c *space"], seed: int, row: Int[Tensor, " b"]) -> Denoiser:
        """The denoiser of masks of these images, with a code of its own for every row and step."""
        if self.as_published:
            return super().given(x, seed, row)
        return Denoiser(_Coded(self, x, seed, row), self.schedule)


class _Coded(nn.Module):
    """The denoiser as a network of the state alone, which draws codes."""

    def __init__(self, sampler: Cimd, x: Tensor, seed: int, row: Tensor) -> None:
        """Keep what a code and an answer depend on."""
        super().__init__()
        self.sampler, self.x, self.seed, self.row = sampler, x, seed, row

    def forward(self, x_t: Float[Tensor, "b k *space"], timesteps: Int[Tensor, " b"]) -> Float[Tensor, "b k *space"]:
        """The noise in x_t, under a new code."""
        p: Gaussian = self.sampler.controlling(torch.cat([self.x, x_t], 1))
        stream = _DRAWN + int(timesteps[0])  # all rows are at one time
        z = p.at(normal((self.sampler.latent,), seed=self.seed, row=self.row, stream=stream))
        y: Tensor = self.sampler.trunk(torch.cat([beside(self.x, z), x_t], 1), timesteps)
        return y


def beside(x: Float[Tensor, "b c *space"], z: Float[Tensor, "b z"]) -> Float[Tensor, "b c2 *space"]:
    """Images, and a code as constant channels."""
    return torch.cat([x, each(z, x).expand(-1, -1, *x.shape[2:])], 1)


def freeze(network: nn.Module) -> None:
    """Make weights buffers: they are saved, and no optimizer knows of them, even one that is handed all parameters."""
    for module in network.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, weight.detach())

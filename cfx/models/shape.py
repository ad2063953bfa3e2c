"""A variational autoencoder of shapes: principal components of signed distances, bent a little.

A shape x is a signed distance, clipped and scaled to [-1, 1]. With m orthonormal modes b_j, their standard deviations
s_j and the mean shape x_0, the code z `(k,)` stands for

    D(z) = clip(x_0 + sum_j s_j h_j(z) b_j, -1, 1),    h(z) = (z, 0) + B phi(z),
    phi_i(z) = exp(-|z - c_i|^2 / (2 k)),

and the posterior is N((I + E) c + e, diag(s_q^2)) with c the standardised coefficients of x on the first k modes. Where
B, E and e are zero, as when built, this is principal component analysis with k modes. The modes above k come into play
only as far as they follow from the first k: the kernel regression that `cfx.confounder.shape.vae` starts from. More
freedom (a full matrix from codes to modes, an encoder of all modes) fits the training shapes better and others worse.

References: Leventon, Grimson and Faugeras (2000) for principal components of signed distances; Kingma and Welling
(2014) for the objective.
"""

from collections.abc import Sequence
from math import log
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError

_FIRST_STD = 0.1  # posterior standard deviation at the start, in those of the mode


class ShapeNetwork(nn.Module):
    """The network; its modes and centres are buffers, so only the bends are trained.

    Attributes:
        mean: Mean shape x_0 `(1, *space)`.
        basis: Orthonormal modes `(m, *space)`.
        scale: Standard deviation of every mode's coefficient `(m,)`.
        centres: Codes c_i `(n, k)`.
    """

    mean: Tensor
    basis: Tensor
    scale: Tensor
    centres: Tensor

    def __init__(
        self, spatial_dims: int, in_channels: int, space: Sequence[int], latent: int, modes: int, centres: int
    ) -> None:
        """Build the network around modes and centres that are zero until set or loaded.

        Args:
            spatial_dims: 2 or 3.
            in_channels: 1.
            space: Grid of the shapes.
            latent: Numbers in a code, k.
            modes: Modes of the decoder, m >= k.
            centres: Number of centres of the nonlinear part.

        Raises:
            InputError: the grid has another number of axes, several channels, or fewer modes than latents.
        """
        super().__init__()
        if len(space) != spatial_dims or in_channels != 1:
            raise InputError(f"space: expected {spatial_dims} sizes and 1 channel, got {tuple(space)}, {in_channels}")
        if not 1 <= latent <= modes:
            raise InputError(f"latent: expected 1 .. modes={modes}, got {latent}")
        self.latent = latent
        self.register_buffer("mean", torch.zeros(1, *space))
        self.register_buffer("basis", torch.zeros(modes, *space))
        self.register_buffer("scale", torch.zeros(modes))
        self.register_buffer("centres", torch.zeros(centres, latent))
        self.inward = nn.Linear(latent, latent)
        self.outward = nn.Linear(centres, modes, bias=False)
        self.log_std = nn.Parameter(torch.full((latent,), log(_FIRST_STD)))
        for p in (*self.inward.parameters(), *self.outward.parameters()):
            nn.init.zeros_(p)

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords that build this network."""
        space = list(self.mean.shape[1:])
        sizes = {"latent": self.latent, "modes": len(self.scale), "centres": len(self.centres)}
        return {"spatial_dims": len(space), "in_channels": 1, "space": space} | sizes

    def encode(self, x: Float[Tensor, "b 1 *space"]) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b k"]]:
        """Mean and standard deviation of the code of clipped signed distances in [-1, 1].

        Raises:
            InputError: shapes on another grid.
        """
        if x.shape[1:] != self.mean.shape:
            raise InputError(f"x: expected shapes (n, {tuple(self.mean.shape)}), got {tuple(x.shape)}")
        k = self.latent
        c = (x - self.mean).flatten(1) @ self.basis[:k].flatten(1).T / self.scale[:k].clamp_min(1e-8)
        mean = c + self.inward(c)
        return mean, self.log_std.exp().expand_as(mean)

    def features(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b n"]:
        """phi(z)."""
        squared = (z[..., None, :] - self.centres).square().sum(-1)
        return torch.exp(-squared / (2 * self.latent))

    def coefficients(self, z: Float[Tensor, "*b k"]) -> Float[Tensor, "*b m"]:
        """h(z): standardised coefficients of all modes."""
        bent: Tensor = self.outward(self.features(z))
        rest = bent.new_zeros(*z.shape[:-1], len(self.scale) - self.latent)
        return bent + torch.cat([z, rest], -1)

    def jacobian(self, z: Float[Tensor, "b k"]) -> Float[Tensor, "b m k"]:
        """dh/dz in closed form."""
        towards = (self.centres - z[:, None]) / self.latent
        bent = self.outward.weight @ (self.features(z)[..., None] * towards)
        eye: Tensor = torch.eye(len(self.scale), self.latent, device=z.device, dtype=z.dtype)
        return eye + bent

    def unclipped(self, z: Float[Tensor, "b k"]) -> Float[Tensor, "b 1 *space"]:
        """D(z) before it is clipped."""
        flat = (self.coefficients(z) * self.scale) @ self.basis.flatten(1)
        return self.mean + flat.view(len(z), *self.mean.shape)

    def decode(self, z: Float[Tensor, "b k"]) -> Float[Tensor, "b 1 *space"]:
        """D(z)."""
        return self.unclipped(z).clamp(-1, 1)

    def forward(self, x: Float[Tensor, "b 1 *space"], noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, mean and standard deviation of the code; arguments as `AutoencoderKl.forward`."""
        mean, std = self.encode(x)
        return self.decode(mean if noise is None else mean + std * noise), mean, std

    def latent_shape(self, space: Sequence[int]) -> tuple[int, ...]:
        """Shape `(k,)` of one code, whatever the grid."""
        return (self.latent,)

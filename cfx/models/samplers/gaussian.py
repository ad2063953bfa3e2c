"""Gaussian codes with independent entries: a network that says one, and how far two are apart."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.models.layers import Residual, convolution

_BOUND = 5.0  # of log s: e^5 and e^-5 are as good as no knowledge and full knowledge of a code


@dataclass(frozen=True)
class Gaussian:
    """N(mean, diag(std^2)) of every row.

    Attributes:
        mean: Means.
        log_std: Logarithms of the standard deviations.
    """

    mean: Float[Tensor, "b z"]
    log_std: Float[Tensor, "b z"]

    def at(self, noise: Float[Tensor, "b z"]) -> Float[Tensor, "b z"]:
        """The code that a standard normal stands for."""
        return self.mean + self.log_std.exp() * noise


def divergence(q: Gaussian, p: Gaussian) -> Float[Tensor, " b"]:
    """KL(q | p) in nats: sum over entries of log (s_p / s_q) + (s_q^2 + (m_q - m_p)^2) / (2 s_p^2) - 1/2."""
    squares = (2 * q.log_std).exp() + (q.mean - p.mean).square()
    return (p.log_std - q.log_std + squares / 2 * (-2 * p.log_std).exp() - 0.5).sum(1)


class GaussianEncoder(nn.Module):
    """Images to a Gaussian of codes: residual blocks at a quarter and an eighth of the resolution, then their mean."""

    def __init__(self, spatial_dims: int, in_channels: int, latent: int, channels: tuple[int, int] = (32, 64)) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of all that it is shown.
            latent: Numbers in a code.
            channels: Width at a quarter and at an eighth of the resolution.
        """
        super().__init__()
        fine, coarse = channels
        options = "group", "silu", 0.0
        self.blocks = nn.Sequential(
            convolution(spatial_dims)(in_channels, fine, 5, stride=4, padding=2),
            Residual(spatial_dims, fine, coarse, 2, *options),
            Residual(spatial_dims, coarse, coarse, 1, *options),
        )
        self.out = nn.Linear(coarse, 2 * latent)

    def forward(self, x: Float[Tensor, "b c *space"]) -> Gaussian:
        """The Gaussian of images of any size."""
        h = self.out(nn.functional.silu(self.blocks(x)).flatten(2).mean(2)).float()
        mean, log_std = h.chunk(2, 1)
        return Gaussian(mean, _BOUND * torch.tanh(log_std / _BOUND))

"""Networks from images to one logit a region and voxel, for two or three spatial axes."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import interpolate

from cfx.models import layers
from cfx.models.kinds import Kind
from cfx.models.layers import Residual, convolution, normalisation


class ResidualUnet(nn.Module):
    """A U-Net of residual blocks (Ronneberger et al., 2015; He et al., 2016), on images of any size.

    Going down, every level halves the resolution; going up, the coarse map is enlarged to the next finer one and joined
    with it.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64),
        norm: str = "group",
        activation: str = "silu",
        dropout: float = 0.0,
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Number of regions.
            channels: Width of each level, fine to coarse.
            norm: `batch`, `group` (at most 8 groups), `instance` or `none`.
            activation: One of `cfx.models.layers.ACTIVATIONS`.
            dropout: Probability that a value between the two convolutions of a block is left out in training.
        """
        super().__init__()
        conv, options = convolution(spatial_dims), (norm, activation, dropout)
        levels = list(pairwise(channels))
        self.stem = conv(in_channels, channels[0], 3, padding=1)
        self.down = nn.ModuleList([Residual(spatial_dims, fine, coarse, 2, *options) for fine, coarse in levels])
        self.up = nn.ModuleList([Residual(spatial_dims, fine + coarse, fine, 1, *options) for fine, coarse in levels])
        last = normalisation(norm, spatial_dims, channels[0])
        self.out = nn.Sequential(last, layers.activation(activation), conv(channels[0], out_channels, 1))

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k *space"]:
        """Logits of images in [-1, 1]."""
        maps: list[Tensor] = [self.stem(x)]
        for block in self.down:
            maps.append(block(maps[-1]))
        h = maps.pop()
        for block, fine in zip(reversed(self.up), reversed(maps), strict=True):
            h = block(torch.cat([fine, interpolate(h, size=fine.shape[2:])], 1))
        y: Tensor = self.out(h)
        return y


SEGMENTER = Kind("A network from images to one logit a region and voxel; positive inside.", network="segmenter")

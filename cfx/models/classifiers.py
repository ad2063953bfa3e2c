"""Small classifiers, image to logits, for two or three spatial axes and without batch statistics.

Each also gives its feature maps (`stages`), coarse to fine meaning early to late, for feature distances.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from cfx.core.errors import InputError
from cfx.models.layers import CONV, groups


def _conv(spatial_dims: int) -> Callable[..., nn.Module]:
    if spatial_dims not in CONV:
        raise InputError(f"spatial_dims: expected 2 or 3, got {spatial_dims}")
    return CONV[spatial_dims]


class Staged(nn.Module):
    """A classifier that is a list of stages followed by pooling and one linear layer.

    Attributes:
        blocks: The stages, each from one feature map to the next.
        head: Linear layer from pooled features to logits.
    """

    blocks: nn.ModuleList
    head: nn.Linear

    def stages(self, x: Float[Tensor, "b c *space"]) -> list[Tensor]:
        """The feature map `(b, c_i, *space_i)` after every stage."""
        maps: list[Tensor] = []
        for block in self.blocks:
            maps.append(block(maps[-1] if maps else x))
        return maps

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b k"]:
        """Logits of images in [-1, 1]."""
        logits: Tensor = self.head(self.stages(x)[-1].flatten(2).mean(2))
        return logits


class _Residual(nn.Module):
    """Pre-activation residual block, optionally halving the resolution (He et al., 2016, group-normalised)."""

    def __init__(self, spatial_dims: int, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        conv = _conv(spatial_dims)
        self.norm1, self.norm2 = nn.GroupNorm(groups([c_in], 8), c_in), nn.GroupNorm(groups([c_out], 8), c_out)
        self.conv1 = conv(c_in, c_out, 3, stride=stride, padding=1)
        self.conv2 = conv(c_out, c_out, 3, padding=1)
        self.skip = conv(c_in, c_out, 1, stride=stride) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(silu(self.norm1(x)))
        y: Tensor = self.skip(x) + self.conv2(silu(self.norm2(h)))
        return y


class Cnn(Staged):
    """Residual network with group normalisation."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, channels: Sequence[int] = (16, 32, 64, 96)
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Number of logits; 1 means one binary logit.
            channels: Width of each stage; every stage halves the resolution.
        """
        super().__init__()
        self.blocks = nn.ModuleList([_conv(spatial_dims)(in_channels, channels[0], 5, stride=2, padding=2)])
        for c_in, c_out in pairwise(channels):
            self.blocks.append(_Residual(spatial_dims, c_in, c_out, stride=2))
        self.blocks.append(nn.Sequential(nn.GroupNorm(groups(channels[-1:], 8), channels[-1]), nn.SiLU()))
        self.head = nn.Linear(channels[-1], out_channels)


class _Depthwise(nn.Module):
    """Depthwise convolution, then a two-layer perceptron over channels, added to its input."""

    def __init__(self, spatial_dims: int, channels: int, kernel: int) -> None:
        super().__init__()
        conv = _conv(spatial_dims)
        self.depthwise = conv(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = nn.GroupNorm(1, channels)
        self.widen, self.narrow = conv(channels, 2 * channels, 1), conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.narrow(gelu(self.widen(self.norm(self.depthwise(x)))))
        return y


class ConvNext(Staged):
    """Patch stem and depthwise stages (after Liu et al., 2022, arXiv 2201.03545, two-fold widening)."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (32, 64, 96),
        depth: int = 2,
        kernel: int = 5,
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Number of logits; 1 means one binary logit.
            channels: Width of each stage; every stage halves the resolution.
            depth: Blocks a stage.
            kernel: Side of the depthwise kernel, odd.
        """
        super().__init__()
        self.blocks = nn.ModuleList()
        for c_in, c_out in zip((in_channels, *channels[:-1]), channels, strict=True):
            first = c_in == in_channels and not self.blocks
            down = _conv(spatial_dims)(c_in, c_out, 2, stride=2)
            norm = nn.Identity() if first else nn.GroupNorm(1, c_in)
            self.blocks.append(
                nn.Sequential(norm, down, *[_Depthwise(spatial_dims, c_out, kernel) for _ in range(depth)])
            )
        self.head = nn.Linear(channels[-1], out_channels)


class DenseNet(Staged):
    """MONAI's DenseNet, small, with normalisation over all channels of a row in place of batch statistics."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        init_features: int = 16,
        growth_rate: int = 8,
        block_config: Sequence[int] = (3, 3, 3),
        norm: str | Sequence[Any] = ("group", {"num_groups": 1}),
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Number of logits; 1 means one binary logit.
            init_features: Channels of the first convolution.
            growth_rate: Channels that every layer adds.
            block_config: Layers of each dense block.
            norm: MONAI's name of the normalisation, or that and its keywords.
        """
        from monai.networks.nets import DenseNet as MonaiDenseNet

        super().__init__()
        net = MonaiDenseNet(
            spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels,
            norm=norm if isinstance(norm, str) else tuple(norm),
            init_features=init_features, growth_rate=growth_rate, block_config=tuple(block_config),
        )  # fmt: skip
        self.blocks = nn.ModuleList([nn.Sequential()])
        for name, module in net.features.named_children():
            self.blocks[-1].append(module)  # type: ignore[operator]
            if name == "pool0" or name.startswith("transition"):
                self.blocks.append(nn.Sequential())
        self.blocks[-1].append(nn.ReLU())  # type: ignore[operator]
        self.head = cast(nn.Linear, net.class_layers.get_submodule("out"))
        del net


def freeze(network: nn.Module) -> nn.Module:
    """The network in evaluation mode with its parameters fixed."""
    return network.eval().requires_grad_(False)


def log_probs(logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k2"]:
    """Log-probabilities; a single logit gives two columns (class 0, class 1)."""
    if logits.shape[1] == 1:
        return torch.cat([nn.functional.logsigmoid(-logits), nn.functional.logsigmoid(logits)], dim=1)
    return logits.log_softmax(1)

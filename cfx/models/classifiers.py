"""Small classifiers, image to logits, for two or three spatial axes; batch statistics only where they are asked for.

Each also gives its feature maps (`stages`), coarse to fine meaning early to late, for feature distances.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.models import layers
from cfx.models.heads import head as make_head
from cfx.models.kinds import Kind
from cfx.models.layers import Residual, convolution, normalisation


class Staged(nn.Module):
    """A classifier that is a list of stages followed by pooling and one last layer.

    Attributes:
        blocks: The stages, each from one feature map to the next.
        head: From pooled features to logits, see `cfx.models.heads`.
    """

    blocks: nn.ModuleList
    head: nn.Module

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


class Cnn(Staged):
    """Residual network, with group normalisation unless told otherwise."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int] = (16, 32, 64, 96),
        norm: str = "group",
        activation: str = "silu",
        dropout: float = 0.0,
        head: str | Mapping[str, Any] = "linear",
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Number of logits; 1 means one binary logit.
            channels: Width of each stage; every stage halves the resolution.
            norm: `batch`, `group` (at most 8 groups), `instance` or `none`.
            activation: One of `cfx.models.layers.ACTIVATIONS`.
            dropout: Probability that a value between the two convolutions of a block is left out in training.
            head: The last layer, a name of `cfx.models.heads` or a mapping of its name and keywords.
        """
        super().__init__()
        self.blocks = nn.ModuleList([convolution(spatial_dims)(in_channels, channels[0], 5, stride=2, padding=2)])
        for c_in, c_out in pairwise(channels):
            self.blocks.append(Residual(spatial_dims, c_in, c_out, 2, norm, activation, dropout))
        last = normalisation(norm, spatial_dims, channels[-1])
        self.blocks.append(nn.Sequential(last, layers.activation(activation)))
        self.head = make_head(head, channels[-1], out_channels)


class _Depthwise(nn.Module):
    """Depthwise convolution, then a two-layer perceptron over channels, added to its input."""

    def __init__(self, spatial_dims: int, channels: int, kernel: int, norm: str, act: str, dropout: float) -> None:
        super().__init__()
        conv = convolution(spatial_dims)
        self.depthwise = conv(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.norm = normalisation(norm, spatial_dims, channels, most=1)
        self.act, self.dropout = layers.activation(act), nn.Dropout(dropout)
        self.widen, self.narrow = conv(channels, 2 * channels, 1), conv(2 * channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.narrow(self.dropout(self.act(self.widen(self.norm(self.depthwise(x))))))
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
        norm: str = "group",
        activation: str = "gelu",
        dropout: float = 0.0,
        head: str | Mapping[str, Any] = "linear",
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Number of logits; 1 means one binary logit.
            channels: Width of each stage; every stage halves the resolution.
            depth: Blocks a stage.
            kernel: Side of the depthwise kernel, odd.
            norm: `batch`, `group` (one group: all channels of a row), `instance` or `none`.
            activation: One of `cfx.models.layers.ACTIVATIONS`.
            dropout: Probability that a value between the two layers of a perceptron is left out in training.
            head: The last layer, a name of `cfx.models.heads` or a mapping of its name and keywords.
        """
        super().__init__()
        self.blocks, options = nn.ModuleList(), (norm, activation, dropout)
        for c_in, c_out in zip((in_channels, *channels[:-1]), channels, strict=True):
            first = c_in == in_channels and not self.blocks
            down = convolution(spatial_dims)(c_in, c_out, 2, stride=2)
            before = nn.Identity() if first else normalisation(norm, spatial_dims, c_in, most=1)
            blocks = [_Depthwise(spatial_dims, c_out, kernel, *options) for _ in range(depth)]
            self.blocks.append(nn.Sequential(before, down, *blocks))
        self.head = make_head(head, channels[-1], out_channels)


_MONAI_NORMS: dict[str, Any] = {
    "group": ("group", {"num_groups": 1}),
    "instance": ("instance", {"affine": True}),
    "none": "",
}


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
        norm: str | Sequence[Any] = "group",
        activation: str = "relu",
        dropout: float = 0.0,
        head: str | Mapping[str, Any] = "linear",
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Number of logits; 1 means one binary logit.
            init_features: Channels of the first convolution.
            growth_rate: Channels that every layer adds.
            block_config: Layers of each dense block.
            norm: `batch`, `group` (one group: all channels of a row), `instance` or `none`; or what MONAI calls it.
            activation: One of `cfx.models.layers.ACTIVATIONS`.
            dropout: Probability that a value that a layer adds is left out in training.
            head: The last layer, a name of `cfx.models.heads` or a mapping of its name and keywords.
        """
        from monai.networks.nets import DenseNet as MonaiDenseNet

        super().__init__()
        net = MonaiDenseNet(
            spatial_dims=spatial_dims, in_channels=in_channels, out_channels=out_channels,
            norm=_MONAI_NORMS.get(norm, norm) if isinstance(norm, str) else tuple(norm), dropout_prob=dropout,
            init_features=init_features, growth_rate=growth_rate, block_config=tuple(block_config),
        )  # fmt: skip
        self.blocks = nn.ModuleList([nn.Sequential()])
        for name, module in net.features.named_children():
            self.blocks[-1].append(module)  # type: ignore[operator]
            if name == "pool0" or name.startswith("transition"):
                self.blocks.append(nn.Sequential())
        self.blocks[-1].append(nn.ReLU())  # type: ignore[operator]
        _exchange(self.blocks, activation)
        linear = cast(nn.Linear, net.class_layers.get_submodule("out"))
        self.head = linear if head == "linear" else make_head(head, linear.in_features, out_channels)
        del net


def _exchange(network: nn.Module, activation: str) -> None:
    """Put this activation in the place of every rectifier; MONAI's own names have no SiLU."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.ReLU):
                setattr(parent, name, layers.activation(activation))


def freeze(network: nn.Module) -> nn.Module:
    """The network in evaluation mode with its parameters fixed."""
    return network.eval().requires_grad_(False)


def log_probs(logits: Float[Tensor, "b k"]) -> Float[Tensor, "b k2"]:
    """Log-probabilities; a single logit gives two columns (class 0, class 1)."""
    if logits.shape[1] == 1:
        return torch.cat([nn.functional.logsigmoid(-logits), nn.functional.logsigmoid(logits)], dim=1)
    return logits.log_softmax(1)


CLASSIFIER = Kind("An image classifier.", network="classifier")

"""What the published samplers share: a network that is shown an image, and masks as numbers that a network works on.

All have the same trunk, so that they differ in method alone. A diffusion sampler shows it the state beside the image;
the others show it the image.

As the state of a diffusion a mask of two classes is one bit, -1 or 1, and one of K classes its one-hot code, also in
-1 and 1 (Chen, Zhang, Hinton, 2022, "Analog bits", arXiv 2208.04202). As logits it has one map for every class but the
background, whose logit is 0: for two classes those of a Bernoulli variable.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.nn import functional

from cfx.core.errors import InputError
from cfx.core.outputs import tensor_of
from cfx.models.registry import build, kind

PATCH_UNET: Mapping[str, Any] = MappingProxyType(
    {"name": "patch-unet", "patch": 4, "channels": (32, 64), "attention": (False, True), "features": 8}
)
"""The trunk that a configuration may leave unsaid."""

TIME, NOISE, LATENT = 65, 66, 67
"""Streams of a row in training, after that of its reader."""


class Trunk(nn.Module):
    """A denoising network of the registry with an image as input, and more channels beside it.

    Attributes:
        multiple: What spatial sizes must be divisible by.
    """

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, network: Mapping[str, Any] = PATCH_UNET
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of all that it is shown.
            out_channels: Channels of its answer.
            network: Registry name of a denoiser (`name`) and its own keywords.

        Raises:
            InputError: no such network, one for something else, or keywords that it does not take.
        """
        super().__init__()
        name = network.get("name", "")
        if kind(name) != "denoiser":
            raise InputError(f"network.name: expected a denoiser, got {name}, a {kind(name)}")
        sizes = {"spatial_dims": spatial_dims, "in_channels": in_channels, "out_channels": out_channels}
        self.network = build(name, **{k: v for k, v in network.items() if k != "name"} | sizes)
        self.multiple = int(getattr(self.network, "multiple", 1))

    def forward(
        self, x: Float[Tensor, "b c *space"], timesteps: Int[Tensor, " b"] | None = None
    ) -> Float[Tensor, "b k *space"]:
        """The answer at the diffusers index `timesteps`; 0 by default, where there is no time."""
        if timesteps is None:
            timesteps = torch.zeros(len(x), dtype=torch.long, device=x.device)
        return tensor_of(self.network(x, timesteps=timesteps))


class Beside(nn.Module):
    """A trunk and the images it is shown, as a network of the state alone: what `cfx.core.Denoiser` takes."""

    def __init__(self, trunk: nn.Module, x: Float[Tensor, "b c *space"]) -> None:
        """Keep both."""
        super().__init__()
        self.trunk, self.x = trunk, x

    def forward(self, x_t: Float[Tensor, "b k *space"], timesteps: Int[Tensor, " b"]) -> Float[Tensor, "b m *space"]:
        """What the trunk says of the state x_t of these images' masks."""
        y: Tensor = self.trunk(torch.cat([self.x, x_t], 1), timesteps)
        return y


def state_channels(classes: int) -> int:
    """Channels of a mask's state."""
    return 1 if classes == 2 else classes


def state_of(y: UInt8[Tensor, "b *space"], classes: int) -> Float[Tensor, "b k *space"]:
    """Masks as states in -1 and 1."""
    if classes == 2:
        return 2 * y[:, None].float() - 1
    return 2 * one_hot(y, classes) - 1


def mask_of(state: Float[Tensor, "b k *space"]) -> UInt8[Tensor, "b *space"]:
    """The masks nearest to states; 0 is background."""
    return (state[:, 0] > 0 if state.shape[1] == 1 else state.argmax(1)).to(torch.uint8)


def one_hot(y: UInt8[Tensor, "b *space"], classes: int) -> Float[Tensor, "b k *space"]:
    """A channel a class, in 0 and 1."""
    return functional.one_hot(y.long(), classes).movedim(-1, 1).float()


def log_likelihood(logits: Float[Tensor, "b k *space"], y: UInt8[Tensor, "b *space"]) -> Float[Tensor, " b"]:
    """Log p(y) in nats, summed over the voxels of a row, which are independent given the logits of the foreground."""
    if logits.shape[1] == 1:
        each = functional.binary_cross_entropy_with_logits(logits[:, 0], y.to(logits.dtype), reduction="none")
    else:
        each = functional.cross_entropy(with_background(logits), y.long(), reduction="none")
    return -each.flatten(1).sum(1)


def likeliest(logits: Float[Tensor, "b k *space"]) -> UInt8[Tensor, "b *space"]:
    """The likeliest class of every voxel, by the logits of the foreground."""
    return with_background(logits).argmax(1).to(torch.uint8)


def with_background(logits: Float[Tensor, "b k ..."]) -> Float[Tensor, "b classes ..."]:
    """Logits of all classes: that of the background is 0."""
    return torch.cat([torch.zeros_like(logits[:, :1]), logits], 1)

"""Small layers that the networks share, and the normalisations and activations that a configuration names."""

from collections.abc import Callable, Sequence
from math import gcd

from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError

CONV = {2: nn.Conv2d, 3: nn.Conv3d}

NORMS: dict[str, dict[int, Callable[..., nn.Module]]] = {
    "batch": {2: nn.BatchNorm2d, 3: nn.BatchNorm3d},
    "instance": {2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d},
}
"""Normalisations by name, besides `group` and `none`. All but `batch` see one row at a time. `batch` normalises by the
rows that a process handles at once, so training then depends on parts and processes; evaluation uses the averages kept
with the weights (those of the main process, as torch's DistributedDataParallel has it)."""

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "leaky-relu": nn.LeakyReLU,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
}
"""Names of activations; every place in a network has a module of its own, as attribution by layer needs it."""


def groups(channels: Sequence[int], most: int = 32) -> int:
    """The largest number of normalisation groups, at most `most`, that divides every width and keeps two channels each.

    Groups of one channel would erase its mean, and with it a global brightness that may tell classes apart.
    """
    limit = max(1, min(most, min(channels) // 2))
    return max(g for g in range(1, limit + 1) if gcd(*channels) % g == 0)


def normalisation(name: str, spatial_dims: int, channels: int, most: int = 8) -> nn.Module:
    """A normalisation with weights and biases of its own; `none` passes its input on.

    Args:
        name: `batch`, `group`, `instance` or `none`.
        spatial_dims: 2 or 3.
        channels: Width of its input.
        most: Most groups of `group`.

    Raises:
        InputError: no normalisation of that name.
    """
    if name == "none":
        return nn.Identity()
    if name == "group":
        return nn.GroupNorm(groups([channels], most), channels)
    if name not in NORMS:
        raise InputError(f"norm: expected one of {sorted([*NORMS, 'group', 'none'])}, got {name!r}")
    return NORMS[name][spatial_dims](channels, affine=True)


def activation(name: str) -> nn.Module:
    """A new activation module.

    Raises:
        InputError: no activation of that name.
    """
    if name not in ACTIVATIONS:
        raise InputError(f"activation: expected one of {sorted(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]()


def convolution(spatial_dims: int) -> Callable[..., nn.Module]:
    """The convolution over so many axes.

    Raises:
        InputError: neither 2 nor 3.
    """
    if spatial_dims not in CONV:
        raise InputError(f"spatial_dims: expected 2 or 3, got {spatial_dims}")
    return CONV[spatial_dims]


class Residual(nn.Module):
    """Pre-activation residual block, optionally halving the resolution (He et al., 2016), with dropout in between."""

    def __init__(
        self, spatial_dims: int, c_in: int, c_out: int, stride: int, norm: str, act: str, dropout: float
    ) -> None:
        """Build the block.

        Args:
            spatial_dims: 2 or 3.
            c_in: Width of its input.
            c_out: Width of its output.
            stride: 2 to halve the resolution, else 1.
            norm: Name of the normalisation.
            act: Name of the activation.
            dropout: Probability that a value between the two convolutions is left out in training.
        """
        super().__init__()
        conv = convolution(spatial_dims)
        self.norm1, self.norm2 = (normalisation(norm, spatial_dims, c) for c in (c_in, c_out))
        self.act1, self.act2, self.dropout = activation(act), activation(act), nn.Dropout(dropout)
        self.conv1 = conv(c_in, c_out, 3, stride=stride, padding=1)
        self.conv2 = conv(c_out, c_out, 3, padding=1)
        self.skip = conv(c_in, c_out, 1, stride=stride) if stride > 1 or c_in != c_out else nn.Identity()

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c2 *coarse"]:
        """From one feature map to the next."""
        h = self.conv1(self.act1(self.norm1(x)))
        y: Tensor = self.skip(x) + self.conv2(self.dropout(self.act2(self.norm2(h))))
        return y

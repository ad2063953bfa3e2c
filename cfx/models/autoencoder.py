"""MONAI's KL autoencoder behind the two calls the other rooms use: `encode` and `decode`."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.denoiser import check_divisible
from cfx.core.errors import InputError
from cfx.core.outputs import tensor_of
from cfx.models.kinds import Kind
from cfx.models.layers import groups
from cfx.models.patches import depth_to_space, space_to_depth


@runtime_checkable
class Vae(Protocol):
    """What a variational autoencoder must do."""

    def encode(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(b, z, *coarse)` of the latent posterior."""

    def decode(self, z: Float[Tensor, "b z *coarse"]) -> Tensor:
        """Image `(b, c, *space)` of a latent."""


class AutoencoderKl(nn.Module):
    """MONAI's `AutoencoderKL`, optionally on patches as `PatchUnet` does it."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        patch: int = 1,
        channels: Sequence[int] = (32, 64, 64),
        attention: Sequence[bool] = (False, False, False),
        res_blocks: int = 1,
        latent_channels: int = 4,
        norm_groups: int | None = None,
        middle_attention: bool = False,
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            patch: Side of the patches folded into channels before the first convolution; 1 for none.
            channels: Width of each level; the latent is smaller by patch * 2^(levels - 1).
            attention: Whether each level has self-attention.
            res_blocks: Residual blocks a level.
            latent_channels: Channels of the latent.
            norm_groups: Groups of the group normalisation; the largest that fits, up to 32, by default.
            middle_attention: Self-attention at the coarsest level.
        """
        from monai.networks.nets import AutoencoderKL as MonaiAutoencoderKL

        super().__init__()
        self.patch, self.dims = patch, spatial_dims
        self.multiple = patch * 2 ** (len(channels) - 1)
        self.latent_channels = latent_channels
        self.body = MonaiAutoencoderKL(
            spatial_dims=spatial_dims, in_channels=in_channels * patch**spatial_dims,
            out_channels=in_channels * patch**spatial_dims, channels=tuple(channels),
            attention_levels=tuple(attention), num_res_blocks=(res_blocks,) * len(channels),
            latent_channels=latent_channels, norm_num_groups=norm_groups or groups(channels),
            with_encoder_nonlocal_attn=middle_attention, with_decoder_nonlocal_attn=middle_attention,
        )  # fmt: skip

    def encode(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(b, z, *coarse)` of the latent posterior of images in [-1, 1].

        Raises:
            InputError: a spatial size is not a multiple of the latent's stride.
        """
        check_divisible("x", tuple(x.shape[2:]), self.multiple)
        mean, std = self.body.encode(space_to_depth(x, self.patch))
        return mean, std

    def decode(self, z: Float[Tensor, "b z *coarse"]) -> Tensor:
        """Image `(b, c, *space)` of a latent."""
        return depth_to_space(self.body.decode(z), self.patch, self.dims)

    def forward(self, x: Float[Tensor, "b c *space"], noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, latent mean and standard deviation.

        Args:
            x: Images in [-1, 1].
            noise: Standard normals shaped like the latent, `mean + std * noise` is decoded; None decodes the mean.
        """
        mean, std = self.encode(x)
        z = mean if noise is None else mean + std * noise
        return self.decode(z), mean, std

    def latent_shape(self, space: Sequence[int]) -> tuple[int, ...]:
        """Shape `(z, *coarse)` of one latent of images of this size."""
        return (self.latent_channels, *(s // self.multiple for s in space))


class DiffusersKl(nn.Module):
    """diffusers' `AutoencoderKL` as a `Vae`: the mean and deviation of its posterior, less its shift.

    Args:
        network: The autoencoder.

    Raises:
        InputError: one that standardises each channel of its latents by itself.
    """

    def __init__(self, network: nn.Module) -> None:
        """See the class."""
        super().__init__()
        config: Any = network.config
        if config.get("latents_mean") is not None or config.get("latents_std") is not None:
            raise InputError(
                "autoencoder: expected one scaling factor, got latents_mean and latents_std, one a channel"
            )
        self.network, self.shift = network, float(config.get("shift_factor") or 0)
        self.scaling_factor = float(config.scaling_factor)
        self.latent_channels = int(config.latent_channels)
        self.multiple = 2 ** (len(config.block_out_channels) - 1)

    def encode(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(b, z, *coarse)` of the latent posterior of images in [-1, 1].

        Raises:
            InputError: a spatial size is not a multiple of the latent's stride.
        """
        check_divisible("x", tuple(x.shape[2:]), self.multiple)
        network: Any = self.network
        posterior = network.encode(x).latent_dist
        return posterior.mean - self.shift, posterior.std

    def decode(self, z: Float[Tensor, "b z *coarse"]) -> Tensor:
        """Image `(b, c, *space)` of a latent."""
        network: Any = self.network
        return tensor_of(network.decode(z + self.shift), "autoencoder")

    def forward(self, x: Float[Tensor, "b c *space"], noise: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction, latent mean and standard deviation; arguments as `AutoencoderKl.forward`."""
        mean, std = self.encode(x)
        return self.decode(mean if noise is None else mean + std * noise), mean, std

    def latent_shape(self, space: Sequence[int]) -> tuple[int, ...]:
        """Shape `(z, *coarse)` of one latent of images of this size."""
        return (self.latent_channels, *(s // self.multiple for s in space))


def as_vae(autoencoder: object) -> nn.Module:
    """An autoencoder whose `encode` gives a mean and a deviation; diffusers' `AutoencoderKL` is wrapped.

    Raises:
        InputError: one without encode and decode, or another autoencoder of diffusers, whose codes mean something else.
    """
    if not isinstance(autoencoder, nn.Module) or not isinstance(autoencoder, Vae):
        raise InputError(f"autoencoder: expected encode and decode, got {type(autoencoder).__name__}")
    if not type(autoencoder).__module__.startswith("diffusers."):
        return autoencoder
    if type(autoencoder).__name__ != "AutoencoderKL":
        raise InputError(f"autoencoder: expected diffusers' AutoencoderKL, got its {type(autoencoder).__name__}")
    return DiffusersKl(autoencoder)


def mean_code(autoencoder: nn.Module, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b z *coarse"]:
    """The mean of the posterior of images.

    Raises:
        InputError: `encode` gives something else than a mean and a deviation, a row each.
    """
    out = autoencoder.encode(x)  # type: ignore[operator]
    pair = isinstance(out, tuple) and len(out) >= 2 and all(isinstance(v, Tensor) and len(v) == len(x) for v in out[:2])
    if not pair or out[0].shape != out[1].shape:
        raise InputError(f"autoencoder: expected encode to give mean and standard deviation, got {type(out).__name__}")
    mean: Tensor = out[0]
    return mean


VAE = Kind("A variational autoencoder of images: maps them to a small latent and back.", network="vae")

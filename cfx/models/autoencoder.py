"""MONAI's KL autoencoder behind the two calls the other rooms use: `encode` and `decode`."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
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
        if any(s % self.multiple for s in x.shape[2:]):
            raise InputError(f"x: expected spatial sizes divisible by {self.multiple}, got {tuple(x.shape[2:])}")
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


VAE = Kind("A variational autoencoder of images: maps them to a small latent and back.", network="vae")

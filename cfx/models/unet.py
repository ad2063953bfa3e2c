"""Denoising networks: MONAI's diffusion U-Net, and a cheap one that runs it on patches.

Both take `(x_t, timesteps, class_labels)` and give a tensor shaped like `x_t`. With `classes = k` the class
embedding has k + 1 rows; the last is the null label, so that one network serves with and without labels.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from monai.networks.nets import DiffusionModelUNet
from torch import Tensor, nn

from cfx.core.denoiser import check_divisible
from cfx.models.layers import convolution, groups
from cfx.models.patches import depth_to_space, space_to_depth


def unet(
    spatial_dims: int,
    in_channels: int,
    out_channels: int | None = None,
    channels: Sequence[int] = (64, 128, 128),
    attention: Sequence[bool] = (False, False, True),
    res_blocks: int = 1,
    head_channels: int | None = None,
    norm_groups: int | None = None,
    classes: int | None = None,
) -> nn.Module:
    """MONAI's `DiffusionModelUNet` at full resolution.

    Args:
        spatial_dims: 2 or 3.
        in_channels: Channels of the image.
        out_channels: Channels of the prediction; those of the image by default.
        channels: Width of each level.
        attention: Whether each level has self-attention.
        res_blocks: Residual blocks a level.
        head_channels: Channels of an attention head; the most that fits, up to 32, by default.
        norm_groups: Groups of the group normalisation; the largest that fits, up to 32, by default.
        classes: Number of class labels; None for an unconditional network.
    """
    return Unet(
        spatial_dims=spatial_dims,
        in_channels=in_channels,
        out_channels=out_channels or in_channels,
        channels=tuple(channels),
        attention_levels=tuple(attention),
        num_res_blocks=res_blocks,
        num_head_channels=head_channels or groups(channels),
        norm_num_groups=norm_groups or groups(channels),
        num_class_embeds=None if classes is None else classes + 1,
        use_flash_attention=False,
    )


class Unet(DiffusionModelUNet):
    """MONAI's network, which also says what sizes it can take (`multiple`): every level but the last halves them."""

    def __init__(self, *, channels: Sequence[int] = (32, 64, 64, 64), **keywords: Any) -> None:  # noqa: ANN401
        """Keywords are MONAI's."""
        super().__init__(channels=channels, **keywords)
        self.multiple = 2 ** (len(channels) - 1)

    def forward(
        self,
        x: Float[Tensor, "b c *space"],
        timesteps: Int[Tensor, " b"],
        context: Tensor | None = None,
        class_labels: Int[Tensor, " b"] | None = None,
        down_block_additional_residuals: tuple[Tensor] | None = None,
        mid_block_additional_residual: Tensor | None = None,
    ) -> Float[Tensor, "b c2 *space"]:
        """MONAI's call.

        Raises:
            InputError: a spatial size is not a multiple of the coarsest level's stride.
        """
        check_divisible("x_t", tuple(x.shape[2:]), self.multiple)
        residuals = down_block_additional_residuals, mid_block_additional_residual
        y: Tensor = super().forward(x, timesteps, context, class_labels, *residuals)
        return y


class PatchUnet(nn.Module):
    """A pixel U-Net whose costly part runs at 1/patch of the resolution.

    Each `patch`-sided block of pixels becomes a vector of channels (space to depth), a U-Net works on those
    vectors, its output is laid out as `features` channels at full resolution, and two light convolutions join
    it with features of the noisy image itself, so that edges need not pass through the coarse grid.
    The last convolution starts at zero, as in the U-Net it wraps.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int | None = None,
        patch: int = 4,
        channels: Sequence[int] = (64, 96, 128),
        attention: Sequence[bool] = (False, False, True),
        res_blocks: int = 1,
        head_channels: int | None = None,
        features: int = 8,
        classes: int | None = None,
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            out_channels: Channels of the prediction; those of the image by default.
            patch: Side of a patch in pixels; every spatial size must be a multiple of patch * 2^(levels - 1).
            channels: Width of each level of the inner U-Net.
            attention: Whether each level has self-attention.
            res_blocks: Residual blocks a level.
            head_channels: Channels of an attention head; the most that fits, up to 32, by default.
            features: Channels of the full-resolution head.
            classes: Number of class labels; None for an unconditional network.

        Raises:
            InputError: `spatial_dims` is neither 2 nor 3.
        """
        super().__init__()
        conv, cells = convolution(spatial_dims), patch**spatial_dims
        self.patch = patch
        self.multiple = patch * 2 ** (len(channels) - 1)
        body = (channels, attention, res_blocks, head_channels)
        self.body = unet(spatial_dims, in_channels * cells, features * cells, *body, classes=classes)
        self._wake(self.body)
        self.stem = conv(in_channels, features, 3, padding=1)
        self.mix = conv(2 * features, 2 * features, 3, padding=1)
        self.out = conv(2 * features, out_channels or in_channels, 3, padding=1)
        nn.init.zeros_(self.out.weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.out.bias)  # type: ignore[arg-type]

    @staticmethod
    def _wake(body: nn.Module) -> None:
        """Undo the inner U-Net's zero output convolution: two zero layers in a row would not learn."""
        for module in body.get_submodule("out").modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                module.reset_parameters()

    def forward(
        self,
        x_t: Float[Tensor, "b c *space"],
        timesteps: Int[Tensor, " b"],
        class_labels: Int[Tensor, " b"] | None = None,
    ) -> Float[Tensor, "b c2 *space"]:
        """Predict from the noisy image `x_t` at the diffusers index `timesteps` (0 is the least noisy).

        Raises:
            InputError: a spatial size is not a multiple of `patch` times the coarsest level's stride.
        """
        check_divisible("x_t", tuple(x_t.shape[2:]), self.multiple)
        h = self.body(space_to_depth(x_t, self.patch), timesteps, class_labels=class_labels)
        h = torch.cat([depth_to_space(h, self.patch, x_t.ndim - 2), self.stem(x_t)], dim=1)
        y: Tensor = self.out(nn.functional.silu(self.mix(nn.functional.silu(h))))
        return y

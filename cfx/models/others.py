"""Networks of MONAI and diffusers under registry names, with the keywords of their own packages.

So weights that were trained with those packages become checkpoints like any others. What was added is what cfx asks of
every network: to say what sizes it can take (`multiple`).
"""

from collections.abc import Sequence
from typing import Any, cast

from jaxtyping import Float
from monai.networks.nets import AutoencoderKL
from torch import Tensor, nn

from cfx.core.denoiser import check_divisible
from cfx.core.errors import InputError
from cfx.models.autoencoder import DiffusersKl


class MonaiKl(AutoencoderKL):
    """MONAI's `AutoencoderKL` with its own keywords and tensor names."""

    def __init__(self, *, channels: Sequence[int] = (32, 64, 64, 64), **keywords: Any) -> None:  # noqa: ANN401
        """Keywords are MONAI's."""
        super().__init__(channels=channels, **keywords)
        self.multiple = 2 ** (len(channels) - 1)

    def encode(self, x: Float[Tensor, "b c *space"]) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation `(b, z, *coarse)` of the latent posterior.

        Raises:
            InputError: a spatial size is not a multiple of the latent's stride.
        """
        check_divisible("x", tuple(x.shape[2:]), self.multiple)
        mean, std = super().encode(x)
        return mean, std

    def latent_shape(self, space: Sequence[int]) -> tuple[int, ...]:
        """Shape `(z, *coarse)` of one latent of images of this size."""
        return (self.latent_channels, *(s // self.multiple for s in space))


def densenet121(**keywords: Any) -> nn.Module:  # noqa: ANN401
    """MONAI's `DenseNet121`."""
    from monai.networks.nets import DenseNet121

    return cast(nn.Module, DenseNet121(**_untrained(keywords)))


def resnet18(**keywords: Any) -> nn.Module:  # noqa: ANN401
    """MONAI's `resnet18`."""
    from monai.networks.nets import resnet18

    return cast(nn.Module, resnet18(**_untrained(keywords)))


def resnet50(**keywords: Any) -> nn.Module:  # noqa: ANN401
    """MONAI's `resnet50`."""
    from monai.networks.nets import resnet50

    return cast(nn.Module, resnet50(**_untrained(keywords)))


def _untrained(keywords: dict[str, Any]) -> dict[str, Any]:
    """Keywords, without a download: the weights come from the checkpoint.

    Raises:
        InputError: `pretrained` is asked for.
    """
    if keywords.get("pretrained"):
        raise InputError("pretrained: expected false, the weights are the checkpoint's; got true")
    return keywords


def diffusers_unet(**keywords: Any) -> nn.Module:  # noqa: ANN401
    """Diffusers' `UNet2DModel`, with the values of its `config.json`."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    network = UNet2DModel(**_settings(keywords))
    network.multiple = 2 ** (len(network.config.block_out_channels) - 1)
    return cast(nn.Module, network)


def diffusers_kl(**keywords: Any) -> nn.Module:  # noqa: ANN401
    """Diffusers' `AutoencoderKL` as a `Vae`, with the values of its `config.json`."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Autoencoder

    return DiffusersKl(Autoencoder(**_settings(keywords)))


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    """A configuration without diffusers' own notes, whose names begin with an underscore."""
    return {key: value for key, value in config.items() if not key.startswith("_")}

"""Networks by name. A checkpoint records a name and its keywords, never a module path, so code may move.

Builders are imported when first asked for: MONAI takes seconds to import and many commands do not need it.
"""

from collections.abc import Callable
from importlib import import_module
from inspect import Parameter, signature
from typing import cast

from torch import nn

from cfx.core.errors import InputError, in_one_line

Builder = Callable[..., nn.Module]

BUILDERS: dict[str, tuple[str, str]] = {
    "unet": ("denoiser", "cfx.models.unet:unet"),
    "patch-unet": ("denoiser", "cfx.models.unet:PatchUnet"),
    "autoencoder-kl": ("vae", "cfx.models.autoencoder:AutoencoderKl"),
    "shape-vae": ("vae", "cfx.models.shape:ShapeNetwork"),
    "cnn": ("classifier", "cfx.models.classifiers:Cnn"),
    "convnext": ("classifier", "cfx.models.classifiers:ConvNext"),
    "densenet": ("classifier", "cfx.models.classifiers:DenseNet"),
    "residual-unet": ("segmenter", "cfx.models.segmenters:ResidualUnet"),
    "mask-energy": ("mask-sampler", "cfx.models.samplers.energy:Energy"),
    "mask-ddpm": ("mask-sampler", "cfx.models.samplers.ddpm:Ddpm"),
    "mask-cimd": ("mask-sampler", "cfx.models.samplers.cimd:Cimd"),
    "mask-categorical": ("mask-sampler", "cfx.models.samplers.categorical:Categorical"),
    "mask-prob-unet": ("mask-sampler", "cfx.models.samplers.prob_unet:ProbUnet"),
    "mask-ssn": ("mask-sampler", "cfx.models.samplers.ssn:Ssn"),
    "monai-diffusion-unet": ("denoiser", "cfx.models.unet:Unet"),
    "monai-autoencoder-kl": ("vae", "cfx.models.others:MonaiKl"),
    "monai-densenet121": ("classifier", "cfx.models.others:densenet121"),
    "monai-resnet18": ("classifier", "cfx.models.others:resnet18"),
    "monai-resnet50": ("classifier", "cfx.models.others:resnet50"),
    "diffusers-unet2d": ("denoiser", "cfx.models.others:diffusers_unet"),
    "diffusers-autoencoder-kl": ("vae", "cfx.models.others:diffusers_kl"),
}
"""Registry name -> what the network is for, and where it is built; `monai-` and `diffusers-` take the keywords of
those packages."""

WEIGHTS_ONLY: dict[str, str] = {
    "monai-diffusion-unet": "unet or patch-unet",
    "diffusers-unet2d": "unet or patch-unet",
    "monai-autoencoder-kl": "autoencoder-kl",
    "diffusers-autoencoder-kl": "autoencoder-kl",
    "monai-resnet18": "cnn, densenet or monai-densenet121",
    "monai-resnet50": "cnn, densenet or monai-densenet121",
}
"""Registry names for weights that were trained elsewhere -> what cfx trains instead: their packages' keywords are not
those that a run takes from its images."""


def builder(name: str) -> Builder:
    """The callable that builds the network called `name`.

    Raises:
        InputError: no network of that name.
    """
    if name not in BUILDERS:
        raise InputError(f"network name: expected one of {sorted(BUILDERS)}, got {name!r}")
    module, attribute = BUILDERS[name][1].split(":")
    return cast(Builder, getattr(import_module(module), attribute))


def kind(name: str) -> str:
    """What the network called `name` is for, the first of its pair in `BUILDERS`.

    Raises:
        InputError: no network of that name.
    """
    builder(name)
    return BUILDERS[name][0]


def build(name: str, **config: object) -> nn.Module:
    """Build a freshly initialised network.

    Args:
        name: One of `BUILDERS`.
        **config: The keywords of that builder (`spatial_dims`, `in_channels`, ...).

    Raises:
        InputError: no network of that name, or a keyword that its builder does not take or misses.
    """
    make = builder(name)
    known = signature(make).parameters
    others = any(p.kind is Parameter.VAR_KEYWORD for p in known.values())  # which its package knows
    unknown = [] if others else sorted(set(config) - set(known))
    if unknown:
        raise InputError(f"network {name}: unknown keys {unknown}; expected some of {sorted(known)}")
    needed = {k: p for k, p in known.items() if p.kind is not Parameter.VAR_KEYWORD}
    missing = [k for k, p in needed.items() if p.default is Parameter.empty and k not in config]
    if missing:
        raise InputError(f"network {name}: missing keys {missing}")
    try:
        return make(**config)
    except InputError:
        raise
    except (TypeError, ValueError, IndexError, KeyError, ArithmeticError, RuntimeError, AssertionError) as error:
        empty = [k for k, value in config.items() if isinstance(value, list | tuple) and not value]
        why = f"{empty[0]}: expected at least one entry, got none" if empty else in_one_line(error)
        raise InputError(f"network {name}: {why}") from error

"""Latent diffusion: a diffusion model on the codes of an autoencoder, as one generator.

Reference: Rombach et al. (2022), "High-resolution image synthesis with latent diffusion models".
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.denoiser import Denoiser, Posterior, check_divisible
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule, Time
from cfx.models.autoencoder import as_vae, mean_code
from cfx.models.denoiser import facts as denoiser_facts
from cfx.models.denoiser import make as make_denoiser
from cfx.models.denoiser import parts as denoiser_parts
from cfx.models.kinds import Kind, Manifest
from cfx.models.registry import build


class LatentDiffusion(nn.Module):
    """An autoencoder and a denoiser of its scaled codes; satisfies `cfx.core.denoiser.Latent`.

    Args:
        autoencoder: Any module that is a `Vae`, or diffusers' `AutoencoderKL`; the code is the mean of its posterior.
        denoiser: Diffusion model of the codes times `scale`.
        scale: Factor that gives the codes about unit variance, as the denoiser was trained; None takes the
            `scaling_factor` of diffusers' autoencoder, and 1 for others.
        shape: Images `(c, *space)` that it was trained on; None accepts any.

    Raises:
        InputError: an autoencoder without encode and decode or of another kind, a scale that is not positive, or a
            shape that the autoencoder cannot halve as often as it does.
    """

    def __init__(
        self,
        autoencoder: nn.Module,
        denoiser: Denoiser,
        scale: float | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> None:
        """See the class."""
        super().__init__()
        vae = as_vae(autoencoder)
        scale = float(getattr(vae, "scaling_factor", 1.0)) if scale is None else scale
        if not scale > 0:
            raise InputError(f"scale: expected a positive number, got {scale}")
        self.autoencoder, self.denoiser, self.scale, self.shape = vae, denoiser, scale, shape
        if shape is not None:
            check_divisible("shape", tuple(shape[1:]), self.multiple)

    @property
    def multiple(self) -> int:
        """What spatial sizes of images must be divisible by, where the parts say so."""
        return int(getattr(self.autoencoder, "multiple", 1)) * int(getattr(self.denoiser, "multiple", 1))

    @property
    def schedule(self) -> Schedule:
        """The noise schedule of the codes."""
        return self.denoiser.schedule

    @property
    def classes(self) -> int | None:
        """Number of classes the denoiser knows."""
        return self.denoiser.classes

    def encode(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b z *coarse"]:
        """Scaled codes of images in [-1, 1]."""
        return mean_code(self.autoencoder, x) * self.scale

    def decode(self, z: Float[Tensor, "b z *coarse"]) -> Float[Tensor, "b c *space"]:
        """Images of scaled codes."""
        x: Tensor = self.autoencoder.decode(z / self.scale)  # type: ignore[operator]
        return x

    def forward(self, z_t: Float[Tensor, "b z *coarse"], t: Time, label: Int[Tensor, " b"] | None = None) -> Posterior:
        """Posterior of the code given z_t; arguments and errors as `Denoiser.forward`."""
        posterior: Posterior = self.denoiser(z_t, t, label)
        return posterior


def _make(manifest: Manifest) -> LatentDiffusion:
    """The generator of a manifest.

    Raises:
        InputError: no name and config of the autoencoder, or no scale.
    """
    own = manifest.facts
    if not {"autoencoder", "scale"} <= own.keys() or not {"name", "config"} <= own["autoencoder"].keys():
        raise InputError(f"facts: expected scale and the autoencoder's name and config, got {sorted(own)}")
    autoencoder = build(own["autoencoder"]["name"], **own["autoencoder"]["config"])
    denoiser = make_denoiser(manifest.model_copy(update={"shape": None}))
    return LatentDiffusion(autoencoder, denoiser, own["scale"], manifest.shape)


def _latent(model: nn.Module) -> LatentDiffusion:
    if not isinstance(model, LatentDiffusion):
        raise InputError(f"model: expected a LatentDiffusion, got {type(model).__name__}")
    return model


def _parts(model: nn.Module) -> Mapping[str, nn.Module]:
    """The network of the codes, and the autoencoder: a latent checkpoint needs no other folder."""
    return {**denoiser_parts(_latent(model).denoiser), "autoencoder": _latent(model).autoencoder}


def _facts(model: nn.Module) -> Mapping[str, Any]:
    m = _latent(model)
    return {**denoiser_facts(m.denoiser), "shape": m.shape, "facts": {"scale": m.scale}}


LATENT = Kind(
    "A denoising diffusion model of the codes of an autoencoder, which it brings along.",
    network="denoiser",
    make=_make,
    parts=_parts,
    facts=_facts,
)

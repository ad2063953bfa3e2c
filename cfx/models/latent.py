"""Latent diffusion: a diffusion model on the codes of an autoencoder, as one generator.

Reference: Rombach et al. (2022), "High-resolution image synthesis with latent diffusion models".
"""

from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.denoiser import Denoiser, Posterior
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule, Time
from cfx.models.autoencoder import Vae


class LatentDiffusion(nn.Module):
    """An autoencoder and a denoiser of its scaled codes; satisfies `cfx.core.denoiser.Latent`.

    Args:
        autoencoder: Any module that is a `Vae`; the code is the mean of its posterior.
        denoiser: Diffusion model of the codes times `scale`.
        scale: Factor that gives the codes about unit variance, as the denoiser was trained.

    Raises:
        InputError: an autoencoder without encode and decode, or a scale that is not positive.
    """

    def __init__(self, autoencoder: nn.Module, denoiser: Denoiser, scale: float = 1.0) -> None:
        """See the class."""
        super().__init__()
        if not isinstance(autoencoder, Vae):
            raise InputError(f"autoencoder: expected encode and decode, got {type(autoencoder).__name__}")
        if not scale > 0:
            raise InputError(f"scale: expected a positive number, got {scale}")
        self.autoencoder, self.denoiser, self.scale = autoencoder, denoiser, scale

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
        mean: Tensor = self.autoencoder.encode(x)[0]
        return mean * self.scale

    def decode(self, z: Float[Tensor, "b z *coarse"]) -> Float[Tensor, "b c *space"]:
        """Images of scaled codes."""
        x: Tensor = self.autoencoder.decode(z / self.scale)
        return x

    def forward(self, z_t: Float[Tensor, "b z *coarse"], t: Time, label: Int[Tensor, " b"] | None = None) -> Posterior:
        """Posterior of the code given z_t; arguments and errors as `Denoiser.forward`."""
        posterior: Posterior = self.denoiser(z_t, t, label)
        return posterior

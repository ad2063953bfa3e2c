"""What a replay works on: the images themselves, or their codes where the generator is a latent one.

A code stands for the image decode(z) + u with u = x - decode(encode(x)), what the autoencoder cannot say of the image.
So the unchanged code is the unchanged image, and the classifier that is asked is always the user's own, on images.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.denoiser import Latent
from cfx.counterfactual.method import Problem


@dataclass(frozen=True)
class EditSpace:
    """The codes of the images of a problem; the images themselves with a generator of pixels.

    Attributes:
        problem: The batch.
        z: Codes.
        remainder: What the codes leave out of the images, u; None with a generator of pixels.
    """

    problem: Problem
    z: Float[Tensor, "b z *coarse"]
    remainder: Float[Tensor, "b c *space"] | None

    @classmethod
    def of(cls, problem: Problem) -> "EditSpace":
        """Encode the images."""
        generator = problem.diffusion
        if not isinstance(generator, Latent):
            return cls(problem, problem.x, None)
        with torch.no_grad():
            z = generator.encode(problem.x)
            remainder = problem.x - generator.decode(z)
        for _ in range(2):
            problem.meter.count("unet_forward", problem.everyone)
        return cls(problem, z, remainder)

    def image(self, rows: Int[Tensor, " m"], z: Float[Tensor, "m z *coarse"]) -> Float[Tensor, "m c *space"]:
        """The images that codes of these rows stand for."""
        if self.remainder is None:
            return z
        assert isinstance(self.problem.generator, Latent)
        self.problem.meter.count("unet_forward", rows)
        return self.problem.generator.decode(z) + self.remainder[rows]

    def clamp(self, z: Float[Tensor, "m z *coarse"]) -> Float[Tensor, "m z *coarse"]:
        """Images cut to [-1, 1]; codes, which have no range, as they are."""
        return z.clamp(-1, 1) if self.remainder is None else z

    def gradient(self, rows: Int[Tensor, " m"], z: Float[Tensor, "m z *coarse"]) -> Float[Tensor, "m z *coarse"]:
        """Gradient of the margin with respect to the code: through the decoder, where there is one."""
        if self.remainder is None:
            return self.problem.gradient(rows, z)
        with torch.enable_grad():
            z = z.detach().requires_grad_(True)
            x = self.image(rows, z)
            (g,) = torch.autograd.grad(x, z, self.problem.gradient(rows, x.detach()))
        self.problem.meter.count("unet_backward", rows)
        return g

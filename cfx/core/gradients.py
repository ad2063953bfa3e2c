"""Gradients that do not hang on a single point: averages over noisy copies of the image.

    g(x) = mean_j grad f(x + s eps_j),    eps_j standard normal

is the gradient of f smoothed by the noise, whatever f does from pixel to pixel.

Reference: Smilkov, Thorat, Kim, Viegas, Wattenberg (2017), "SmoothGrad: removing noise by adding noise".
"""

from collections.abc import Callable

from jaxtyping import Float
from torch import Tensor


def smoothed(
    gradient: Callable[[Tensor], Tensor], x: Float[Tensor, "n c *space"], noise: Float[Tensor, "n k c *space"]
) -> Float[Tensor, "n c *space"]:
    """Mean gradient over k noisy copies of every image, all seen at once.

    Args:
        gradient: Images `(n k, c, *space)`, the copies of the first image first, to gradients of that shape.
        x: Images, or codes of images.
        noise: What is added to each copy, s eps_j.
    """
    copies = (x[:, None] + noise).flatten(0, 1)
    return gradient(copies).view(noise.shape).mean(1)

"""Images as they might also have been taken: mirrored, shifted, re-contrasted, noised, every row by its own draws."""

import torch
from jaxtyping import Float, Shaped
from pydantic import Field
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.random import normal, uniform
from cfx.training.objectives import AUGMENT, NOISE, STREAMS, Batch, ObjectiveConfig


class AugmentConfig(ObjectiveConfig):
    """An objective whose images are augmented; no augmentation by default."""

    flip: bool = False
    """Augmentation: mirror half of the images along the last axis."""
    shift: int = Field(default=0, ge=0)
    """Augmentation: largest shift in pixels along every axis (edge values are repeated)."""
    noise: float = Field(default=0.0, ge=0)
    """Augmentation: largest standard deviation of added normal noise; each row draws its own."""
    contrast: float = Field(default=0.0, ge=0, lt=1)
    """Augmentation: largest relative change of contrast; each row draws its own factor."""


def augment(config: AugmentConfig, batch: Batch, view: int = 0) -> Float[Tensor, "b c *space"]:
    """The images of a batch, moved and with other grey values.

    Args:
        config: What may change.
        batch: The rows.
        view: Which of a row's independent draws.
    """
    x = moved(config, batch.x, batch, view)
    u = _draws(batch, view)
    x = x * each(1 + config.contrast * (2 * u[:, 1] - 1), x)
    if config.noise:
        noise = normal(x.shape[1:], seed=batch.seed, row=batch.slot, stream=NOISE + STREAMS * view)
        x = x + config.noise * each(u[:, 2], x) * noise
    return x.clamp(-1, 1)


def moved(
    config: AugmentConfig, values: Shaped[Tensor, "b c *space"], batch: Batch, view: int = 0
) -> Shaped[Tensor, "b c *space"]:
    """Values on the grid of a batch's images (masks, say), mirrored and shifted as `augment` does with the images."""
    u = _draws(batch, view)
    if config.flip:
        values = torch.where(each(u[:, 0] < 0.5, values), values.flip(-1), values)
    if config.shift:
        values = _shift(values, ((2 * config.shift + 1) * u[:, 3:]).long() - config.shift)
    return values


def _draws(batch: Batch, view: int) -> Float[Tensor, "b draws"]:
    """Uniforms of a row: flip, contrast, noise, and one shift an axis."""
    return uniform((batch.x.ndim + 1,), seed=batch.seed, row=batch.slot, stream=AUGMENT + STREAMS * view)


def _shift(x: Shaped[Tensor, "b c *space"], by: Tensor) -> Shaped[Tensor, "b c *space"]:
    """Shift row i by `by[i]` pixels along the spatial axes; edge values are repeated."""
    for axis in range(by.shape[1]):
        size = x.shape[2 + axis]
        index = (torch.arange(size, device=x.device) - by[:, axis, None]).clamp(0, size - 1)
        view = [len(x), 1, *[1] * by.shape[1]]
        view[2 + axis] = size
        x = x.gather(2 + axis, index.reshape(view).expand_as(x))
    return x

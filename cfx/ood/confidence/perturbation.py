"""A small step of every image towards more confidence: x + eps sign(grad_x S(x)), as ODIN takes before it looks.

Images of the distribution gain more by it than others. How far to go is chosen on in-distribution images alone, as
Hsu et al. (2020), arXiv 2002.11297, do: the step of a few whose mean confidence is highest.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.errors import InputError
from cfx.ood.detector import Ask, Learn

STEPS = (0.0025, 0.005, 0.01, 0.02, 0.04, 0.08)
"""Steps to choose among, those of the paper, on the scale of images in [-1, 1]."""

Slope = Callable[[Ask], Float[Tensor, "b c *space"]]
"""Gradient of the confidence in the images of a batch."""
Confidence = Callable[[Ask, Tensor], Float[Tensor, " b"]]
"""Confidence in images that stand in the place of those of a batch."""


def stepped(ask: Ask, slope: Slope, eps: float) -> Float[Tensor, "b c *space"]:
    """The images after a step; of no length, the images themselves."""
    return ask.x + eps * slope(ask).sign() if eps else ask.x


def choose(learn: Learn, slope: Slope, confidence: Confidence) -> float:
    """The step of `STEPS` with the highest mean confidence. It costs one gradient and as many evaluations an image."""

    def after(ask: Ask) -> Float[Tensor, "b steps"]:
        towards = slope(ask).sign()
        return torch.stack([confidence(ask, ask.x + eps * towards) for eps in STEPS], 1)

    return STEPS[int(learn.collect(after).double().mean(0).argmax())]


def check_step(eps: float | None) -> None:
    """Refuse a negative step.

    Raises:
        InputError: that is so.
    """
    if eps is not None and not eps >= 0:
        raise InputError(f"eps: expected a step of at least 0, or None to choose one, got {eps}")

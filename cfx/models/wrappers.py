"""What is no classifier, as one: one finding of several, a value to be reached, a score of how odd an image is."""

import math
from collections.abc import Callable
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.outputs import tensor_of
from cfx.models.running import columns


class Finding(nn.Module):
    """One finding of a multi-label classifier as a classifier of its own (absent 0, present 1).

    Args:
        classifier: Images to logits `(b, k)`, one independent logit a finding.
        k: Which finding.
    """

    def __init__(self, classifier: Callable[[Tensor], Tensor], k: int) -> None:
        """See the class."""
        super().__init__()
        self.classifier = classifier
        self.k = k

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """The logit of the finding.

        Raises:
            InputError: the classifier has no such finding.
        """
        out = columns(self.classifier(x), len(x))
        if not 0 <= self.k < out.shape[1]:
            raise InputError(f"k: expected a finding in 0 .. {out.shape[1] - 1}, got {self.k}")
        return out[:, self.k : self.k + 1]


class Near(nn.Module):
    """A regressor as a classifier of whether its value is near one to be reached (below 0, near 1, above 2).

    With u = (value - goal) / tolerance the logits are (-4 u, 4, 4 u): `near` wins exactly within the tolerance, by a
    margin of 4 (1 - |u|). Explain it with `target=1`, whichever side of the goal the images are on; 0 and 2 ask for a
    value that leaves the tolerance downwards or upwards. The classes are ordered, so a search measures an edit against
    the side it came from only (4 (1 + u) from below), and one that overshoots is a success of too great a strength;
    whether a result counts is decided by all three. A result is stable if half of the way outlives re-noising.

    At depth `typical` the value has to come within half the tolerance of the goal (`Near.TYPICAL`, a margin of 2; for 0
    and 2: leave the tolerance by half of it). No reference cohort is asked: how sure real images are of a class has no
    counterpart for a value. A generator's classes never stand for these three.

    Args:
        regressor: Images to values `(b,)` or `(b, 1)`.
        goal: Value to reach.
        tolerance: How near is near enough, in the units of the value.

    Raises:
        InputError: a tolerance that is not positive.
    """

    TYPICAL: ClassVar[float] = 2.0
    """Margin asked for at depth `typical`."""

    def __init__(self, regressor: Callable[[Tensor], Tensor], goal: float, tolerance: float) -> None:
        """See the class."""
        super().__init__()
        if not tolerance > 0:
            raise InputError(f"tolerance: expected a positive number, got {tolerance}")
        self.regressor, self.goal, self.tolerance = regressor, goal, tolerance

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 3"]:
        """The logits of being below, near and above.

        Raises:
            InputError: the regressor does not return one value an image.
        """
        value = tensor_of(self.regressor(x), "regressor")
        if value.numel() != len(x):
            raise InputError(f"regressor: expected one value an image, got shape {tuple(value.shape)}")
        u = (value.reshape(-1) - self.goal) / self.tolerance
        return 4 * torch.stack([-u, torch.ones_like(u), u], 1)


class Score(nn.Module):
    """A score of images, such as that of a detector, as a classifier of whether it is low (0) or high (1).

    The logits are (0, (score - threshold) / spread), so that a change of the margin is one of the score in units of the
    spread. It has no classes that images could be labelled with, and need not have a gradient.

    Args:
        score: Images to one number each.
        threshold: The score that counts as neither.
        spread: Its unit: the standard deviation of ordinary images' scores.

    Raises:
        InputError: a threshold that is no number, or a spread that is not positive.
    """

    def __init__(self, score: Callable[[Tensor], Tensor], threshold: float, spread: float) -> None:
        """See the class."""
        super().__init__()
        if not (math.isfinite(threshold) and spread > 0 and math.isfinite(spread)):
            raise InputError(
                f"threshold, spread: expected a number and a positive one, got {threshold} and {spread}; scores "
                "that do not differ have no unit"
            )
        self.score, self.threshold, self.spread = score, threshold, spread

    def forward(self, x: Float[Tensor, "b c *space"]) -> Float[Tensor, "b 1"]:
        """How many spreads the score is above the threshold.

        Raises:
            InputError: the score is not one number an image.
        """
        found = tensor_of(self.score(x), "score")
        if found.numel() != len(x):
            raise InputError(f"score: expected one number an image, got shape {tuple(found.shape)}")
        return ((found.reshape(-1, 1).double() - self.threshold) / self.spread).to(x)

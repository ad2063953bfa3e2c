"""SmoothGrad: the mean gradient over noisy copies of the image.

    M(x) = mean_j grad f(x + s eps_j),    eps_j standard normal, s = level * 2, of the range [-1, 1]

With `times_change` it is multiplied by x - b. Reference: Smilkov, Thorat, Kim, Viegas, Wattenberg (2017), "SmoothGrad:
removing noise by adding noise": 50 copies, noise of 10 to 20 % of the range.
"""

from dataclasses import dataclass
from typing import ClassVar

from cfx.attribution.method import Family, Found, Question, Whole
from cfx.core.gradients import smoothed
from cfx.core.random import normal

_NOISE = 0x5600  # stream


@dataclass(frozen=True)
class SmoothGrad:
    """Mean gradient over noisy copies; signed.

    Attributes:
        copies: Noisy copies of every image.
        level: Standard deviation of the noise as a share of the range, 2.
        times_change: Multiply by x - b.
    """

    copies: int = 50
    level: float = 0.15
    times_change: bool = False

    name: ClassVar[str] = "smoothgrad"
    whole: ClassVar[Whole] = ""
    family: ClassVar[Family] = "classic"
    gradient: ClassVar[bool] = True

    def explain(self, question: Question) -> Found:
        """The maps of a batch."""
        x = question.x
        shape = (self.copies, *x.shape[1:])
        noise = 2 * self.level * normal(shape, seed=question.seed, row=question.row.to(x.device), stream=_NOISE)
        mean = smoothed(question.gradient, x, noise.to(x.dtype))
        return Found(mean * (x - question.baseline) if self.times_change else mean)

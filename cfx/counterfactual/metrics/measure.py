"""What several metrics share: the class a row comes from, and how far two images are apart."""

from collections.abc import Callable

from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.broadcast import rms
from cfx.counterfactual.result import Counterfactuals
from cfx.models.running import in_batches

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of images to one distance a row."""


def source_class(result: Counterfactuals) -> Int[Tensor, " n"]:
    """The class every row comes from: the most probable one of `x` besides the target."""
    return result.probs_before.scatter(1, result.target[:, None], -1.0).argmax(1)


def probability(probs: Float[Tensor, "n k"], label: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The probability of each row's own label."""
    return probs.gather(1, label[:, None])[:, 0]


def apart(
    a: Float[Tensor, "n c *space"], b: Float[Tensor, "n c *space"], distance: Distance | None = None
) -> Float[Tensor, " n"]:
    """Distance of each pair of images; root mean square over pixels and channels by default."""
    return rms(a - b) if distance is None else in_batches(distance, a, b)

"""A gate says of images how well they fit a distribution, so that a room can ask one without knowing how it does so."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor


@runtime_checkable
class Gate(Protocol):
    """What says whether images are still in distribution, such as a fitted detector of `cfx.ood`."""

    def __call__(self, x: Float[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
        """A p-value in (0, 1] of every image in [-1, 1]: small for one that is out of distribution."""

"""What a network that draws masks has to say: its loss for readers' masks, what it keeps of an image, and one draw.

Masks are class numbers a voxel, uint8, 0 the background; one region has two classes. A reader who drew nothing is a
mask of zeros and counts like any other.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.models.kinds import Kind

Code = tuple[Tensor, ...]
"""What is computed once an image and serves all draws; the images along the first axis of every tensor."""

_READER = 64  # streams of training below belong to the objectives


@dataclass(frozen=True)
class Draw:
    """What keys the randomness of training rows.

    Attributes:
        seed: The run's seed.
        slot: Position of every row in the run's sequence of rows.
    """

    seed: int
    slot: Int[Tensor, " b"]


class MaskSampler(nn.Module, ABC):
    """A network that draws masks of images.

    Attributes:
        classes: Labels a voxel may have, background included; 2 for one region.
        nfe: Evaluations of the costly network that a draw takes, besides `encode`.
        multiple: What spatial sizes must be divisible by.
    """

    classes: int
    nfe: int = 1
    multiple: int = 1

    def __init__(self, classes: int) -> None:
        """Keep the number of classes.

        Raises:
            InputError: fewer than two, or more than bytes number.
        """
        super().__init__()
        if not 2 <= classes <= 256:
            raise InputError(f"classes: expected 2 to 256, the background being one, got {classes}")
        self.classes = classes

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "b c *space"], readings: UInt8[Tensor, "b r *space"], draw: Draw
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor]]:
        """The training loss of every row, and scalars to log.

        Args:
            x: Images in [-1, 1].
            readings: Masks of their readers.
            draw: Key of the randomness.
        """

    @abstractmethod
    def encode(self, x: Float[Tensor, "b c *space"]) -> Code:
        """What is kept of images for all their draws."""

    @abstractmethod
    def draw(self, code: Code, *, seed: int, row: Int[Tensor, " b"]) -> UInt8[Tensor, "b *space"]:
        """One mask for every row of a code; a function of code, seed and the row's counter alone.

        Args:
            code: As `encode` gives it, its rows repeated where an image is to have several masks.
            seed: Seed of all draws.
            row: Counter of every row.
        """


def one_reader(readings: UInt8[Tensor, "b r *space"], draw: Draw) -> UInt8[Tensor, "b *space"]:
    """The mask of one reader of every row, drawn evenly."""
    u = uniform((), seed=draw.seed, row=draw.slot, stream=_READER)
    chosen = (u * readings.shape[1]).long()
    index = chosen.view(-1, *[1] * (readings.ndim - 1)).expand(-1, 1, *readings.shape[2:])
    return readings.gather(1, index)[:, 0]


MASK_SAMPLER = Kind("A network that draws masks of an image, as several experts would.", network="mask-sampler")

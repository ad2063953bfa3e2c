"""How sharp are images? A result class, two methods by name, a metric, and a function from images to results."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.cohort import Source
from cfx.core.rows import Rows, about
from cfx.display.catalogue import Metric, register

register(Metric("sharpness", "sharpness", "Root mean square of the difference of neighbours.", "higher", ".2e"))


class Judgement(IntEnum):
    """What is said of an image."""

    BLURRED = 0
    SHARP = 1


@dataclass(frozen=True)
class Sharpness(Rows):
    """How sharp each image is.

    Attributes:
        row: Index of the image.
        edges: Where it has edges, `(n, c, *space)`.
        sharpness: Root mean square of `edges`.
        judgement: `Judgement` codes.
        note: A word on each.
        method: How it was measured.
    """

    row: Int[Tensor, " n"]
    edges: Float[Tensor, "n c *space"]
    sharpness: Float[Tensor, " n"]
    judgement: Int[Tensor, " n"] = field(metadata=about(codes=Judgement))
    note: tuple[str, ...]
    method: str


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "forward": lambda x: torch.cat([x.diff(dim=-1), torch.zeros_like(x[..., :1])], -1),
    "backward": lambda x: torch.cat([torch.zeros_like(x[..., :1]), x.diff(dim=-1)], -1),
}


def measure(source: Source, method: str, batches: Sequence[Sequence[int]]) -> Iterator[Sharpness]:
    """The sharpness of some images, a batch at a time."""
    for rows in batches:
        edges = METHODS[method](source[list(rows)].x)
        sharpness = edges.square().flatten(1).mean(1).sqrt()
        sharp = (sharpness > 0.05).long()
        yield Sharpness(
            torch.tensor(rows), edges, sharpness, sharp, tuple(f"n\N{DEGREE SIGN}{i}" for i in rows), method
        )

"""What drawing masks returns: masks of every image, what became of them, and what they cost."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cfx.core.codes import Code
from cfx.core.rows import Rows, about


class Drawn(Code):
    """What became of the masks of an image; `meaning` says it in a sentence."""

    SAMPLED = 0, "Masks were drawn, and they differ."
    COLLAPSED = 1, "All masks are equal: what to draw is certain, or the network has one answer whatever it is asked."
    REFUSED = 2, "What the network made of the image is not finite; the masks are empty and mean nothing."


@dataclass(frozen=True)
class Segmentations(Rows):
    """Masks as several experts might have drawn them, one row an image.

    Attributes:
        masks: Labels of every voxel, 0 the background, `(n, draw, *space)`.
        verdict: `Drawn` codes.
        row: Index of the row in the user's input.
        diversity: Mean distance (1 - IoU) of two masks of the image; NaN where refused.
        nfe_encoder: Evaluations of what looks at the image once.
        nfe_unet_forward: Evaluations spent on the draws, all masks of the image together.
        seconds: Wall-clock seconds spent on the row: an equal share of those of its batch.
        segmenter: Name of the network.
        samples: Masks an image.
        seed: Seed of the draws.
        labels: Names of the labels, the background first.
    """

    masks: UInt8[Tensor, "n draw *space"]
    verdict: Int[Tensor, " n"] = field(metadata=about(codes=Drawn))
    row: Int[Tensor, " n"]
    diversity: Float[Tensor, " n"]
    nfe_encoder: Int[Tensor, " n"]
    nfe_unet_forward: Int[Tensor, " n"]
    seconds: Float[Tensor, " n"]
    segmenter: str
    samples: int
    seed: int
    labels: Sequence[str]

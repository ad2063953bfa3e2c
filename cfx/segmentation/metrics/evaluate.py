"""All figures of a set of samples at once: every pair of masks is compared once."""

from dataclasses import dataclass
from typing import Self

from jaxtyping import Float
from torch import Tensor

from cfx.core.overlap import within
from cfx.core.rows import Rows
from cfx.segmentation.metrics.combined import harmonic, parts, printed
from cfx.segmentation.metrics.drawings import Drawings, Masks
from cfx.segmentation.metrics.energy import energy
from cfx.segmentation.metrics.matching import matched
from cfx.segmentation.metrics.voxels import correlation, dice_on_consensus, volume_score

_VOXELS = 1 << 22  # of masks worked on at a time


@dataclass(frozen=True)
class MaskScores(Rows):
    """How near samples are to what readers drew, an image a row; the functions of this package say what each is.

    Attributes:
        ged: Squared generalised energy distance in the V-form, GED_N.
        ged_limit: Free of its bias in N, an estimate of GED at N -> infinity.
        ged_debiased: Free of its bias in N and in the number of readers; 0 on average for the true distribution.
        hm_iou: Hungarian-matched IoU, tiled.
        best_m_iou: IoU of the best one-to-one choice of samples.
        s_c: Combined sensitivity.
        d_max: Mean over readers of the best Dice.
        d_a: Diversity agreement.
        ci: Combined index, the harmonic mean of these three.
        ci_printed: The index as its paper prints it.
        diversity: Mean distance of different samples.
        reader_diversity: Mean distance of different readers.
        ncc: Correlation of uncertainty and error.
        consensus_dice: Dice of what most samples have where all readers agree.
        volume_crps: CRPS of the volume in voxels.
        ids: One name a row.
        n_samples: Number N of samples an image.
        n_readers: Number M of readers an image.
    """

    ged: Float[Tensor, " n"]
    ged_limit: Float[Tensor, " n"]
    ged_debiased: Float[Tensor, " n"]
    hm_iou: Float[Tensor, " n"]
    best_m_iou: Float[Tensor, " n"]
    s_c: Float[Tensor, " n"]
    d_max: Float[Tensor, " n"]
    d_a: Float[Tensor, " n"]
    ci: Float[Tensor, " n"]
    ci_printed: Float[Tensor, " n"]
    diversity: Float[Tensor, " n"]
    reader_diversity: Float[Tensor, " n"]
    ncc: Float[Tensor, " n"]
    consensus_dice: Float[Tensor, " n"]
    volume_crps: Float[Tensor, " n"]
    ids: tuple[str, ...]
    n_samples: int
    n_readers: int

    @classmethod
    def of_drawings(cls, drawn: Drawings, ids: tuple[str, ...]) -> Self:
        """The figures of masks that are checked, two samples and two readers of every image at least."""
        three, iou = parts(drawn), drawn.across.iou
        return cls(
            ged=energy(drawn, "v", "v"),
            ged_limit=energy(drawn, "u", "v"),
            ged_debiased=energy(drawn, "u", "u"),
            hm_iou=matched(iou, tile=True),
            best_m_iou=matched(iou, tile=False),
            s_c=three[0],
            d_max=three[1],
            d_a=three[2],
            ci=harmonic(three),
            ci_printed=printed(three),
            diversity=within(drawn.among_samples.distance, "u"),
            reader_diversity=within(drawn.among_readers.distance, "u"),
            ncc=correlation(drawn),
            consensus_dice=dice_on_consensus(drawn),
            volume_crps=volume_score(drawn),
            ids=ids,
            n_samples=drawn.samples.shape[2],
            n_readers=drawn.readers.shape[2],
        )


def evaluate(
    samples: Masks, readers: Masks, classes: int | None = None, *, ids: tuple[str, ...] | None = None
) -> MaskScores:
    """All figures of every image.

    Args:
        samples: Samples `(n, s, *space)`, two at least; of a deterministic method its mask repeated.
        readers: Readers' masks `(n, r, *space)`, two at least.
        classes: Number of classes, for class numbers.
        ids: One name an image; numbers by default.

    Raises:
        InputError: masks that do not fit together, fewer than two of either, or another number of names.
    """
    drawn = Drawings.of(samples, readers, classes, least=(2, 2))
    names = tuple(str(i) for i in range(len(samples))) if ids is None else ids
    each = max(1, drawn.samples[:, :1].numel() + drawn.readers[:, :1].numel())
    step = max(1, _VOXELS // each)
    starts = range(0, max(1, len(samples)), step)
    return MaskScores.cat([MaskScores.of_drawings(_rows(drawn, i, i + step), names[i : i + step]) for i in starts])


def _rows(drawn: Drawings, first: int, last: int) -> Drawings:
    return Drawings(drawn.samples[:, first:last], drawn.readers[:, first:last])

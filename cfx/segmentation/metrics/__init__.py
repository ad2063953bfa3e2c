"""How near drawn masks are to what several readers drew, image by image.

Samples are masks `(n, s, *space)`, readers' masks `(n, r, *space)`, both boolean, or both class numbers with the number
of `classes`; class 0 is the background. Everything returned is float64, one number an image.

**Empty masks.** One policy throughout: two empty masks are equal (IoU 1, Dice 1, distance 0), an empty one and one that
is not share nothing (0, 0, distance 1). A reader who drew nothing is an empty mask, and counts like any other. With
several classes an overlap is the mean over the foreground classes that one of the two masks has, and 1 where neither
has any; so with one foreground class it is that of boolean masks.

**N in the name.** Most of these figures change with the number of samples N alone: say it beside them (`GED_16`).
"""

from cfx.segmentation.metrics.combined import ci, ci_printed, d_a, d_max, s_c
from cfx.segmentation.metrics.emptiness import empty_ece, empty_share
from cfx.segmentation.metrics.energy import diversity, ged, ged_at
from cfx.segmentation.metrics.evaluate import MaskScores, evaluate
from cfx.segmentation.metrics.matching import best_m_iou, hm_iou
from cfx.segmentation.metrics.voxels import consensus_dice, ncc, reader_calibration, volume_crps

__all__ = [
    "MaskScores", "best_m_iou", "ci", "ci_printed", "consensus_dice", "d_a", "d_max", "diversity", "empty_ece",
    "empty_share", "evaluate", "ged", "ged_at", "hm_iou", "ncc", "reader_calibration", "s_c", "volume_crps",
]  # fmt: skip

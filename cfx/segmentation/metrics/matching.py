"""Samples matched with readers one to one, by the Hungarian method. Two figures go by one name; here they have two.

    HM-IoU       every sample and every reader is copied until there are lcm(N, M) of each; mean IoU of the best
                 one-to-one matching. It is 1 - W_1 of the two sets of masks under 1 - IoU: all samples count.
    best-M IoU   the best one-to-one matching of the N samples and M readers as they are. Of 100 samples the best
                 four count, so it rises with N whatever they are: .87 where HM-IoU is .62.

References: Kuhn (1955), "The Hungarian method"; Zbinden et al. (2023), "Stochastic segmentation with conditional
categorical diffusion models", for HM-IoU.
"""

import math

import numpy as np
import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cfx.segmentation.metrics.drawings import Drawings, Masks


def hm_iou(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """Hungarian-matched IoU, tiled; higher is better.

    Args:
        samples: Samples `(n, s, *space)`.
        readers: Readers' masks `(n, r, *space)`.
        classes: Number of classes, for class numbers.

    Raises:
        InputError: masks that do not fit together.
    """
    return matched(Drawings.of(samples, readers, classes).across.iou, tile=True)


def best_m_iou(samples: Masks, readers: Masks, classes: int | None = None) -> Float[Tensor, " n"]:
    """IoU of the samples that fit the readers best, one a reader (or the other way round where samples are fewer).

    Not to be compared with `hm_iou`; arguments and errors as there.
    """
    return matched(Drawings.of(samples, readers, classes).across.iou, tile=False)


def matched(iou: Float[Tensor, "n s r"], *, tile: bool) -> Float[Tensor, " n"]:
    """Mean IoU of the best one-to-one matching of every image; scipy solves one at a time, microseconds each."""
    _, s, r = iou.shape
    full = math.lcm(s, r)
    copies = (full // s, full // r) if tile else (1, 1)
    found = [_best(value, copies) for value in iou.cpu().numpy()]
    return torch.tensor(found, dtype=torch.float64, device=iou.device)


def _best(iou: np.ndarray, copies: tuple[int, int]) -> float:
    tiled = iou.repeat(copies[0], axis=0).repeat(copies[1], axis=1)
    rows, columns = linear_sum_assignment(tiled, maximize=True)
    return float(tiled[rows, columns].mean())

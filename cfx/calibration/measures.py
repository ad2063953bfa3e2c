"""How good and how honest probabilities are, of rows or of voxels alike; all are means, less is better but of accuracy.

    nll                 -log p_y, in nats
    brier               1/C sum_k (p_k - [y = k])^2 of C classes; scikit-learn's is the sum, C times that
    ece                 gaps of a reliability diagram (`cfx.core.calibration`): by rows (weight "rows"), or
                        all filled bins alike (weight "bins", called ACE or "average" by others)
    classwise_ece       the same of every class k, whose p_k should be the share of rows of class k; mean over classes
    debiased_error      root of the squared error of the bins without the bias of finite samples
    error_to_true_p     1/2 sum_k |p_k - p*_k| to the true distribution, known for simulated rows alone

The first two are proper: nothing does better on average than the truth, so they see what calibration does not, whether
the probabilities tell anything. All other figures but the last fall to 0 also for a classifier that says the base rate
of every image. Voxels of all images are pooled; `image_calibration` takes each image by itself.

References: as `cfx.core.calibration`; Kull, Perello-Nieto, Kaengsepp, Silva Filho, Song, Flach (2019), "Beyond
temperature scaling", for the classwise error.
"""

import math
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core import calibration as core
from cfx.core.calibration import BINS, Reliability
from cfx.core.errors import InputError
from cfx.core.probabilities import Classes, Probabilities, classes, entries, probabilities

Bins = Literal["width", "count"]
"""Bins of equal width, or with equally many rows."""


def _given(p: Probabilities, y: Classes) -> tuple[Float[Tensor, "n k *space"], Int[Tensor, "n *space"]]:
    found = probabilities(p)
    return found, classes(y, found)


def accuracy(p: Probabilities, y: Classes) -> float:
    """Share of rows or voxels whose most probable class is theirs.

    Args:
        p: Probabilities `(n, k, *space)`.
        y: Classes `(n, *space)`.

    Raises:
        InputError: numbers that are no probabilities, or labels that are no classes of them.
    """
    found, of = _given(p, y)
    return float((found.max(1).indices == of).double().mean())  # argmax takes five times as long


def nll(p: Probabilities, y: Classes) -> float:
    """Mean -log p_y in nats; infinite where a class came true that was said to be impossible. Arguments as `accuracy`.

    Raises:
        InputError: as `accuracy`.
    """
    found, of = _given(p, y)
    return -float(found.gather(1, of[:, None]).double().log().mean())


def brier(p: Probabilities, y: Classes) -> float:
    """Mean Brier score, the mean over classes: in [0, 2 / k]. Arguments as `accuracy`.

    Raises:
        InputError: as `accuracy`.
    """
    found, of = _given(p, y)
    step = entries(found[0].numel())
    parts = (core.brier(a, b).double().sum() for a, b in zip(found.split(step), of.split(step), strict=True))
    return float(sum(parts, torch.zeros((), dtype=torch.float64, device=found.device))) / of.numel() / found.shape[1]


def reliability(
    p: Probabilities, y: Classes, *, label: int | None = None, bins: int = BINS, equal: Bins = "width"
) -> Reliability:
    """The reliability diagram: average confidence and average accuracy bin by bin, and how many rows are in each.

    Args:
        p: Probabilities `(n, k, *space)`.
        y: Classes `(n, *space)`.
        label: A class, whose probability is then the confidence; None for the most probable one of every row.
        bins: Number of bins.
        equal: Bins of equal width, or with equally many rows.

    Raises:
        InputError: as `accuracy`; also a class that is none.
    """
    found, of = _given(p, y)
    return _diagram(found, of, label, bins, equal)


def _diagram(p: Tensor, y: Tensor, label: int | None, bins: int, equal: Bins = "width") -> Reliability:
    """As `reliability`, of what was checked."""
    if label is None:
        confidence, right = core.top_label(p, y)
    elif 0 <= label < p.shape[1]:
        confidence, right = p[:, label].flatten(), (y == label).flatten()
    else:
        raise InputError(f"label: expected a class in 0 .. {p.shape[1] - 1}, got {label}")
    return core.reliability(confidence.clamp(0, 1), right, bins=bins, equal=equal)


def ece(p: Probabilities, y: Classes, *, bins: int = BINS, weight: str = "rows", equal: Bins = "width") -> float:
    """Expected calibration error of the most probable class.

    Args:
        p: Probabilities `(n, k, *space)`.
        y: Classes `(n, *space)`.
        bins: Number of bins; errors grow with it, so compare at equal numbers.
        weight: `rows`: a gap counts by its rows; `bins`: rare confidences count as much as common ones.
        equal: As in `reliability`.

    Raises:
        InputError: as `reliability`, or another weight.
    """
    return _of(reliability(p, y, bins=bins, equal=equal), weight)


def classwise_ece(
    p: Probabilities, y: Classes, *, bins: int = BINS, weight: str = "rows", equal: Bins = "width"
) -> float:
    """Mean over classes of the calibration error of each class's probability; arguments and errors as `ece`."""
    found, of = _given(p, y)
    each = [_of(_diagram(found, of, k, bins, equal), weight) for k in range(found.shape[1])]
    return sum(each) / len(each)


def debiased_error(p: Probabilities, y: Classes, *, bins: int = BINS, equal: Bins = "width") -> float:
    """Root of the squared calibration error without bias, with the sign of what is under the root.

    Calibrated probabilities have an estimate below 0 about as often as above, where `ece` is always above. Arguments
    and errors as `ece`; NaN where no bin has two rows.
    """
    found = reliability(p, y, bins=bins, equal=equal).squared
    return math.copysign(math.sqrt(abs(found)), found)


def error_to_true_p(p: Probabilities, true_p: Probabilities) -> float:
    """Mean distance in total variation, half the sum of |p_k - p*_k|, to the true probabilities of the classes.

    Args:
        p: Probabilities `(n, k, *space)`.
        true_p: True ones of the same shape; of two classes P(y = 1) alone will do, `(n, *space)`. Simulated cohorts
            have it as the covariate `p_true`.

    Raises:
        InputError: numbers that are no probabilities, or of other shapes.
    """
    found = probabilities(p)
    truth = torch.as_tensor(true_p)
    if truth.shape == (len(found), *found.shape[2:]) and found.shape[1] == 2:
        truth = torch.stack([1 - truth, truth], 1)
    truth = probabilities(truth, "true_p").to(found.device)
    if truth.shape != found.shape:
        raise InputError(f"true_p: expected the shape of p, {tuple(found.shape)}, got {tuple(truth.shape)}")
    return float((found.double() - truth.double()).abs().sum(1).mean()) / 2


def _of(found: Reliability, weight: str) -> float:
    if weight not in ("rows", "bins"):
        raise InputError(f"weight: expected rows or bins, got {weight!r}")
    return found.ece if weight == "rows" else found.ace


def figures(p: Probabilities, y: Classes, *, bins: int = BINS) -> dict[str, float]:
    """All figures by the names they have in tables: accuracy, nll, brier, ece, ece_bins, classwise_ece, ece_debiased.

    Args:
        p: Probabilities `(n, k, *space)`.
        y: Classes `(n, *space)`.
        bins: Bins of equal width.

    Raises:
        InputError: as `accuracy`.
    """
    found = reliability(p, y, bins=bins)
    return {
        "accuracy": accuracy(p, y), "nll": nll(p, y), "brier": brier(p, y), "ece": found.ece, "ece_bins": found.ace,
        "classwise_ece": classwise_ece(p, y, bins=bins), "ece_debiased": debiased_error(p, y, bins=bins),
    }  # fmt: skip

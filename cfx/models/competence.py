"""How good a classifier is on labelled images, and what to say of one that is not.

Competence is the balanced accuracy BA with its interval; skill is (BA - c) / (1 - c) with c = 1 / k: 0 is chance, 1
perfect, below 0 worse than chance.

The interval of BA is that of Price and Bonett (2004), "An improved confidence interval for a linear function of
binomial proportions": with s_k subjects of class k, of which r_k are decided right, and m classes

    p_k = (r_k + 2/m) / (s_k + 4/m),    mean(p) +- z sqrt(sum p_k (1 - p_k) / (s_k + 4/m)) / m

which holds for a handful of images, where a bootstrap sees no doubt. A subject with several images counts as one, with
the share of them that is decided right: conservative, since the variance of a share is at most that of one decision.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.calibration import reliability, top_label
from cfx.core.cohort import Source, subjects
from cfx.core.errors import InputError
from cfx.core.groups import numbered, sums
from cfx.core.scores import auroc
from cfx.core.statistics import Estimate
from cfx.models.judge import Classifier, Judge, margin_of
from cfx.models.running import BATCH

POOR = 0.2
"""Skill up to which a classifier knows next to nothing: "slight" in the scale of Landis and Koch (1977)."""
FAIR, EXCELLENT = 0.4, 0.8
"""Skill up to which a classifier knows little, and from which it knows nearly all: "fair", "almost perfect" there."""
_DECENT = 0.5  # skill that a classifier has to be shown to lack before anybody is warned
_FEWEST = 8  # subjects from which the classifier is judged, rather than they


@dataclass(frozen=True)
class Competence:
    """How good a classifier is on labelled images.

    Attributes:
        accuracy: Balanced accuracy, the mean over classes of the share decided right, with its interval.
        shares: Share of images of each class that is decided right, by number of the class.
        images: Number of images.
        subjects: Number of subjects they are of.
        auc: Area under the ROC curve, of several classes the mean over those of each against the rest.
        ece: Expected calibration error of the most probable class (`cfx.core.calibration`).
    """

    accuracy: Estimate
    shares: dict[int, float]
    images: int
    subjects: int
    auc: float = math.nan
    ece: float = math.nan

    @property
    def chance(self) -> float:
        """The balanced accuracy of guessing."""
        return 1 / len(self.shares)

    @property
    def skill(self) -> Estimate:
        """Balanced accuracy rescaled so that 0 is chance and 1 perfect."""
        return Estimate(*((v - self.chance) / (1 - self.chance) for v in self.accuracy))

    @property
    def shown(self) -> bool:
        """Whether these images show that the classifier knows something: better than chance, and more than `POOR`."""
        return self.skill.low > 0 and self.skill.value > POOR

    @property
    def clear(self) -> bool:
        """Whether these images show that it knows a good deal: a skill surely above `FAIR`, or one that is `EXCELLENT`.

        Random features are better than chance on many data sets, but never by so much.
        """
        return self.skill.low > FAIR or (self.shown and self.skill.value >= EXCELLENT)

    @property
    def exchanged(self) -> bool:
        """Whether it is so much worse than chance that classes are probably exchanged."""
        return self.subjects >= _FEWEST and self.skill.high < 0

    @property
    def poor(self) -> bool:
        """Whether these images show that the classifier knows next to nothing; False also where they are too few."""
        return self.subjects >= _FEWEST and self.skill.value <= POOR and self.skill.high < _DECENT

    def __str__(self) -> str:
        value, low, high = self.accuracy
        of = f"{self.images} images" + ("" if self.subjects == self.images else f" of {self.subjects} subjects")
        return f"balanced accuracy {value:.2f} [{low:.2f}, {high:.2f}] on {of}, chance {self.chance:.2f}"


def competence(
    classifier: Classifier, data: Source, *, level: float = 0.95, device: torch.device | None = None
) -> Competence | None:
    """How good a classifier is on labelled images.

    Args:
        classifier: Images to logits.
        data: Images with labels `(n,)`; `(n, k)` for a `Finding`.
        level: Coverage of the interval.
        device: Where a classifier without parameters works.

    Returns:
        None where it cannot be told: without labels, with one class only, or for a `Near`.

    Raises:
        InputError: labels of classes that the classifier does not have; or as `Judge.answers`.
    """
    judge = Judge(classifier, device=device)
    y = judge.labels(data.y)
    if y is None:
        return None
    logits = torch.cat([judge.answers(data[at].x) for at in torch.arange(len(data)).split(BATCH)])
    return competence_of(logits, y, subjects(data), level=level)


def competence_of(
    logits: Float[Tensor, "n k"], y: Int[Tensor, " n"], groups: Int[Tensor, " n"] | None = None, *, level: float = 0.95
) -> Competence | None:
    """`competence` where the answers are known.

    Args:
        logits: What the classifier says, one column a class.
        y: Class of every image; negative where it is not known.
        groups: Subject of every row; None where every row is one.
        level: Coverage of the interval.

    Returns:
        None where there are not two classes.

    Raises:
        InputError: labels of classes that the classifier does not have, or a level outside (0, 1).
    """
    if not 0 < level < 1:
        raise InputError(f"level: expected a number in (0, 1), got {level}")
    of = torch.arange(len(y)) if groups is None else groups.cpu()
    known = y.cpu() >= 0
    logits, y, of = logits.cpu()[known], y.cpu()[known], of[known]
    found = y.unique().tolist()
    if found and found[-1] >= logits.shape[1]:
        raise InputError(f"y: expected classes in 0 .. {logits.shape[1] - 1} as the classifier has, got {found[-1]}")
    if len(found) < 2:
        return None
    right = (logits.argmax(1) == y).double()
    shares, p, s = dict[int, float](), [], []
    for k in found:
        share, count = _by_subject(right[y == k], of[y == k])
        shares[k] = share
        p.append((share * count + 2 / len(found)) / (count + 4 / len(found)))
        s.append(count + 4 / len(found))
    middle, width = sum(p) / len(p), _width(p, s, level)
    value = sum(shares.values()) / len(shares)
    return Competence(
        Estimate(value, max(0.0, min(value, middle - width)), min(1.0, max(value, middle + width))),
        shares, len(y), len(of.unique()), *_ranking_and_calibration(logits, y, found),
    )  # fmt: skip


def _ranking_and_calibration(logits: Tensor, y: Tensor, found: list[int]) -> tuple[float, float]:
    """Area under the ROC curve and calibration error, of the images whose logits are finite; NaN without any."""
    finite = logits.isfinite().all(1)
    logits, y = logits[finite], y[finite]
    if not len(y):
        return math.nan, math.nan
    areas = [auroc(margin_of(logits, torch.full_like(y, k)).double(), y == k) for k in found]
    return float(torch.stack(areas).mean()), reliability(*top_label(logits.softmax(1).clamp(0, 1), y)).ece


def _by_subject(right: Float[Tensor, " n"], of: Int[Tensor, " n"]) -> tuple[float, int]:
    """Mean over subjects of the share of images decided right, and their number."""
    of = numbered(of, len(right))
    return float((sums(right, of) / of.bincount()).mean()), int(of.max()) + 1


def _width(p: list[float], s: list[float], level: float) -> float:
    """Half the width of the interval of a mean of proportions."""
    variance = sum(q * (1 - q) / n for q, n in zip(p, s, strict=True)) / len(p) ** 2
    return float(NormalDist().inv_cdf((1 + level) / 2) * variance**0.5)


def of_competence(found: Competence | None, what: str, name: str = "classifier") -> str | None:
    """What to say of a classifier that is near chance, or far below it, on labelled images; None if nothing.

    Args:
        found: How good it is.
        what: The labelled images; `x` are those to be explained, which may have been chosen for how they are decided.
        name: What the classifier is.
    """
    if found is None or not (found.exchanged or found.poor):
        return None
    start = f"{name}: expected one that recognises the classes of {what}, got {found}"
    end = "; if these rows were chosen because the classifier errs, ignore this" if what == "x" else ""
    if found.exchanged:
        why = "far below chance: are the classes exchanged? Compare its class order with that of the labels"
        return f"{start}; {why}{end}"
    return (
        f"{start}; before believing a result, look at the pixels it was trained on (cfx shows images in [-1, 1]; with "
        "pixels: {range: [0, 1]} beside its path in a file, in [0, 1]; in Python, for "
        "others adapt(network, pixels=Pixels(range=(0, 1)))), at the order of its classes, and whether the labels are "
        f"what it predicts{end}"
    )

"""What an edit has to reach: the margin of the target class, at depth `typical` that of real images of the class."""

import warnings
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.cohort import Cohort, subjects
from cfx.core.errors import CfxWarning, InputError
from cfx.models.competence import competence_of, of_competence
from cfx.models.doubts import of_pixels
from cfx.models.judge import Classifier, Judge, margin_of
from cfx.models.wrappers import Near

FALLBACK_MARGIN = 2.944
"""Margin asked for at depth `typical` without a reference cohort: log-odds of p = 0.95."""
_BOUNDARY_MARGIN = 1e-3
_ROUNDING = 1e-5  # of a margin between two evaluations of one image


@dataclass(frozen=True)
class Goal:
    """What the edits of some rows have to reach, or before targets are known, those towards each class.

    Attributes:
        margin: Margin (target logit minus best other) asked for.
        whole: Whether the change should be a whole one, as typical of the target class as real images of it are;
            otherwise the least that reaches `margin`.
        two_sided: Whether an edit can go too far, the classes being ranges of one value in order.
    """

    margin: Float[Tensor, " n"]
    whole: bool = False
    two_sided: bool = False

    @classmethod
    def of(cls, judge: Judge, margin: Float[Tensor, " n"], depth: str) -> "Goal":
        """These margins, at a depth, of a classifier."""
        return cls(margin, whole=depth == "typical", two_sided=judge.ordered)

    def __getitem__(self, which: Int[Tensor, " m"]) -> "Goal":
        """The goal of some of these rows, or of rows with these targets."""
        return replace(self, margin=self.margin[which])

    def to(self, device: torch.device) -> "Goal":
        """The same on a device."""
        return replace(self, margin=self.margin.to(device))

    def reached(self, margin: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
        """Whether a final image with this margin is there, to within rounding; never where it is NaN."""
        return margin >= self.margin - _ROUNDING


Answers = tuple[Float[Tensor, "n k"], Int[Tensor, " n"]]
"""What a classifier says of labelled images, and their classes."""


def goals(judge: Judge, k: int, depth: str, reference: Cohort | None = None, answers: Answers | None = None) -> Goal:
    """What is asked for each of the `k` classes of a classifier.

    Args:
        judge: The classifier.
        k: Number of its classes.
        depth: `typical`: a whole change, and the margin of real images of the class (`typical_margins`); without a
            reference p = 0.95, with `Near` half its tolerance. `boundary`: the least change that flips.
        reference: Labelled validation images, not those to be explained; not for `Near`.
        answers: What it says of them, `recognised`, where it was asked already.

    Raises:
        InputError: no such depth; or as `typical_margins`.
    """
    if depth not in ("typical", "boundary"):
        raise InputError(f"depth: expected 'typical' or 'boundary', got {depth!r}")
    if depth == "boundary":
        margin = torch.full((k,), _BOUNDARY_MARGIN)
        if reference is not None and not judge.ordered:
            warn_of(judge, *(answers or _recognised(judge, reference)), reference)
    elif reference is None:
        margin = torch.full((k,), Near.TYPICAL if judge.ordered else FALLBACK_MARGIN)
    else:
        margin = typical_margins(judge.classifier, reference, device=judge.device, answers=answers)
    return Goal.of(judge, margin, depth)


def typical_margins(
    classifier: Classifier,
    reference: Cohort,
    *,
    device: torch.device | None = None,
    answers: Answers | None = None,
) -> Float[Tensor, " k"]:
    """How sure the classifier is of real images of each class: the lower decile of the margins it gives them.

    Not the median: half of all real images are below it, so half of all true counterfactuals would not count as valid.

    Args:
        classifier: Images to logits.
        reference: Labelled validation images, not those to be explained.
        device: Where a classifier without parameters works.
        answers: What it says of the reference, `recognised`, where it was asked already.

    Raises:
        InputError: no class labels, a class of which no reference image is recognised, or a `Near`, whose typical
            margin is `Near.TYPICAL`.

    Warns:
        CfxWarning: the classifier is near chance on the reference, or far below it.
    """
    judge = Judge(classifier, device=device)
    if judge.ordered:
        raise InputError("reference: expected none with Near, whose typical margin is fixed, got a cohort")
    logits, y, margins = *(answers or _recognised(judge, reference)), []
    for k in range(logits.shape[1]):
        own = margin_of(logits, torch.full((len(logits),), k))[(y == k) & (logits.argmax(1) == k)]
        if len(own) == 0:
            there = int((y == k).sum())
            said = f"none of {there}; predicted classes: {logits.argmax(1).unique().tolist()}" if there else "none"
            hint = "; has it another range of pixels, or order of classes?" if there else ""
            raise InputError(
                f"reference: expected images of class {k} that the classifier recognises, got {said}{hint}"
            )
        margins.append(own.quantile(0.1))
    warn_of(judge, logits, y, reference)
    return torch.stack(margins)


def recognised(judge: Judge, reference: Cohort | None) -> Answers | None:
    """What a classifier says of a reference, and its labels; None without one, and of a `Near`, which takes none.

    Raises:
        InputError: no class labels, or other classes than the classifier's.
    """
    return None if reference is None or judge.ordered else _recognised(judge, reference)


def _recognised(judge: Judge, reference: Cohort) -> Answers:
    """What a classifier says of a reference, and its labels."""
    judge.check_labels(reference.x[:1], reference.y, "reference")
    y = judge.labels(reference.y)
    if y is None:
        raise InputError("reference: expected a cohort with one class label an image, got none")
    logits = judge.answers(reference.x)
    if bool((y >= logits.shape[1]).any()):
        k = logits.shape[1]
        raise InputError(f"reference: expected labels in 0 .. {k - 1} as the classifier has, got {int(y.max())}")
    return logits, y


def warn_of(judge: Judge, logits: Float[Tensor, "n k"], y: Int[Tensor, " n"], reference: Cohort) -> None:
    """Warn of a network that does not recognise the classes of a reference, or does so in other pixels.

    Args:
        judge: The network.
        logits: What it says of the reference.
        y: The classes.
        reference: Labelled images.

    Warns:
        CfxWarning: as `cfx.models.doubts.of_pixels`, else as `cfx.models.competence.of_competence`.
    """
    message = of_pixels(judge, reference.x, y, logits)
    message = message or of_competence(competence_of(logits, y, subjects(reference)), "reference", judge.name)
    if message is not None:
        warnings.warn(message, CfxWarning, stacklevel=2)

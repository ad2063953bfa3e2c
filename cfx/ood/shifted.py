"""What is found of a batch's shift: kinds, p-values, figures, and all of it in words."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from cfx.core.statistics import Estimate


class Kind(StrEnum):
    """What may be said of a batch."""

    NONE = "none"
    COVARIATE = "covariate"
    LABEL = "label"
    SEMANTIC = "semantic"
    CONCEPT = "concept"


@dataclass(frozen=True)
class Treated:
    """What a treatment of all images does to the scores.

    Attributes:
        auc: Share of pairs in which the batch's image has the higher score, after it.
        p: Sign-flip p-value that the excess over the reference stays the same, image by image.
    """

    auc: float
    p: float


@dataclass(frozen=True)
class Shifted:
    """The kinds of shift of a batch, and what they were told from.

    Attributes:
        kinds: All that were found, the most important first; empty where none was.
        p_values: Of the questions that were asked: `score`, `label`, `concept`.
        adjusted: The same, adjusted together by Holm.
        level: What they are compared with.
        auc: Share of pairs in which the batch's image has a higher score than the reference's.
        treated: The same after each treatment that was tried.
        priors: Share of each class in the batch, by `black_box` and by `em`, with intervals; empty without a
            classifier that knows its classes.
        reference_priors: Share of each class in the reference.
        classes: Names of the classes, or their numbers.
        accuracy: Share of the batch that is decided rightly, where it has labels.
        reference_accuracy: The same of the reference.
        ece: Calibration error of the batch, where it has labels.
        reference_ece: The same of the reference.
        unasked: What could not be asked, and why.
        n: Images in the batch.
        reference_n: Images in the reference.
    """

    kinds: tuple[Kind, ...]
    p_values: Mapping[str, float]
    adjusted: Mapping[str, float]
    level: float
    auc: float
    n: int
    reference_n: int
    treated: Mapping[str, Treated] = field(default_factory=dict)
    priors: Mapping[str, tuple[Estimate, ...]] = field(default_factory=dict)
    reference_priors: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    accuracy: float | None = None
    reference_accuracy: float | None = None
    ece: float | None = None
    reference_ece: float | None = None
    unasked: tuple[str, ...] = ()

    @property
    def kind(self) -> Kind:
        """The most important kind."""
        return self.kinds[0] if self.kinds else Kind.NONE

    @property
    def sentence(self) -> str:
        """What was found, in words."""
        said = [_WORDS[kind](self) for kind in self.kinds or (Kind.NONE,)]
        return " ".join([*said, *self.unasked])

    def summary(self) -> dict[str, Any]:
        """Flat figures."""
        values: dict[str, Any] = {"kind": str(self.kind), "kinds": ", ".join(self.kinds), "sentence": self.sentence}
        values |= {"n": self.n, "reference_n": self.reference_n, "auc": self.auc, "level": self.level}
        values |= {f"p_{name}": p for name, p in self.p_values.items()}
        values |= {f"p_{name}_adjusted": p for name, p in self.adjusted.items()}
        for name, after in self.treated.items():
            values |= {f"auc_{name}": after.auc, f"p_{name}": after.p}
        for name, shares in self.priors.items():
            for k, share in zip(self.classes, shares, strict=True):
                values |= {f"prior_{name}_{k}{end}": v for end, v in zip(("", "_low", "_high"), share, strict=True)}
        figures = ("accuracy", "reference_accuracy", "ece", "reference_ece")
        return values | {name: v for name in figures if (v := getattr(self, name)) is not None}


def _none(s: Shifted) -> str:
    p = ", ".join(f"{name} p = {p:.2g}" for name, p in s.p_values.items())
    return f"No shift is shown ({p})."


def _scores(s: Shifted) -> str:
    return f"the batch's scores are higher than the reference's (AUC {s.auc:.2f}, p = {s.p_values['score']:.2g})"


_TREATMENTS = {"intensity": "matching intensities", "batch_norm": "adapting batch normalisation"}


def _covariate(s: Shifted) -> str:
    name = min(s.treated, key=lambda n: s.treated[n].auc)
    after = s.treated[name]
    return (
        f"Covariate shift: {_scores(s)}, and {_TREATMENTS[name]} takes that away (AUC {after.auc:.2f}, p of the fall "
        f"{after.p:.2g})."
    )


def _semantic(s: Shifted) -> str:
    tried = "; ".join(f"after {_TREATMENTS[name]} AUC {t.auc:.2f}" for name, t in s.treated.items())
    return (
        f"Semantic shift: {_scores(s)}, and neither intensities nor class priors explain it ({tried}): new content, or "
        "an acquisition that is no matter of intensities."
    )


def _label(s: Shifted) -> str:
    name = "black_box" if "black_box" in s.priors else "em"
    shares = zip(s.classes, s.reference_priors, s.priors[name], strict=True)
    said = ", ".join(f"{k} {before:.2f} to {v.value:.2f} [{v.low:.2f}, {v.high:.2f}]" for k, before, v in shares)
    return f"Label shift: classes are not as common as in the reference: {said} (p = {s.p_values['label']:.2g})."


def _concept(s: Shifted) -> str:
    return (
        f"Concept shift: labels follow the images otherwise than in the reference: the classifier is right in "
        f"{s.accuracy:.1%} of the batch and {s.reference_accuracy:.1%} of the reference (p = "
        f"{s.p_values['concept']:.2g}); calibration error {s.ece:.2g} and {s.reference_ece:.2g}."
    )


_WORDS: Mapping[Kind, Callable[[Shifted], str]] = {
    Kind.NONE: _none,
    Kind.COVARIATE: _covariate,
    Kind.SEMANTIC: _semantic,
    Kind.LABEL: _label,
    Kind.CONCEPT: _concept,
}

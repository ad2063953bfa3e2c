"""May a run be read as an explanation at all? What is known of its networks, and the verdict on the run.

The rows say what became of every image. They cannot say that a classifier knows nothing, or that a generator draws
something else than such images: a picture that flips it is found all the same. So the run has a standing of its own:

    competence   balanced accuracy with its interval, area under the ROC curve and calibration error on the reference,
                 and on the images themselves where they are labelled. Not judged where the reference does not show that
                 the classifier knows its classes; without one, where the labels of the images show that it does not
                 (that they do not show it is no reason: rows may be chosen for being hard)
    generator    whether it denoises these images (`cfx.models.denoising`), and whether it denoises labelled images best
                 under the label they have (`cfx.models.order`). Not judged where it does not
    edits        whether they are about as near to the images of the reference as those are to each other
                 (`cfx.core.neighbours`). Not judged where they are much farther
    consent      how far the classifier follows the generator's classes. A classifier of something else has little, and
                 is explained without: a remark. But a network that is hardly better than chance, does not follow them
                 and reads their edits all over, as random features do, is not judged

Each is looked at once a call: the generator is evaluated at four noise levels on the first 8 images, and under each
label on 24 of the reference where names do not settle what its labels are. Who knows better says so, and is judged
`anyway`, with the reasons as remarks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.cohort import Cohort, Source, spread, subjects
from cfx.core.denoiser import Generative
from cfx.counterfactual.inputs import class_names, generator_names
from cfx.counterfactual.reading import Reading
from cfx.models.competence import Competence, competence_of
from cfx.models.denoising import Denoising, codes, denoising, denoising_errors
from cfx.models.goal import Answers
from cfx.models.judge import Judge
from cfx.models.order import both_orders, exchanged_order
from cfx.models.running import at_rest

SEEN = 8
"""Images that a generator is asked to denoise."""
_BESIDE = 64  # others that the linear estimate is made of
_LABELLED, _LEVEL = 24, 0.3  # labelled images, and the noise level at which the generator is asked about its labels
_MOST_LABELS = 8  # labels that a generator is asked about: an evaluation each
_MANY = 32  # subjects whose labels say how much a classifier knows, where there is no reference
_APART = 0.5  # share of the rows of which a part is read, from which a classifier looks at something of its own
_STRAYED = 1.5  # times as far from real images as they are from each other, from which edits are no such images
_CONSENTS = 0.5  # mean consent from which a classifier follows the generator's classes


@dataclass(frozen=True)
class Standing:
    """What is known of the networks of a run.

    Attributes:
        figures: Numbers by the key they have in `summary.json`, all finite.
        reasons: Why the run is not judged, by what is at fault: `competence`, `generator`, `classes`, `edits`,
            `consent`.
        remarks: What else a reader should know, likewise.
        clear: Whether the classifier is shown to know a good deal (`Competence.clear`); None where that is not known.
        anyway: Whether the run is judged in spite of the reasons.
    """

    figures: Mapping[str, float] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    remarks: Mapping[str, str] = field(default_factory=dict)
    clear: bool | None = None
    anyway: bool = False

    @property
    def judged(self) -> bool:
        """Whether the run may be read as an explanation."""
        return self.anyway or not self.reasons

    @property
    def why(self) -> str:
        """Why it may not; empty where it may."""
        return "" if self.judged else "; ".join(self.reasons.values())

    def told(self) -> dict[str, Any]:
        """As a result and an atlas keep it: nothing where nothing is known."""
        return {} if self == Standing() else asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Self:
        """From what `told` returned; of a result about which nothing is known, nothing."""
        return cls(**told)

    def beside(self, other: Self) -> Self:
        """Of this call and another of the same run: judged where both are."""
        figures, reasons = {**other.figures, **self.figures}, {**other.reasons, **self.reasons}
        remarks, anyway = {**other.remarks, **self.remarks}, self.anyway and other.anyway
        return replace(self, figures=figures, reasons=reasons, remarks=remarks, anyway=anyway)

    def summary(self) -> dict[str, Any]:
        """Flat values for `summary.json`."""
        known = {**self.remarks, **(self.reasons if self.judged else {})}
        words = {"why": self.why, "remarks": "; ".join(known.values())}
        return dict(self.figures) | {"judged": self.judged} | {name: text for name, text in words.items() if text}

    def doubted(self, what: str, why: str | None) -> Self:
        """With one more reason, if there is one."""
        return self if why is None else replace(self, reasons={**self.reasons, what: why})

    def remarked(self, what: str, remark: str | None) -> Self:
        """With one more remark, if there is one."""
        return self if remark is None else replace(self, remarks={**self.remarks, what: remark})


def look(
    judge: Judge,
    generator: object,
    source: Source,
    reference: Cohort | None = None,
    answers: Answers | None = None,
    *,
    x: Float[Tensor, "b c *space"] | None = None,
    rows: Sequence[int] = range(SEEN),
    anyway: bool = False,
    device: torch.device | None = None,
) -> Standing:
    """What there is to know of the networks of a call before its first image.

    Args:
        judge: The classifier.
        generator: What explains it; looked at if it is a diffusion model.
        source: Images to explain.
        reference: Labelled images beside them, or None.
        answers: What the classifier says of the reference, and its labels; None where there are none.
        x: The images at `rows` where they were read already.
        rows: Positions of images to be denoised, as far as there are so many; the first `SEEN` of them are.
        anyway: Judge in spite of what is found.
        device: Where the generator works.
    """
    found = Standing(anyway=anyway)
    if answers is not None and reference is not None:
        known = competence_of(*answers, subjects(reference))
        found = replace(found, figures=_figures(known), clear=None if known is None else known.clear)
        found = found.doubted("competence", _unknown(known))
    if not isinstance(generator, Generative):
        return found
    with at_rest(generator):
        at = torch.tensor([row for row in rows if row < len(source)][:SEEN])
        seen = source[at].x if x is None else x[:SEEN]
        denoised = _denoised(generator, seen.float(), _beside(source, reference, at), device)
        if denoised is not None:
            card = getattr(generator, "figures", {})
            found = replace(found, figures={**found.figures, "denoising_ratio": max(denoised.ratios)})
            found = found.doubted("generator", _named("generator", denoised.doubt(card if _is_card(card) else {})))
        if answers is not None and reference is not None and judge.speaks(generator, k := answers[0].shape[1]):
            return _with_labels(found, generator, class_names(judge.classifier, k), reference, answers[1], device)
    return found


def _figures(known: Competence | None, prefix: str = "") -> dict[str, float]:
    """Competence as flat figures."""
    if known is None:
        return {}
    value, low, high = known.accuracy
    figures = {"competence": value, "competence_low": low, "competence_high": high, "auc": known.auc, "ece": known.ece}
    return {f"{prefix}{name}": v for name, v in figures.items() if v == v}


def _unknown(known: Competence | None) -> str | None:
    """Why a classifier is not known to know its classes, of labelled images that should show it."""
    if known is None or known.shown:
        return None
    return f"competence: the classifier is not shown to know the classes of reference: {known}"


def _named(what: str, doubt: str | None) -> str | None:
    return None if doubt is None else f"{what}: {doubt}"


def _is_card(figures: object) -> bool:
    return isinstance(figures, Mapping) and all(isinstance(v, float | int) for v in figures.values())


def _denoised(generator: Generative, x: Tensor, beside: Tensor | None, device: torch.device | None) -> Denoising | None:
    """How the generator denoises some images; None where they show nothing."""
    low, high = x.flatten(1).aminmax(dim=1)
    x = x[low < high]
    return denoising(generator, x, beside, device) if len(x) else None


def _beside(source: Source, reference: Cohort | None, at: Tensor) -> Tensor | None:
    """Some images that should be like those at some positions: of the reference, else others that are in memory."""
    if reference is None and not isinstance(source, Cohort):
        return None
    of = source if reference is None else reference
    others = torch.ones(len(of), dtype=torch.bool)
    if reference is None:
        others[at] = False
    where = others.nonzero().flatten()
    return of[where[spread(len(where), _BESIDE)]].x.float()


def _with_labels(
    found: Standing,
    generator: Generative,
    names: tuple[str, ...],
    reference: Cohort,
    y: Int[Tensor, " n"],
    device: torch.device | None,
) -> Standing:
    """With what names, or the reference, say of the labels of a generator that has as many as the classifier."""
    own, k = generator_names(generator), int(generator.classes)  # type: ignore[attr-defined]
    if own and names:
        words = f"classes: the generator's are {own}, the classifier's {names}"
        return found.remarked("classes", None if own == names else words)
    if k > _MOST_LABELS:
        return found
    at = (y >= 0).nonzero().flatten()
    at = at[spread(len(at), _LABELLED)]
    z = codes(generator, reference.x[at].float().to(device or reference.x.device))
    errors = [denoising_errors(generator, z, torch.full((len(at),), c), level=_LEVEL) for c in range(k)]
    order = exchanged_order(-torch.stack(errors, 1).cpu(), y[at])
    if order is None:
        return found
    said = both_orders(order, reference.classes).replace("its columns", "those of the generator")
    return found.doubted("classes", f"classes: the generator knows them in another order: {said}")


def completed(
    found: Standing,
    probs: Float[Tensor, "n k"],
    consent: Float[Tensor, " n"] | None = None,
    y: Int[Tensor, " n"] | None = None,
    groups: Int[Tensor, " n"] | None = None,
    *,
    reading: Sequence[str] = (),
    strayed: Float[Tensor, " n"] | None = None,
) -> Standing:
    """With what all rows of the call say.

    Args:
        found: What was known before.
        probs: Class probabilities of the images.
        consent: Consent of every row, NaN where the method did not ask.
        y: Classes of the images; None where their labels are not those of the classifier.
        groups: Subject of every image.
        reading: How the edit of every row is read, "" where it has none.
        strayed: How many times as far from real images every edit is as they are from each other, or the image before
            was; None where there are no real images to compare with.
    """
    known = None
    if y is not None and len(y) and int(y.max()) < probs.shape[1]:
        known = competence_of(probs.clamp_min(1e-30).log(), y, groups)
    found = replace(found, figures={**found.figures, **_figures(known, "data_")})
    if "competence" not in found.figures and known is not None:
        found = replace(found, clear=known.clear if known.subjects >= _MANY else None)
        if known.poor or known.exchanged:
            found = found.doubted("competence", f"competence: the classifier does not know the classes of x: {known}")
    if strayed is not None and len(strayed) and (far := float(strayed.median())) > _STRAYED:
        words = f"they are {far:.2g} times as far from the images of reference as those are from each other"
        found = found.doubted("edits", f"edits: {words}")
    asked = torch.zeros(0) if consent is None else consent[consent.isfinite()]
    return found if not len(asked) else _with_consent(found, float(asked.mean()), reading)


def _with_consent(found: Standing, consent: float, reading: Sequence[str]) -> Standing:
    """With the mean consent of the rows.

    A weak classifier of one place follows no classes either; but what it reads is a part of the edits.
    """
    found = replace(found, figures={**found.figures, "consent": consent})
    if consent >= _CONSENTS:
        return found
    words = f"consent: the classifier does not follow the generator's classes ({consent:.2f} of 1)"
    read = [word for word in reading if word]
    apart = read.count(Reading.CARRIED) >= _APART * len(read) > 0
    if found.clear is not False or found.reasons or apart:
        return found.remarked("consent", words)
    return found.doubted("consent", f"{words}, and is not shown to be clearly better than chance")

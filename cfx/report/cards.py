"""A result as the report shows it: one `Line` of text and a few `Picture`s a row, failures first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.metrics.rows import CHANGED
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display import images
from cfx.display.images import Pixels
from cfx.report.numbers import NONE, number, percent, probability
from cfx.report.reading import Parts, parts

Mask = NDArray[np.bool_]
Drawn = tuple[tuple[str, str], ...]
HATCHES: Final = 24
"""Lines of a hatching that an image is wide, about."""
ORDER: Final = (Verdict.REFUSED, Verdict.UNSTABLE, Verdict.BUDGET, Verdict.FLIPPED, Verdict.ALREADY)
"""Order of a page: what went wrong comes first."""


@dataclass(frozen=True)
class Line:
    """One row in words; numbers are formatted, `-` where there is none.

    `doubt` says that the row is valid to the classifier but not to the oracle, `mistaken` that the classifier gives the
    input to another class than its `label`, `out` that the edited image is out of distribution to the gate, `changed`
    how much of the image changes visibly.
    """

    id: str
    row: int
    verdict: str
    doubt: bool
    mistaken: bool
    label: str
    source: str
    target: str
    before: str
    after: str
    oracle_before: str
    oracle_after: str
    strength: str
    margin: str
    nfe: int
    nfe_unet_backward: int
    consent: str
    gate: str
    out: bool
    changed: str
    parts: Parts


@dataclass(frozen=True)
class Picture:
    """A picture with its caption, its text alternative and the lines `(kind, SVG path)` drawn over it."""

    caption: str
    alt: str
    uri: str
    width: int
    height: int
    outlines: Drawn = ()


def check_cohort(result: Counterfactuals, cohort: Cohort | None) -> None:
    """Refuse a cohort whose rows cannot be those of the result.

    Raises:
        InputError: the cohort has other image shapes than the result.
    """
    if cohort is not None and cohort.x.shape != result.x.shape:
        raise InputError(
            f"cohort: expected images {tuple(result.x.shape)}, row for row those of the result, "
            f"got {tuple(cohort.x.shape)}"
        )


def failures_first(result: Counterfactuals) -> list[int]:
    """Positions of all rows: refused, unstable, budget, flipped against the oracle, flipped, already."""
    rank = {int(verdict): i for i, verdict in enumerate(ORDER)}
    doubt, codes, rows = doubts(result).tolist(), result.verdict.tolist(), result.row.tolist()
    return sorted(range(len(result)), key=lambda i: (rank[codes[i]], not doubt[i], rows[i]))


def doubts(result: Counterfactuals) -> Tensor:
    """Valid rows `(n,)` whose final image the oracle does not give to the target; none without an oracle."""
    if result.oracle_probs_after is None:
        return torch.zeros(len(result), dtype=torch.bool)
    valid = (result.verdict == Verdict.FLIPPED) | (result.verdict == Verdict.ALREADY)
    return (valid & (result.oracle_probs_after.argmax(1) != result.target)).cpu()


def class_names(cohort: Cohort | None) -> dict[int, str]:
    """Names of the classes by number, as far as they are known."""
    return {} if cohort is None else {i: str(name) for i, name in enumerate(cohort.classes)}


def lines(result: Counterfactuals, cohort: Cohort | None) -> list[Line]:
    """Every row in words, in the order of the result."""
    ids = cohort.ids if cohort is not None else tuple(str(r) for r in result.row.tolist())
    names, doubt, labels = class_names(cohort), doubts(result).tolist(), _labels(result, cohort)
    changed, verdicts, read = changed_share(result).tolist(), result.verdicts, parts(result)
    out = result.gated_out.tolist()

    def p(probs: Tensor | None, i: int) -> str:
        inside = probs is not None and int(result.target[i]) < probs.shape[1]
        return probability(float(probs[i, int(result.target[i])])) if probs is not None and inside else NONE

    def name(label: int | None) -> str:
        return NONE if label is None else names.get(label, str(label))

    def line(i: int) -> Line:
        source = int(result.probs_before[i].argmax()) if result.probs_before[i].isfinite().all() else None
        return Line(
            id=str(ids[i]),
            row=int(result.row[i]),
            verdict=verdicts[i],
            doubt=doubt[i],
            mistaken=None not in (source, labels[i]) and source != labels[i],
            label=name(labels[i]),
            source=name(source),
            target=name(int(result.target[i])),
            before=p(result.probs_before, i),
            after=p(result.probs_after, i),
            oracle_before=p(result.oracle_probs_before, i),
            oracle_after=p(result.oracle_probs_after, i),
            strength=number(float(result.strength[i])),
            margin=f"{number(float(result.margin_after[i]))} of {number(float(result.margin[i]))}",
            nfe=int(result.nfe_unet_forward[i]),
            nfe_unet_backward=int(result.nfe_unet_backward[i]),
            consent=NONE if result.consent is None else number(float(result.consent[i]), 2),
            gate=_gate(result, i),
            out=out[i],
            changed=percent(changed[i]),
            parts=read[i],
        )

    return [line(i) for i in range(len(result))]


def _gate(result: Counterfactuals, i: int) -> str:
    """The gate's p-values of one row, before and after; of an image that was not edited, its only one."""
    if result.gate_p is None or result.gate_p_before is None:
        return NONE
    before, after = number(float(result.gate_p_before[i]), 2), number(float(result.gate_p[i]), 2)
    return before if after == NONE else f"{before} → {after}"


def _labels(result: Counterfactuals, cohort: Cohort | None) -> list[int | None]:
    """The class every row is labelled with, None where that is no class of the classifier."""
    if cohort is None or cohort.y is None or cohort.y.ndim != 1:
        return [None] * len(result)
    return [y if 0 <= y < result.probs_before.shape[1] else None for y in cohort.y.long().tolist()]


def changed_share(result: Counterfactuals) -> Tensor:
    """Share of every image that changes visibly `(n,)`, as the metric of that name; NaN of images left unread."""
    visible = ((result.x_cf - result.x).abs().amax(1) > CHANGED).flatten(1)
    return visible.double().mean(1).cpu()


def limit_of(result: Counterfactuals, cohort: Cohort | None) -> float:
    """The one symmetric colour limit of all changes that are shown."""
    changes = [images.array(result.x_cf - result.x)]
    if cohort is not None and cohort.x_true is not None:
        changes.append(images.array(cohort.x_true) - images.array(result.x))
    return images.symmetric_limit(changes)


def slices(result: Counterfactuals, i: int) -> tuple[int, ...]:
    """Where a volume is cut: the centre of mass of its edit, of the part that is read if any is; nowhere in 2D."""
    if result.x.ndim == 4:
        return ()
    change = images.array(result.x_cf[i] - result.x[i]).mean(0)
    read = None if result.read is None else images.array(result.read[i, 0])
    return images.centre(change if read is None or not (change * read).any() else change * read)


def axial(result: Counterfactuals, i: int, most: int) -> list[int]:
    """Places of at most so many axial slices of a volume, evenly from the first to the last that show anything."""
    x = images.array(result.x[i])
    flat = np.ptp(x, axis=(0, 1, 2)) <= CHANGED
    first, last = (0, len(flat) - 1) if flat.all() else np.flatnonzero(~flat)[[0, -1]].tolist()
    return [int(k) for k in np.linspace(first, last, min(last - first + 1, most)).round()]


def shown(result: Counterfactuals, cohort: Cohort | None, i: int) -> tuple[dict[str, Pixels], list[str]]:
    """What one row shows by caption, as arrays `(c, *space)`, and which captions are changes.

    Input, counterfactual and change, and the truth where it is known.
    """
    x, x_cf = images.array(result.x[i]), images.array(result.x_cf[i])
    found = {"Input": x, "Counterfactual": x_cf, "Change": x_cf - x}
    if cohort is not None and cohort.x_true is not None:
        truth = images.array(cohort.x_true[i])
        found |= {"True counterfactual": truth, "True change": truth - x}
    return found, [caption for caption in found if caption.endswith("hange")]


def layers(result: Counterfactuals, cohort: Cohort | None, i: int, limit: float) -> dict[str, Pixels]:
    """Colours of what one row shows, by caption; changes on the scale [-limit, limit]."""
    at = slices(result, i)
    found, changes = shown(result, cohort, i)
    return {
        caption: images.difference(image, at, limit) if caption in changes else images.picture(image, at)
        for caption, image in found.items()
    }


def outlines(result: Counterfactuals, cohort: Cohort | None, i: int) -> dict[str, Mask]:
    """Flat boolean masks drawn over the input of one row: `edit`, and `lesion` where it is known."""
    at = slices(result, i)
    masks = {"edit": result.edited[i, 0]}
    if cohort is not None and cohort.lesion is not None:
        masks["lesion"] = cohort.lesion[i, 0]
    return {kind: np.nan_to_num(images.flat(images.array(mask), at)) > 0.5 for kind, mask in masks.items()}


def divided(result: Counterfactuals, i: int) -> dict[str, Pixels]:
    """Masks `(*space)` of the parts of a change, 0 or 1: `read`, and `rest`, what else of it the eye can tell.

    Nothing where they are not known.
    """
    if result.read is None or not bool(result.read[i].any()):
        return {}
    read = images.array(result.read[i, 0])
    visible = (result.x_cf[i] - result.x[i]).abs().amax(0) > CHANGED
    return {"read": read, "rest": images.array(visible) * (1 - read)}


def parted(result: Counterfactuals, i: int) -> dict[str, Mask]:
    """Flat boolean masks drawn over the change of one row: `read` and `rest`; none where they are not known."""
    at = slices(result, i)
    return {kind: np.nan_to_num(images.flat(mask, at)) > 0.5 for kind, mask in divided(result, i).items()}


def gap(result: Counterfactuals) -> int:
    """Pixels between the lines of a hatching, for images of this size."""
    return max(2, round(min(result.x.shape[2:]) / HATCHES))


def _drawn(masks: Mapping[str, Mask], spacing: int) -> Drawn:
    """The lines of masks that hold anything: the rest of a change is hatched, all else outlined.

    Those over a change have a light line under them, to be seen where its colours are dark.
    """
    drawn: Drawn = ()
    for kind, mask in masks.items():
        path = images.hatch(mask, spacing) if kind == "rest" else images.outline(mask)
        under = (("under", path),) if kind in ("read", "rest") else ()
        drawn += (*under, (kind, path)) if mask.any() else ()
    return drawn


def pictures(
    result: Counterfactuals, cohort: Cohort | None, i: int, limit: float, line: Line, judged: bool = True
) -> list[Picture]:
    """The pictures of one row; over its input the outlines, over its change what is read and what is not.

    Of a run that is not `judged` they are called what the generator did, and nothing is said to be read.
    """
    parts = parted(result, i) if judged else {}
    drawn = {"Input": _drawn(outlines(result, cohort, i), 1), "Change": _drawn(parts, gap(result))}
    names = _captions(result, i, judged)
    return [
        _picture(caption, names.get(caption, caption), colours, line, drawn.get(caption, ()))
        for caption, colours in layers(result, cohort, i, limit).items()
    ]


def _picture(caption: str, name: str, colours: Pixels, line: Line, drawn: Drawn = ()) -> Picture:
    """A picture with its lines, under its name here; the caption says what it is of."""
    parts = "; what the classifier reads of it is outlined, the rest hatched" if caption == "Change" and drawn else ""
    said = {
        "Input": f"Input of {line.id}, classified {line.source}{', edited region outlined' if drawn else ''}",
        "Counterfactual": f"{name} of {line.id} towards {line.target}, verdict {line.verdict}",
        "Change": f"Difference to the input of {line.id}{parts}",
        "True counterfactual": f"True counterfactual of {line.id}",
        "True change": f"True counterfactual minus input of {line.id}",
    }
    height, width = colours.shape[:2]
    return Picture(name, said[caption], images.data_uri(colours), width, height, drawn)


def _captions(result: Counterfactuals, i: int, judged: bool) -> dict[str, str]:
    """What pictures of one row are called where they are not what their name says."""
    if int(result.verdict[i]) == Verdict.BUDGET:
        return {"Counterfactual": "Closest attempt" if result.edited[i].any() else "Input, unchanged"}
    return {} if judged else {"Counterfactual": "Generator's edit", "Change": "What the generator changed"}


def remark(result: Counterfactuals, i: int) -> str:
    """What a reader has to know of the pictures of one row before looking at them, where parts are known."""
    if result.read is None:
        return ""
    missed = int(result.verdict[i]) == Verdict.BUDGET
    if missed and not result.edited[i].any():
        return "Nothing that was tried moved the classifier towards the target: the input is shown, unchanged."
    whole = result.read_share is None or not float(result.read_share[i]) < 1
    if whole or bool((result.edited[i] & ~result.read[i]).any()):
        return ""
    of = "closest attempt, which is no counterfactual" if missed else "change"
    return f"Only what the classifier reads of the {of} is shown; the rest was taken back. Shares are of the whole."


def stack(
    result: Counterfactuals, cohort: Cohort | None, i: int, limit: float, line: Line, places: Sequence[int],
    judged: bool = True,
) -> list[Picture]:  # fmt: skip
    """The pictures of one volume again, each its axial slices at these places from the first to the last."""
    found, changes = shown(result, cohort, i)
    masks = divided(result, i) if judged else {}
    parts = {kind: images.stacked(mask[None], places)[0] > 0.5 for kind, mask in masks.items()}
    names, pictures = _captions(result, i, judged), []
    for caption in ("Input", "Counterfactual", "Change"):
        flat = images.stacked(found[caption], places)
        colours = images.difference(flat, (), limit) if caption in changes else images.picture(flat, ())
        drawn = _drawn(parts, gap(result)) if caption == "Change" else ()
        pictures.append(_picture(caption, names.get(caption, caption), colours, line, drawn))
    return pictures

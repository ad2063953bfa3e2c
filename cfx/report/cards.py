"""A result as the report shows it: one `Line` of text and a few `Picture`s a row, failures first."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.metrics.rows import CHANGED
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display import images
from cfx.report.numbers import NONE, number, percent, probability

ORDER: Final = (Verdict.REFUSED, Verdict.UNSTABLE, Verdict.BUDGET, Verdict.FLIPPED, Verdict.ALREADY)
"""Order of a page: what went wrong comes first."""


@dataclass(frozen=True)
class Line:
    """One row in words; numbers are formatted, `-` where there is none.

    `doubt` says that the row is valid to the classifier but not to the oracle, `mistaken` that the classifier gives the
    input to another class than its `label`, `changed` how much of the image changes visibly.
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
    changed: str


@dataclass(frozen=True)
class Picture:
    """A picture with its caption, its text alternative and the outlines `(kind, SVG path)` drawn over it."""

    caption: str
    alt: str
    uri: str
    width: int
    height: int
    outlines: tuple[tuple[str, str], ...] = ()


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
    changed, verdicts = changed_share(result).tolist(), result.verdicts

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
            changed=percent(changed[i]),
        )

    return [line(i) for i in range(len(result))]


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
    """Where a volume is cut: the centre of mass of its edit; nowhere in 2D."""
    if result.x.ndim == 4:
        return ()
    return images.centre(images.array(result.x_cf[i] - result.x[i]).mean(0))


def axial(result: Counterfactuals, i: int, most: int) -> list[int]:
    """Places of at most so many axial slices of a volume, evenly from the first to the last that show anything."""
    x = images.array(result.x[i])
    flat = np.ptp(x, axis=(0, 1, 2)) <= CHANGED
    first, last = (0, len(flat) - 1) if flat.all() else np.flatnonzero(~flat)[[0, -1]].tolist()
    return [int(k) for k in np.linspace(first, last, min(last - first + 1, most)).round()]


def shown(result: Counterfactuals, cohort: Cohort | None, i: int) -> tuple[dict[str, images.Pixels], list[str]]:
    """What one row shows by caption, as arrays `(c, *space)`, and which captions are changes.

    Input, counterfactual and change, and the truth where it is known.
    """
    x, x_cf = images.array(result.x[i]), images.array(result.x_cf[i])
    found = {"Input": x, "Counterfactual": x_cf, "Change": x_cf - x}
    if cohort is not None and cohort.x_true is not None:
        truth = images.array(cohort.x_true[i])
        found |= {"True counterfactual": truth, "True change": truth - x}
    return found, [caption for caption in found if caption.endswith("hange")]


def layers(result: Counterfactuals, cohort: Cohort | None, i: int, limit: float) -> dict[str, images.Pixels]:
    """Colours of what one row shows, by caption; changes on the scale [-limit, limit]."""
    at = slices(result, i)
    found, changes = shown(result, cohort, i)
    return {
        caption: images.difference(image, at, limit) if caption in changes else images.picture(image, at)
        for caption, image in found.items()
    }


def outlines(result: Counterfactuals, cohort: Cohort | None, i: int) -> dict[str, np.ndarray]:
    """Flat boolean masks drawn over the input of one row: `edit`, and `lesion` where it is known."""
    at = slices(result, i)
    masks = {"edit": result.edited[i, 0]}
    if cohort is not None and cohort.lesion is not None:
        masks["lesion"] = cohort.lesion[i, 0]
    return {kind: np.nan_to_num(images.flat(images.array(mask), at)) > 0.5 for kind, mask in masks.items()}


def pictures(result: Counterfactuals, cohort: Cohort | None, i: int, limit: float, line: Line) -> list[Picture]:
    """The pictures of one row, the outlines over its input."""
    drawn = tuple((kind, images.outline(mask)) for kind, mask in outlines(result, cohort, i).items() if mask.any())
    return [
        _picture(caption, colours, line, drawn if caption == "Input" else ())
        for caption, colours in layers(result, cohort, i, limit).items()
    ]


def _picture(caption: str, colours: images.Pixels, line: Line, drawn: tuple[tuple[str, str], ...] = ()) -> Picture:
    said = {
        "Input": f"Input of {line.id}, classified {line.source}{', edited region outlined' if drawn else ''}",
        "Counterfactual": f"Counterfactual of {line.id} towards {line.target}, verdict {line.verdict}",
        "Change": f"Counterfactual minus input of {line.id}",
        "True counterfactual": f"True counterfactual of {line.id}",
        "True change": f"True counterfactual minus input of {line.id}",
    }
    height, width = colours.shape[:2]
    return Picture(caption, said[caption], images.data_uri(colours), width, height, drawn)


def stack(
    result: Counterfactuals, cohort: Cohort | None, i: int, limit: float, line: Line, places: Sequence[int]
) -> list[Picture]:
    """The pictures of one volume again, each its axial slices at these places from the first to the last."""
    found, changes = shown(result, cohort, i)
    pictures = {}
    for caption in ("Input", "Counterfactual", "Change"):
        flat = images.stacked(found[caption], places)
        pictures[caption] = images.difference(flat, (), limit) if caption in changes else images.picture(flat, ())
    return [_picture(caption, colours, line) for caption, colours in pictures.items()]

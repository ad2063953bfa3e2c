"""A result as the report shows it: one `Line` of text and a few `Picture`s a row, failures first."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display import images

ORDER: Final = (Verdict.REFUSED, Verdict.UNSTABLE, Verdict.BUDGET, Verdict.FLIPPED, Verdict.ALREADY)
"""Order of a page: what went wrong comes first."""


@dataclass(frozen=True)
class Line:
    """One row in words; numbers are formatted, `-` where there is none.

    `doubt` says that the row is valid to the classifier but not to the oracle.
    """

    id: str
    row: int
    verdict: str
    doubt: bool
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


def number(value: float | None, digits: int = 3) -> str:
    """A number for people: a few significant digits, `-` for None and what is not finite."""
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}g}" if abs(value) < 1e4 else f"{value:.0f}"


def probability(value: float) -> str:
    """A probability with two decimals that never rounds to a certainty it does not have."""
    if not math.isfinite(value):
        return "-"
    if 0 < value < 0.005 or 0.995 < value < 1:
        return "<0.01" if value < 0.5 else ">0.99"
    return f"{value:.2f}"


def failures_first(result: Counterfactuals) -> list[int]:
    """Positions of all rows: refused, unstable, budget, flipped against the oracle, flipped, already."""
    rank = {int(verdict): i for i, verdict in enumerate(ORDER)}
    doubt = doubts(result).tolist()
    codes = result.verdict.tolist()
    return sorted(range(len(result)), key=lambda i: (rank[codes[i]], not doubt[i], int(result.row[i])))


def doubts(result: Counterfactuals) -> Tensor:
    """Valid rows `(n,)` whose final image the oracle does not give to the target; none without an oracle."""
    if result.oracle_probs_after is None:
        return torch.zeros(len(result), dtype=torch.bool)
    valid = (result.verdict == Verdict.FLIPPED) | (result.verdict == Verdict.ALREADY)
    return (valid & (result.oracle_probs_after.argmax(1) != result.target)).cpu()


def lines(result: Counterfactuals, cohort: Cohort | None) -> list[Line]:
    """Every row in words, in the order of the result."""
    ids = cohort.ids if cohort is not None else tuple(str(r) for r in result.row.tolist())
    names = dict(enumerate(cohort.classes)) if cohort is not None else {}
    doubt = doubts(result).tolist()

    def p(probs: Tensor | None, i: int) -> str:
        inside = probs is not None and int(result.target[i]) < probs.shape[1]
        return probability(float(probs[i, int(result.target[i])])) if probs is not None and inside else "-"

    def name(label: int) -> str:
        return str(names.get(label, label))

    return [
        Line(
            id=str(ids[i]),
            row=int(result.row[i]),
            verdict=result.verdicts[i],
            doubt=doubt[i],
            source=name(int(result.probs_before[i].argmax())) if result.probs_before[i].isfinite().all() else "-",
            target=name(int(result.target[i])),
            before=p(result.probs_before, i),
            after=p(result.probs_after, i),
            oracle_before=p(result.oracle_probs_before, i),
            oracle_after=p(result.oracle_probs_after, i),
            strength=number(float(result.strength[i])),
            margin=f"{number(float(result.margin_after[i]))} of {number(float(result.margin[i]))}",
            nfe=int(result.nfe_unet_forward[i]),
            nfe_unet_backward=int(result.nfe_unet_backward[i]),
        )
        for i in range(len(result))
    ]


def limit_of(result: Counterfactuals, cohort: Cohort | None) -> float:
    """The one symmetric colour limit of all differences that are shown."""
    changes = [images.array(result.x_cf - result.x)]
    if cohort is not None and cohort.x_true is not None:
        changes.append(images.array(cohort.x_true) - images.array(result.x))
    return images.symmetric_limit(changes)


def slices(result: Counterfactuals, i: int) -> tuple[int, ...]:
    """Where a volume is cut: the centre of mass of its edit."""
    return images.centre(images.array(result.x_cf[i] - result.x[i]).mean(0))


def layers(result: Counterfactuals, cohort: Cohort | None, i: int, limit: float) -> dict[str, images.Pixels]:
    """Colours of what one row shows, by caption: input, counterfactual, difference, and the truth where it is known."""
    at = slices(result, i)
    x, x_cf = images.array(result.x[i]), images.array(result.x_cf[i])
    found = {
        "Input": images.picture(x, at),
        "Counterfactual": images.picture(x_cf, at),
        "Difference": images.difference(x_cf - x, at, limit),
    }
    if cohort is not None and cohort.x_true is not None:
        truth = images.array(cohort.x_true[i])
        found["True counterfactual"] = images.picture(truth, at)
        found["True difference"] = images.difference(truth - x, at, limit)
    return found


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
    said = {
        "Input": f"Input of {line.id}, classified {line.source}, edited region outlined",
        "Counterfactual": f"Counterfactual of {line.id} towards {line.target}, verdict {line.verdict}",
        "Difference": f"Counterfactual minus input of {line.id}",
        "True counterfactual": f"True counterfactual of {line.id}",
        "True difference": f"True counterfactual minus input of {line.id}",
    }
    return [
        Picture(
            caption=caption,
            alt=said[caption],
            uri=images.data_uri(colours),
            width=colours.shape[1],
            height=colours.shape[0],
            outlines=drawn if caption == "Input" else (),
        )
        for caption, colours in layers(result, cohort, i, limit).items()
    ]

"""How sure an outline is, in words: of one image, and of many."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cfx.core.statistics import wilson_interval
from cfx.report.numbers import count, number, percent, probability, span
from cfx.segmentation import Drawn, Segmentations
from cfx.segmentation.summary import named

SURER, UNSURER = 0.7, 1.3
"""Diversity of the masks, as a share of the readers', below which they are called surer and above which less sure."""
_SHARES = {0.5: "half", 0.8: "8 of 10", 0.9: "9 of 10", 0.95: "19 of 20", 0.99: "99 of 100"}


def share_of(level: float) -> str:
    """A level as people say it."""
    return _SHARES.get(level, f"{100 * level:g} %")


def noun_of(labels: Sequence[str]) -> str:
    """What a mask holds."""
    if len(labels) > 2:
        return "anything"
    return f"{'an' if labels[1][:1].lower() in 'aeiou' else 'a'} {labels[1]}"


def size_word(unit: str) -> str:
    """Area or volume."""
    return "area" if unit in ("mm^2", "pixels") else "volume"


def said(unit: str) -> str:
    """A unit as it is written."""
    return unit.replace("^2", "\N{SUPERSCRIPT TWO}").replace("^3", "\N{SUPERSCRIPT THREE}")


def of_image(values: Mapping[str, float], samples: int, labels: Sequence[str], unit: str, level: float) -> list[str]:
    """How sure the outline of one image is: whether there is one, how large it is, how alike outlines are.

    Args:
        values: The figures of the image, as `cfx.segmentation.summary.figures` has them.
        samples: Masks that were drawn.
        labels: Names of the labels, the background first.
        unit: Unit of the volume.
        level: Share of the masks that the interval holds.
    """
    if math.isnan(values["empty_share"]):
        return ["The network's answer was not finite; nothing was drawn."]
    held, noun = round(samples * (1 - values["empty_share"])), noun_of(labels)
    if held == 0:
        return [f"None of {samples} drawn outlines holds {noun}."]
    hold = f"{held} hold" if held > 1 else "1 holds"
    first = f"All {samples} drawn outlines hold" if held == samples else f"Of {samples} drawn outlines {hold}"
    sizes = "; ".join(_size(values, name, label, unit, level) for name, label in _each(labels))
    found = [f"{first} {noun}; {sizes}."]
    if not math.isnan(values["agreement"]):
        found.append(f"Two of them share {percent(values['agreement'])} of what either covers.")
    return found


def _each(labels: Sequence[str]) -> list[tuple[str, str]]:
    """The end of the names of figures of every foreground class, and its own name where there are several."""
    return list(zip(named("", labels), [""] if len(labels) == 2 else labels[1:], strict=True))


def _size(values: Mapping[str, float], end: str, label: str, unit: str, level: float) -> str:
    """How large one class is, with its interval."""
    of = f"the {size_word(unit)} of {label}" if label else f"its {size_word(unit)}"
    mean, low, high = (values[f"{name}{end}"] for name in ("volume", "volume_from", "volume_to"))
    if math.isnan(mean):
        return f"none of them holds {label}"
    return f"{of} is {number(mean)} {said(unit)} on average, {share_of(level)} between {number(low)} and {number(high)}"


def of_all(drawn: Segmentations, rows: Mapping[str, Tensor], summary: Mapping[str, Any]) -> list[str]:
    """What came out, in words: how alike outlines are first, then whether there is anything, sizes and readers.

    Args:
        drawn: All rows; their masks are not looked at.
        rows: The figures of every image.
        summary: Their means with intervals, unit and level, as in `summary.json`.
    """
    if len(drawn) == 1:
        values = {name: float(v[0]) for name, v in rows.items()}
        found = of_image(values, drawn.samples, drawn.labels, summary["volume_unit"], summary["level"])
    else:
        found = [*_alike(drawn, summary), _whether(drawn, rows["empty_share"]), *_sizes(drawn, summary)]
    return found + _readers(summary) + _odd(drawn)


def _whether(drawn: Segmentations, empty: Tensor) -> str:
    """In how many images there is anything."""
    known = empty[~empty.isnan()]
    n, noun = len(known), noun_of(drawn.labels)
    if not n:
        return f"No outline could be drawn in any of {count(len(drawn), 'image')}."
    every, none = int((known == 0).sum()), int((known == 1).sum())
    torn = n - every - none
    low, high = wilson_interval(torn / n, n)
    head = f"In {every} of {count(n, 'image')} all {drawn.samples} drawn outlines hold {noun}, in {none} none does"
    if not torn:
        return f"{head}."
    return (
        f"{head}; in {torn} ({percent(torn / n)}, 95 % interval {span(low, high)}) they disagree whether there is one."
    )


def _alike(drawn: Segmentations, summary: Mapping[str, Any]) -> list[str]:
    """How alike the outlines of an image are."""
    if "agreement" not in summary:
        return []
    share, low, high = (summary[f"agreement{end}"] for end in ("", "_low", "_high"))
    return [
        f"Two drawn outlines of an image share {percent(share)} of what either covers (95 % interval "
        f"{span(low, high)}), where both hold anything."
    ]


def _sizes(drawn: Segmentations, summary: Mapping[str, Any]) -> list[str]:
    """How large what was drawn is, and how wide its interval."""
    found, unit, level = [], summary["volume_unit"], summary["level"]
    for end, label in _each(drawn.labels):
        if f"volume{end}" in summary:
            mean, width = (number(summary[f"{name}{end}"]) for name in ("volume", "volume_width"))
            of = f" of {label}" if label else ""
            found.append(
                f"The {size_word(unit)}{of} is {mean} {said(unit)} on average; {share_of(level)} of the outlines of an "
                f"image lie within {width} {said(unit)} of each other."
            )
    return found


def _readers(summary: Mapping[str, Any]) -> list[str]:
    """How the masks compare with those of readers."""
    if "reader_diversity" not in summary or "diversity" not in summary:
        return []
    ours, theirs = summary["diversity"], summary["reader_diversity"]
    ratio = ours / theirs if theirs else math.inf
    word = "are surer than" if ratio < SURER else "are less sure than" if ratio > UNSURER else "differ about as much as"
    found, low, high = (probability_like(summary[f"ged_debiased{end}"]) for end in ("", "_low", "_high"))
    return [
        f"Drawn outlines {word} the readers: two of an image are {probability(ours)} apart (1 - IoU), two readers "
        f"{probability(theirs)}. Their energy distance to the readers is {found} (95 % interval {low} to {high}); 0 is "
        "drawing exactly as readers do."
    ]


def probability_like(value: float) -> str:
    """A distance near 0, which may be below it."""
    return f"{value:.2f}".replace("-0.00", "0.00")


def _odd(drawn: Segmentations) -> list[str]:
    """Images whose masks say little or nothing."""
    found = []
    equal, refused = (int((drawn.verdict == int(v)).sum()) for v in (Drawn.COLLAPSED, Drawn.REFUSED))
    if equal and len(drawn) > 1:
        found.append(f"In {count(equal, 'image')} all outlines are equal.")
    if refused and len(drawn) > 1:
        found.append(f"In {count(refused, 'image')} the network's answer was not finite; figures leave them out.")
    return found


def least_sure_first(rows: Mapping[str, Tensor]) -> list[int]:
    """Positions by diversity, highest first; images of which nothing is known come last."""
    order: list[int] = torch.nan_to_num(rows["diversity"], nan=-1.0).argsort(descending=True, stable=True).tolist()
    return order

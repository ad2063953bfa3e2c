"""The page of an attribution run: what the maps are and promise, and maps over their images.

Red speaks for the class that is asked about, blue against it, and where the map is zero the image itself is seen. What
it holds is bounded whatever the number of rows: pictures of the first `CARDS` of each verdict, the table by `LINES`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from cfx.atlas import Atlas
from cfx.attribution import TOLERANCE, Attributions, Completeness
from cfx.core.cohort import Cohort
from cfx.display.images import array, centre, colour_bar, data_uri, overlaid, picture
from cfx.display.templates import render

CARDS = 24
"""Most images that are shown."""
LINES = 500
"""Most rows of the table."""
_BADGE = {"complete": "flipped", "incomplete": "budget", "undefined": "already", "refused": "refused"}
_LIMITS = (
    "A map divides up one number, the output for one class. It says where the classifier looks, not what would have to "
    "be different there; what a change would be, `cfx explain` shows.",
    "Complete means that the map adds up, not that it is right: what is left out in one place may be added in another. "
    "`cfx bench attribution` compares methods where the truth is known.",
    "Each map has its own colour scale; the strength of colour in two maps cannot be compared.",
)


@dataclass(frozen=True)
class Card:
    """One image, its map, and what is known of it."""

    name: str
    verdict: str
    badge: str
    facts: Sequence[tuple[str, str]]
    image: str
    map: str


def attribution_page(atlas: Atlas[Attributions], title: str, warned: Sequence[str] = ()) -> str:
    """The page as HTML, self-contained.

    Args:
        atlas: All rows.
        title: Name of the run.
        warned: What the run warned of.
    """
    found = atlas.read(images=False)
    cohort = atlas.read_cohort(images=False)
    return render(
        "cfx.report", "attribution.html.j2", title=title, warned=warned, limits=_LIMITS, scale=colour_bar(),
        subtitle=f"{len(found)} images, {found.method}, baseline {found.baseline}, {found.output} divided up",
        sentences=sentences(found), tiles=_tiles(found), cards=cards(atlas, found),
        rows=[_line(found, cohort, i) for i in range(min(LINES, len(found)))], hidden=max(0, len(found) - LINES),
        made=_made(atlas),
    )  # fmt: skip


def sentences(found: Attributions) -> list[str]:
    """What came out, in words: how many maps keep their promise, and what the others lack."""
    count = {c: int((found.verdict == int(c)).sum()) for c in Completeness}
    said = [f"{k} of {len(found)} maps: {c.name.lower()}. {c.meaning}" for c, k in count.items() if k]
    why = [f"Said of them: {text}." for text in sorted(set(found.remark) - {""})]
    return said + why


def cards(atlas: Atlas[Attributions], found: Attributions) -> list[Card]:
    """Cards of the first rows, those whose map does not keep its promise before the others."""
    order = (found.verdict == int(Completeness.COMPLETE)).long().argsort(stable=True)[:CARDS]
    rows = sorted(found.row[order].tolist())
    some, cohort = atlas.read(rows), atlas.read_cohort(rows)
    return [_card(some, cohort, k) for k in range(len(rows))]


def _card(found: Attributions, cohort: Cohort, k: int) -> Card:
    image, values = array(cohort.x[k]), array(found.map[k].sum(0))
    place, word = centre(values), found.verdicts[k]
    error = float(found.completeness_error[k])
    facts = [("class", _class(cohort, int(found.target[k]))), ("output", f"{float(found.value[k]):.3g}")]
    facts += [("error", f"{error:.1e}")] if error == error else []
    over = data_uri(overlaid(image, values, place))
    return Card(cohort.ids[k], word, _BADGE[word], facts, data_uri(picture(image, place)), over)


def _class(cohort: Cohort, k: int) -> str:
    return cohort.classes[k] if k < len(cohort.classes) else str(k)


def _tiles(found: Attributions) -> list[tuple[str, str, str]]:
    error = found.completeness_error[~found.completeness_error.isnan()]
    worst = f"{float(error.max()):.1e}" if len(error) else "none promised"
    nfe, backward = (float(v.double().mean()) for v in (found.nfe_classifier, found.nfe_classifier_backward))
    done = int((found.verdict == int(Completeness.COMPLETE)).sum())
    return [
        (f"{done} of {len(found)}", "complete", f"to a relative {TOLERANCE:.0e}"),
        (worst, "largest completeness error", "relative to the change of the output"),
        (f"{nfe:.3g}", "evaluations an image", f"{backward:.3g} of them with a gradient"),
        (f"{float(found.seconds.double().mean()):.2g} s", "an image", "wall clock"),
    ]


def _line(found: Attributions, cohort: Cohort, i: int) -> tuple[str, ...]:
    numbers = torch.stack([found.value, found.value_baseline, found.completeness_error])[:, i].tolist()
    shown = ("-" if v != v else f"{v:.3g}" for v in numbers)
    return (cohort.ids[i], _class(cohort, int(found.target[i])), *shown, found.verdicts[i])


def _made(atlas: Atlas[Attributions]) -> list[tuple[str, str]]:
    about = atlas.attributes
    made = about.get("made", {})
    found = [(k, made.get(k, "")) for k in ("command", "hardware", "date")]
    return [(k, v) for k, v in found if v] + sorted(about["cfx_fingerprint"].items())

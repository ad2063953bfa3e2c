"""The report: one HTML page that needs nothing but itself.

It says first how good the classifier is, and whether the run is judged at all; then in words what came out, four
figures, the rows, and folded away every other figure. What it holds is bounded whatever the number of rows: pictures by
`BUDGET`, lines of the table by `LINES`; what is left out is counted.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cfx.atlas import Atlas
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.explain import DEPTHS
from cfx.counterfactual.reading import SHARE, Reading
from cfx.counterfactual.result import Counterfactuals
from cfx.counterfactual.standing import Standing
from cfx.display import images
from cfx.display.catalogue import meaning, metric
from cfx.display.templates import render
from cfx.report.cards import (
    ORDER,
    Line,
    Picture,
    axial,
    changed_share,
    check_cohort,
    class_names,
    failures_first,
    limit_of,
    lines,
    pictures,
    remark,
    slices,
    stack,
)
from cfx.report.identity import identity
from cfx.report.numbers import number, percent
from cfx.report.reading import ORDER as ORDER_OF_READINGS
from cfx.report.words import Tally, classifier, directions, remarks, sentences, skills, tiles, unjudged
from cfx.runtime.files import resolved, write_whole
from cfx.runtime.folder import Scalar, flatten

LINES = 2000
"""Most rows in the table at the end; a page of all rows of a large atlas would open nowhere."""
BUDGET = 10_000_000
"""Most characters of pictures; rows beyond have no card, and volumes beyond no slices to step through."""
SAID = {"judged", "why", "remarks"}
"""What is said in words at the top, and is no figure."""
SLICES = 24
"""Most axial slices of a volume to step through."""


@dataclass(frozen=True)
class Card:
    """One row with its pictures, and what to know of these.

    Of a volume also its axial slices: which, and that of them nearest to the edit.
    """

    line: Line
    pictures: Sequence[Picture]
    remark: str = ""
    slices: Sequence[Picture] = ()
    places: Sequence[int] = ()
    start: int = 0


@dataclass(frozen=True)
class Group:
    """The cards of one verdict; `total` counts the rows of that verdict whether shown or not."""

    verdict: str
    meaning: str
    total: int
    share: str
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Figure:
    """A metric as a line of a table."""

    name: str
    heading: str
    value: str
    interval: str
    meaning: str


@dataclass(frozen=True)
class Whole:
    """All rows of what is reported; of an atlas without their images.

    Attributes:
        result: The rows.
        cohort: The cohort of the same rows, or None.
        atlas: Where they are from, or None.
        missing: Rows of the atlas that are not there yet.
        warnings: What the run warned of.
    """

    result: Counterfactuals
    cohort: Cohort | None
    atlas: Atlas[Counterfactuals] | None = None
    missing: int = 0
    warnings: Sequence[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, result: Counterfactuals | Atlas[Counterfactuals] | str | os.PathLike[str], cohort: Cohort | None
    ) -> "Whole":
        """Every row there is.

        Raises:
            InputError: no row, or a cohort of other rows.
        """
        if isinstance(result, str | os.PathLike):
            result = Atlas(result, Counterfactuals)
        if isinstance(result, Atlas):
            lost, said = len(result.missing()), result.attributes.get("warnings", [])
            found = cls(result.read(images=False), result.read_cohort(images=False), result, lost, said)
        elif not isinstance(result, Counterfactuals):
            raise InputError(f"result: expected what explain returns, or an atlas of it, got {type(result).__name__}")
        else:
            cohort = result.cohort if cohort is None else cohort
            check_cohort(result, cohort)
            found = cls(result, cohort)
        if not len(found.result):
            of = f" of {found.missing} that are to come" if found.missing else ""
            raise InputError(f"result: expected at least one row, got none{of}")
        return found

    def with_images(self, at: Sequence[int]) -> tuple[Counterfactuals, Cohort | None]:
        """The rows at these positions with their images, in this order."""
        if self.atlas is None:
            return self.result[at], None if self.cohort is None else self.cohort[at]
        rows = self.result.row[at].tolist()
        found, known = self.atlas.read(rows), self.atlas.read_cohort(rows)
        place = {row: i for i, row in enumerate(found.row.tolist())}
        order = [place[row] for row in rows]
        return found[order], known[order]


def write_report(
    path: str | os.PathLike[str],
    result: Counterfactuals | Atlas[Counterfactuals] | str | os.PathLike[str],
    *,
    cohort: Cohort | None = None,
    metrics: Mapping[str, object] | None = None,
    title: str = "Counterfactual report",
    notes: Sequence[str] = (),
    max_rows: int = 48,
) -> Path:
    """Write one self-contained HTML page about a result: its verdict in words, figures, and a card of pictures a row.

    Failures come first. The page says how many rows have no card, be it for `max_rows` or since pictures are large, and
    how many rows of the atlas are missing; the table at its end has a line for each of the first `LINES` rows.

    Args:
        path: File to write; its folder is created.
        result: The result, 2D or 3D, or an atlas of it or its folder, of which only the images that are shown are
            read; what the run wrote into the atlas of itself (networks, data, date, command, warnings) is on the page.
        cohort: The cohort of the same rows, for names, classes, labels, lesions and the true counterfactuals; by
            default the result's own, and an atlas has its own.
        metrics: Metrics of the run; `NAME_low` and `NAME_high` are shown as the interval of `NAME`, with the meaning in
            the catalogue. Those on the networks that the result itself has (`standing`) are added. A run with `judged`
            False is shown as one that explains nothing, with `why`.
        title: Heading of the page.
        notes: Paragraphs to print beside the figures.
        max_rows: Most cards.

    Returns:
        The path written.

    Raises:
        InputError: an empty result, a cohort of other rows, or a metric that is not a scalar.
        AtlasError: no atlas of counterfactuals at the path.
        CfxError: the file cannot be written.
    """
    whole = Whole.of(result, cohort)
    every, known = whole.result, whole.cohort
    flat = flatten(_stands(every) | dict(metrics or {}))
    order = failures_first(every)
    shown, inputs = whole.with_images(order[: max(max_rows, 0)])
    tally = Tally(every, known, flat, changed_share(shown))
    limit = limit_of(shown, inputs)
    why = unjudged(tally)
    cards = _cards(shown, inputs, limit, not why)
    text = render(
        "cfx.report",
        "report.html.j2",
        title=title,
        whole=whole,
        why=why,
        classifier=classifier(tally),
        skills=skills(tally),
        remarks=remarks(tally),
        verdict=sentences(tally),
        tiles=tiles(tally),
        facts=identity(every, whole.atlas),
        notes=list(notes),
        groups=_groups(every, cards),
        figures=_figures(flat),
        directions=directions(tally, class_names(known)),
        lines=lines(every[order[:LINES]], None if known is None else known[order[:LINES]]),
        pictured=len(cards),
        sliced=sum(bool(card.slices) for card in cards),
        limit=f"{limit:.2g}",
        bar=images.colour_bar(),
        **_known(every, inputs, tally),
    )
    target = resolved(path)
    write_whole(target, text.encode())
    return target


def _stands(every: Counterfactuals) -> dict[str, object]:
    """What a result itself knows of its networks, as figures; nothing where nobody looked."""
    return Standing.of(every.standing).summary() if every.standing else {}


def _known(every: Counterfactuals, cohort: Cohort | None, tally: Tally) -> dict[str, object]:
    """What there is to show beside input and counterfactual."""
    return {
        "volumes": every.x.ndim == 5,
        "placed": cohort is not None and cohort.affine is not None,
        "channels": every.x.shape[1],
        "has_truth": cohort is not None and cohort.x_true is not None,
        "has_lesion": cohort is not None and cohort.lesion is not None,
        "has_labels": tally.labels is not None,
        "chance": number(1 / every.probs_before.shape[1], 2),
        "has_oracle": every.oracle_probs_after is not None,
        "enough": percent(SHARE),
        "readings": {} if unjudged(tally) else _readings(every),
    }


def _readings(every: Counterfactuals) -> dict[Reading, int]:
    """How often the changes are read in each way; none where nothing was measured."""
    words = every.reading
    return {word: n for word in ORDER_OF_READINGS if (n := words.count(word))}


def _cards(shown: Counterfactuals, cohort: Cohort | None, limit: float, judged: bool) -> list[Card]:
    """A card for every row whose pictures fit into the budget, one at least; then slices from what is left of it."""
    texts, cards, left = lines(shown, cohort), list[Card](), BUDGET
    for i, line in enumerate(texts):
        found = pictures(shown, cohort, i, limit, line, judged)
        left -= _characters(found)
        if left < 0 and cards:
            break
        cards.append(Card(line, found, remark(shown, i)))
    return list(_sliced(cards, shown, cohort, limit, left, judged)) if shown.x.ndim == 5 else cards


def _sliced(
    cards: Sequence[Card], shown: Counterfactuals, cohort: Cohort | None, limit: float, left: int, judged: bool
) -> Iterator[Card]:
    """The cards, the first of them with as many stacks of slices as fit."""
    for i, card in enumerate(cards):
        places = axial(shown, i, SLICES)
        found = stack(shown, cohort, i, limit, card.line, places, judged) if left > 0 else []
        left -= _characters(found)
        start = min(range(len(places)), key=lambda k: abs(places[k] - slices(shown, i)[2]))
        yield replace(card, slices=found, places=places, start=start) if found and left >= 0 else card


def _characters(found: Sequence[Picture]) -> int:
    """How large pictures are on the page."""
    return sum(len(picture.uri) + sum(len(path) for _, path in picture.outlines) for picture in found)


def _groups(every: Counterfactuals, cards: Sequence[Card]) -> list[Group]:
    """The cards by verdict, and every verdict whether there are rows of it or not."""
    groups = []
    for verdict in ORDER:
        name, total = verdict.name.lower(), int((every.verdict == verdict).sum())
        here = tuple(card for card in cards if card.line.verdict == name)
        groups.append(Group(name, verdict.meaning, total, f"{total / len(every):.1%}", here))
    return groups


def _figures(metrics: Mapping[str, Scalar]) -> dict[str, list[Figure]]:
    """Tables of figures by depth, "" for that of the report; bounds are folded into the metric they bound."""
    bounds = {f"{name}{end}" for name in metrics for end in ("_low", "_high")} & metrics.keys()
    found: dict[str, list[Figure]] = {"": []}
    for name, value in metrics.items():
        depth, _, bare = name.partition("_")
        depth, bare = (depth, bare) if depth in DEPTHS and bare else ("", name)
        if name not in bounds | SAID:
            text = Figure(name, metric(bare).heading, _said(value), _interval(metrics, name), meaning(bare, DEPTHS))
            found.setdefault(depth, []).append(text)
    return {depth: rows for depth, rows in found.items() if rows}


def _said(value: Scalar) -> str:
    return number(value, 4) if value is None or isinstance(value, float) else str(value)


def _interval(metrics: Mapping[str, Scalar], name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{_said(low)} to {_said(high)}"

"""The report: one HTML page that needs nothing but itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from torch import Tensor

from cfx.atlas import Atlas
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.explain import DEPTHS
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display import images
from cfx.display.catalogue import meaning
from cfx.display.templates import render
from cfx.report.cards import ORDER, Line, Picture, check_cohort, failures_first, limit_of, lines, number, pictures
from cfx.runtime.files import write_whole
from cfx.runtime.folder import Scalar, flatten

LINES = 2000
"""Most rows in the table at the end; a page of all rows of a large atlas would open nowhere."""


@dataclass(frozen=True)
class Group:
    """The cards of one verdict; `total` counts the rows of that verdict whether shown or not."""

    verdict: str
    total: int
    cards: tuple[tuple[Line, list[Picture]], ...]


def write_report(
    path: str | os.PathLike[str],
    result: Counterfactuals | Atlas[Counterfactuals],
    *,
    cohort: Cohort | None = None,
    metrics: Mapping[str, object] | None = None,
    title: str = "Counterfactual report",
    notes: Sequence[str] = (),
    max_rows: int = 48,
) -> Path:
    """Write one self-contained HTML page about a result: verdicts, metrics, and a card of pictures a row.

    Failures come first. Beyond `max_rows` cards the page says how many rows have none; the table at the end has a line
    for each of the first `LINES` rows in that order.

    Args:
        path: File to write; its folder is created.
        result: The result, 2D or 3D, or an atlas of it, of which only the images that are shown are read.
        cohort: The cohort of the same rows, for names, classes, lesions and the true counterfactuals; an atlas has its
            own.
        metrics: Metrics of the run; `NAME_low` and `NAME_high` are shown as the interval of `NAME`, with the meaning in
            the catalogue.
        title: Heading of the page.
        notes: Paragraphs to print above the cards.
        max_rows: Most cards.

    Returns:
        The path written.

    Raises:
        InputError: an empty result, a cohort of other rows, or a metric that is not a scalar.
        CfxError: the file cannot be written.
    """
    every, known = _every_row(result, cohort)
    if not len(every):
        raise InputError("result: expected at least one row, got none")
    order = failures_first(every)
    shown = order[: max(max_rows, 0)]
    flat = flatten(metrics or {})
    text = render(
        "cfx.report",
        "report.html.j2",
        title=title,
        notes=list(notes),
        result=every,
        tiles=_tiles(every, flat),
        verdicts=_verdict_table(every),
        metrics=_metric_table(flat),
        lines=lines(every[order[:LINES]], None if known is None else known[order[:LINES]]),
        omitted=len(every) - len(shown),
        **_cards(every, *_with_images(result, cohort, every.row[shown].tolist(), shown)),
    )
    write_whole(Path(path), text.encode())
    return Path(path)


def _every_row(
    result: Counterfactuals | Atlas[Counterfactuals], cohort: Cohort | None
) -> tuple[Counterfactuals, Cohort | None]:
    """All rows; of an atlas without their images."""
    if isinstance(result, Atlas):
        return result.read(images=False), result.read_cohort(images=False)
    check_cohort(result, cohort)
    return result, cohort


def _with_images(
    result: Counterfactuals | Atlas[Counterfactuals], cohort: Cohort | None, rows: Sequence[int], at: Sequence[int]
) -> tuple[Counterfactuals, Cohort | None]:
    """Some rows with their images, in the order asked for."""
    if not isinstance(result, Atlas):
        return result[at], None if cohort is None else cohort[at]
    found, known = result.read(rows), result.read_cohort(rows)
    order = [found.row.tolist().index(row) for row in rows]
    return found[order], known[order]


def _cards(every: Counterfactuals, shown: Counterfactuals, cohort: Cohort | None) -> dict[str, object]:
    texts = lines(shown, cohort)
    limit = limit_of(shown, cohort)
    groups = []
    for verdict in ORDER:
        total = int((every.verdict == verdict).sum())
        here = (shown.verdict == verdict).nonzero().flatten().tolist()
        cards = tuple((texts[i], pictures(shown, cohort, i, limit, texts[i])) for i in here)
        if total:
            groups.append(Group(verdict.name.lower(), total, cards))
    return {
        "groups": groups,
        "limit": f"{limit:.2g}",
        "bar": images.colour_bar(),
        "volumes": every.x.ndim == 5,
        "channels": every.x.shape[1],
        "has_truth": cohort is not None and cohort.x_true is not None,
        "has_lesion": cohort is not None and cohort.lesion is not None,
    }


def _middle(values: Tensor) -> float | None:
    found = values.double()[values.double().isfinite()].tolist()
    return median(found) if found else None


def _tiles(result: Counterfactuals, metrics: Mapping[str, Scalar]) -> list[tuple[str, str, str]]:
    """Headline figures as (value, name, remark)."""
    n = len(result)
    oracle = result.oracle_validity
    rows = result.target.long()[:, None]
    edited = result.verdict == Verdict.FLIPPED
    return [
        (f"{result.validity:.1%}", "validity", f"{round(result.validity * n)} of {n} rows reach the margin"),
        (
            "-" if oracle is None else f"{oracle:.1%}",
            "oracle validity",
            "no oracle was given" if oracle is None else f"{round(oracle * n)} of {n} rows, by a second classifier",
        ),
        (number(_middle(result.probs_after.gather(1, rows))), "median p(target)", "after the edit, all rows"),
        (_said(metrics.get("l1")), "mean |change|", "per pixel, all rows"),
        (number(_middle(result.strength[edited])), "median strength", "flipped rows"),
        (number(_middle(result.nfe_unet_forward)), "median evaluations", "of the generator, a row"),
        (number(float(result.seconds.mean())), "seconds a row", f"{number(float(result.seconds.sum()))} s in all"),
    ]


def _verdict_table(result: Counterfactuals) -> list[dict[str, object]]:
    counts = {verdict: int((result.verdict == verdict).sum()) for verdict in ORDER}
    return [
        {
            "name": verdict.name.lower(),
            "count": count,
            "share": f"{count / len(result):.1%}",
            "meaning": verdict.meaning,
        }
        for verdict, count in counts.items()
    ]


def _metric_table(metrics: Mapping[str, Scalar]) -> list[tuple[str, str, str, str]]:
    """Rows of (name, value, interval, meaning); bounds are folded into the metric they bound."""
    bounds = {f"{name}{end}" for name in metrics for end in ("_low", "_high")} & metrics.keys()
    return [
        (name, _said(value), _interval(metrics, name), meaning(name, DEPTHS))
        for name, value in metrics.items()
        if name not in bounds
    ]


def _said(value: Scalar) -> str:
    return number(value, 4) if value is None or isinstance(value, float) else str(value)


def _interval(metrics: Mapping[str, Scalar], name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{_said(low)} to {_said(high)}"

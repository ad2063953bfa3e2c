"""The report: one HTML page that needs nothing but itself."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display import images
from cfx.display.templates import render
from cfx.report.cards import Line, Picture, check_cohort, failures_first, limit_of, lines, number, pictures
from cfx.report.words import ORDER, meaning
from cfx.runtime.files import write_whole
from cfx.runtime.folder import Scalar, flatten


@dataclass(frozen=True)
class Group:
    """The cards of one verdict; `total` counts the rows of that verdict whether shown or not."""

    verdict: str
    total: int
    cards: tuple[tuple[Line, list[Picture]], ...]


def write_report(
    path: str | os.PathLike[str],
    result: Counterfactuals,
    *,
    cohort: Cohort | None = None,
    metrics: Mapping[str, object] | None = None,
    title: str = "Counterfactual report",
    notes: Sequence[str] = (),
    explain: Mapping[str, str] | None = None,
    max_rows: int = 48,
) -> Path:
    """Write one self-contained HTML page about a result: verdicts, metrics, and a card of pictures a row.

    Failures come first. Beyond `max_rows` cards the page says how many rows have none; the table at the end holds
    every row in any case.

    Args:
        path: File to write; its folder is created.
        result: The result, 2D or 3D.
        cohort: The cohort of the same rows, for names, classes, lesions and the true counterfactuals.
        metrics: Metrics of the run; `NAME_low` and `NAME_high` are shown as the interval of `NAME`.
        title: Heading of the page.
        notes: Paragraphs to print above the cards.
        explain: One line on metrics that `cfx.report.words` does not know.
        max_rows: Most cards.

    Returns:
        The path written.

    Raises:
        InputError: an empty result, a cohort of other rows, or a metric that is not a scalar.
        CfxError: the file cannot be written.
    """
    if not len(result):
        raise InputError("result: expected at least one row, got none")
    check_cohort(result, cohort)
    text = render(
        "cfx.report",
        "report.html.j2",
        title=title,
        notes=list(notes),
        result=result,
        tiles=_tiles(result),
        verdicts=_verdict_table(result),
        metrics=_metric_table(flatten(metrics or {}), explain or {}),
        **_cards(result, cohort, max_rows),
    )
    write_whole(Path(path), text.encode())
    return Path(path)


def _cards(result: Counterfactuals, cohort: Cohort | None, max_rows: int) -> dict[str, object]:
    order = failures_first(result)
    texts = lines(result, cohort)
    limit = limit_of(result, cohort)
    shown = {i: (texts[i], pictures(result, cohort, i, limit, texts[i])) for i in order[: max(max_rows, 0)]}
    groups = []
    for verdict in ORDER:
        total = int((result.verdict == verdict).sum())
        cards = tuple(card for i, card in shown.items() if result.verdict[i] == verdict)
        if total:
            groups.append(Group(verdict.name.lower(), total, cards))
    return {
        "groups": groups,
        "lines": [texts[i] for i in order],
        "omitted": len(result) - len(shown),
        "limit": f"{limit:.2g}",
        "bar": images.colour_bar(),
        "volumes": result.x.ndim == 5,
        "channels": result.x.shape[1],
        "has_truth": cohort is not None and cohort.x_true is not None,
        "has_lesion": cohort is not None and cohort.lesion is not None,
    }


def _middle(values: Tensor) -> float | None:
    found = values.double()[values.double().isfinite()].tolist()
    return median(found) if found else None


def _tiles(result: Counterfactuals) -> list[tuple[str, str, str]]:
    """Headline figures as (value, name, remark)."""
    n = len(result)
    oracle = result.oracle_validity
    rows = result.target.long()[:, None]
    edited = result.verdict == Verdict.FLIPPED
    change = (result.x_cf - result.x).abs().flatten(1).mean(1)
    return [
        (f"{result.validity:.1%}", "validity", f"{round(result.validity * n)} of {n} rows reach the margin"),
        (
            "-" if oracle is None else f"{oracle:.1%}",
            "oracle validity",
            "no oracle was given" if oracle is None else f"{round(oracle * n)} of {n} rows, by a second classifier",
        ),
        (number(_middle(result.probs_after.gather(1, rows))), "median p(target)", "after the edit, all rows"),
        (number(_middle(change[edited]), 2), "median |change|", "per pixel, flipped rows"),
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


def _metric_table(metrics: Mapping[str, Scalar], explain: Mapping[str, str]) -> list[tuple[str, str, str, str]]:
    """Rows of (name, value, interval, meaning); bounds are folded into the metric they bound."""
    bounds = {f"{name}{end}" for name in metrics for end in ("_low", "_high")} & metrics.keys()
    return [
        (name, _said(value), _interval(metrics, name), explain.get(name) or meaning(name))
        for name, value in metrics.items()
        if name not in bounds
    ]


def _said(value: Scalar) -> str:
    return number(value, 4) if value is None or isinstance(value, float) else str(value)


def _interval(metrics: Mapping[str, Scalar], name: str) -> str:
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return "" if low is None or high is None else f"{_said(low)} to {_said(high)}"

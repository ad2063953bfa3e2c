"""`table.md`: the results of a bench as people read them."""

from collections.abc import Mapping, Sequence
from typing import Any

from cfx.commands.bench.rows import COMPARED, DIRECTED
from cfx.display.catalogue import Metric, metric, register
from cfx.display.markdown import grid

Row = Mapping[str, Any]

SHOWN = (
    "flip_rate", "validity", "oracle_validity", "stable", "l1", "lpips", "feature_distance", "error_to_truth",
    "error_to_truth_ratio", "cosine_to_truth", "localisation_auprc", "cout", "kernel", "composition", "reversibility",
)  # fmt: skip
"""Metrics of the table, in the order of its columns."""
COSTS = (
    "nfe_to_flip", "nfe_to_margin", "nfe_failing", "nfe_unet_forward", "nfe_unet_backward", "nfe_classifier",
    "nfe_classifier_backward", "seconds_per_image", "peak_memory_mb",
)  # fmt: skip
"""What the methods spent."""
register(
    Metric("peak_memory_mb", "peak MB", "Peak memory in units of 2^20 bytes.", "lower", ".3g"),
    Metric("start_sigma", "start sigma", "Noise level that the method starts from; none adds no noise.", "", ".3f"),
    Metric("flip_rate", "ever flipped", "Share of images that an attempt flipped, at whatever margin.", "higher"),
    Metric(
        "nfe_to_flip", "spent to a flip",
        "Generator evaluations and back-propagations until the first flip, over the images that were flipped.",
        "lower", ".3g",
    ),
    Metric("nfe_to_margin", "spent to the margin", "As many, of images that reached the margin.", "lower", ".3g"),
    Metric("nfe_failing", "spent failing", "As many, of images that did not reach the margin.", "lower", ".3g"),
)  # fmt: skip
_NOTES = " ".join((
    "Square brackets are 95 % bootstrap intervals over images. All images count, failures included, as the method",
    "made them; methods with a smaller n were given the first n images only. Spent: generator evaluations and back-",
    "propagations, by how far an image came. `identity` is the image unchanged, `random-real` a real image of the",
    "target class of another subject, `ddim-reconstruction` a plain DDIM inversion and its way back with as many",
    "generator evaluations as the first method spent. Kernel distance: squared MMD, in the oracle's features, between",
    "edited images and real images of the target class of other subjects; without bias, so comparable across n. Peak",
    "memory: on a GPU all that is allocated at the peak; on a CPU the growth of the process's resident memory.",
))  # fmt: skip

_LAWS = " ".join((
    "Composition: largest change of a pixel after ten null edits in a row, nothing pasted, for methods that have one.",
    "Reversibility: root-mean-square distance between the image and the counterfactual of its counterfactual, back in",
    "the class it came from; a method that changes nothing scores 0, so read it beside the validity.",
))  # fmt: skip


def markdown(title: str, rows: Sequence[Row], command: str, hardware: Sequence[str], notes: Sequence[str] = ()) -> str:
    """The whole page: for every depth the metrics, the paired comparisons and the directions.

    Args:
        title: Name of the bench.
        rows: The rows of `results.json`.
        command: What the bench was run with.
        hardware: The machines it ran on.
        notes: Sentences put first.
    """
    parts = [f"# {title}", *notes, f"Hardware: {'; '.join(hardware) or 'none'}.", f"Command: `{command}`"]
    for depth in dict.fromkeys(row["depth"] for row in rows):
        here = [row for row in rows if row["depth"] == depth]
        parts += [f"## Depth {depth}", _metrics(here), _failures(here), _comparisons(here), _directions(here)]
    notes_below = f"{_NOTES} {_LAWS}" if any("reversibility" in row for row in rows) else _NOTES
    return "\n\n".join(part for part in [*parts, notes_below] if part) + "\n"


def _metrics(rows: Sequence[Row]) -> str:
    done = [row for row in rows if "error" not in row]
    known = [m for m in SHOWN if any(m in row for row in done)]
    head = ["method", "n", heading("start_sigma"), *(heading(m) for m in known), *map(heading, COSTS)]
    return grid(
        head,
        [
            [
                row["method"],
                str(row["n"]),
                _cost(row, "start_sigma"),
                *(_spread(row, m) for m in known),
                *(_cost(row, c) for c in COSTS),
            ]
            for row in done
        ],
    )


def _failures(rows: Sequence[Row]) -> str:
    return "\n".join(f"- `{row['method']}` could not run: {row['error']}" for row in rows if "error" in row)


def _comparisons(rows: Sequence[Row]) -> str:
    pairs = [(row["method"], first, found) for row in rows for first, found in row["comparisons"].items()]
    if not pairs:
        return ""
    known = [m for m in COMPARED if any(m in found for _, _, found in pairs)]
    body = [[other, str(found["n"]), *(_verdict(found.get(m)) for m in known)] for other, _, found in pairs]
    head = f"`{pairs[0][1]}` minus each other method, paired over the images both worked on:"
    return f"{head}\n\n" + grid(["against", "n", *(heading(m) for m in known)], body)


def _verdict(found: Row | None) -> str:
    return "-" if found is None else f"{_number(found['difference'])} {_interval(found)} {found['verdict']}"


def _directions(rows: Sequence[Row]) -> str:
    body = [(row["method"], name, found) for row in rows for name, found in row["directions"].items()]
    known = [m for m in ("error_to_truth_ratio", *DIRECTED) if any(m in found for _, _, found in body)]
    lines = [[method, name, str(found["n"]), *(_spread(found, m) for m in known)] for method, name, found in body]
    return (
        "By target class:\n\n" + grid(["method", "towards", "n", *(heading(m) for m in known)], lines) if lines else ""
    )


def _spread(row: Row, metric: str) -> str:
    """A metric with its interval."""
    if row.get(metric) is None:
        return "-"
    if row.get(f"{metric}_low") is None:
        return _number(row[metric])
    return f"{_number(row[metric])} {_interval({'low': row[f'{metric}_low'], 'high': row[f'{metric}_high']})}"


def _interval(found: Row) -> str:
    return f"[{_number(found['low'])}, {_number(found['high'])}]"


def _cost(row: Row, key: str) -> str:
    value = row.get(key)
    return "-" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _number(value: float) -> str:
    return f"{value:.3f}" if abs(value) >= 0.0995 or value == 0 else f"{value:.2g}"


def heading(name: str) -> str:
    """What a column of a metric is called."""
    return metric(name).heading

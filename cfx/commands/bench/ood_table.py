"""`table.md` of a bench of detectors: a line a method, a line a shift, the first method against each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from cfx.commands.bench.ood_figure import KINDS, shifts_of
from cfx.display.catalogue import metric
from cfx.display.markdown import grid

Row = Mapping[str, Any]
SHOWN = (
    "auroc_near", "auroc_near_min", "fpr95_near", "auroc_beyond", "auroc_beyond_min", "auroc_far", "false_alarm",
    "false_alarm_tolerated", "map_auprc", "map_base_rate", "nfe_unet_forward", "nfe_autoencoder", "nfe_classifier",
    "nfe_features", "seconds_per_image",
)  # fmt: skip
"""Columns of the first table."""
_COSTS = {"nfe_unet_forward", "nfe_autoencoder", "nfe_classifier", "nfe_features", "seconds_per_image"}
_NOTES = " ".join((
    "Square brackets: 95 % bootstrap intervals over subjects. AUROC: the in-distribution images against those of a",
    "shift. Shifts marked * are for development: choices were made on them, and no mean has them. FPR95: share of the",
    "in-distribution images that are out at the threshold that finds 95 % of a shift. False alarms: share that is out",
    "at the level. Maps: pixels of the whole image, over the images in which something was planted. Cost: mean over",
    "the sets. A method with a smaller n was given the first n images of every set, and is compared on these.",
))  # fmt: skip


def markdown(title: str, rows: Sequence[Row], command: str, hardware: str, notes: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        title: Name of the bench.
        rows: The rows of `results.json`.
        command: What the bench was run with.
        hardware: Where it ran.
        notes: Sentences put first.
    """
    done = [row for row in rows if "error" not in row]
    failed = "\n".join(f"- `{row['method']}` could not run: {row['error']}" for row in rows if "error" in row)
    parts = [f"# {title}", *notes, f"Hardware: {hardware}.", f"Command: `{command}`", _methods(done), failed]
    parts += [_comparisons(done), *(_kind(done, kind) for kind in KINDS), _NOTES]
    return "\n\n".join(part for part in parts if part) + "\n"


def _methods(rows: Sequence[Row]) -> str:
    known = [name for name in SHOWN if any(row.get(name) is not None for row in rows)]
    head = ["method", "n", *(metric(name).heading for name in known)]
    return grid(head, [[row["method"], str(row["n"]), *(_cell(row, name) for name in known)] for row in rows])


def _cell(row: Row, name: str) -> str:
    value, low = row.get(name), row.get(f"{name}_low")
    if value is None:
        return "-"
    text = f"{value:.3g}" if name in _COSTS else f"{value:.3f}"
    return text if low is None else f"{text} [{low:.3f}, {row[f'{name}_high']:.3f}]"


def _comparisons(rows: Sequence[Row]) -> str:
    pairs = [(row["method"], first, found) for row in rows for first, found in row["comparisons"].items()]
    if not pairs:
        return ""
    known = [key for key in pairs[0][2] if key != "n"]
    body = [[other, str(found["n"]), *(_verdict(found.get(key)) for key in known)] for other, _, found in pairs]
    head = f"`{pairs[0][1]}` minus each other method, paired by subject over the images both worked on:"
    return f"{head}\n\n" + grid(["against", "n", *(metric(key).heading for key in known)], body)


def _verdict(found: Row | None) -> str:
    if found is None:
        return "-"
    return f"{found['difference']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}] {found['verdict']}"


def _kind(rows: Sequence[Row], kind: str) -> str:
    """One line a shift: AUROC of each method; of tolerated ones the share that is out."""
    shifts = shifts_of(rows, kind)
    if not shifts:
        return ""
    key = "out" if kind == "tolerated" else "auroc"
    head = ["shift", "what", *(row["method"] for row in rows)]
    body = []
    for shift in shifts:
        name = f"shift.{shift}"
        mark = " *" if rows[0][f"{name}.development"] else ""
        cells = [_of(row, name, key) for row in rows]
        body.append([shift + mark, rows[0][f"{name}.strength"], *cells])
    what = "share that is out" if kind == "tolerated" else "AUROC"
    return f"## {kind.capitalize()}: {what}\n\n" + grid(head, body)


def _of(row: Row, name: str, key: str) -> str:
    value, low = row[f"{name}.{key}"], row.get(f"{name}.{key}_low")
    return f"{value:.3f}" if low is None else f"{value:.3f} [{low:.2f}, {row[f'{name}.{key}_high']:.2f}]"

"""`table.md` of a bench of mask samplers: what they are worth, what they cost, the first against each other."""

from collections.abc import Mapping, Sequence
from typing import Any

from cfx.commands.bench.segmentation_rows import COMPARED
from cfx.commands.filling import said
from cfx.display.catalogue import metric
from cfx.display.markdown import grid

Row = Mapping[str, Any]
WORTH = (
    "ged_4", "ged_16", "ged_50", "ged_debiased", "ci_4", "ci_16", "d_max_4", "d_max_16", "hm_iou_16", "diversity",
    "reader_diversity", "diversity_ratio", "representative_ged_4", "representative_ratio", "reader_ece", "empty_ece",
)  # fmt: skip
"""Columns of the first table."""
TRUTH = ("truth_ged", *(f"{name}_{n}" for n in (4, 16, 50) for name in ("truth_ged", "truth_ratio")), "empty_ece")
"""Of a known distribution."""
COST = {"nfe_unet_forward": "nfe_a_mask", "samples_per_second": "samples_per_second",
        "seconds": "seconds_per_image", "parameters": "parameters", "train_steps": "train_steps"}  # fmt: skip
"""What methods spent, and what it is called."""
_NOTES = " ".join((
    "Square brackets: 95 % bootstrap intervals over subjects. The number behind a figure is that of the samples it is",
    "of: only equal numbers compare. What has none is of all samples that a method drew. Evaluations are counted for a",
    "mask, seconds for an image with all its masks. A method with a smaller n was given the first n images. `nearest`:",
    "the readers of the training images most like the image, as many images as it takes; `majority`, `union` and",
    "`one-reader` know the readers' masks, so that a debiased GED of theirs may be below 0.",
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
    parts = [f"# {title}", *notes, f"Hardware: {_hardware(done, hardware)}.", f"Command: `{command}`"]
    parts += [_figures(done, WORTH), failed]
    if any("truth_ged" in row for row in done):
        parts += ["Against the known distribution:", _figures(done, TRUTH)]
    parts += ["What they cost:", _costs(done), *_comparisons(rows), _NOTES]
    return "\n\n".join(part for part in parts if part) + "\n"


def _hardware(rows: Sequence[Row], here: str) -> str:
    """Where masks were drawn: a run that was gone on with may have seen several machines."""
    return "; ".join(dict.fromkeys(row["hardware"] for row in rows if "hardware" in row)) or here


def _figures(rows: Sequence[Row], names: Sequence[str]) -> str:
    known = [name for name in names if any(row.get(name) is not None for row in rows)]
    head = ["method", "n", *(metric(name).heading for name in known)]
    return grid(head, [[row["method"], str(row["n"]), *(said(k, row) for k in known)] for row in rows])


def _costs(rows: Sequence[Row]) -> str:
    some = [row for row in rows if row.get("samples_per_second") is not None]
    head = ["method", *(metric(name).heading for name in COST.values())]
    return grid(head, [[row["method"], *(_number(row.get(key)) for key in COST)] for row in some])


def _number(value: float | int | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _comparisons(rows: Sequence[Row]) -> list[str]:
    """Each other method less the first."""
    others = [row for row in rows if "n_vs_ours" in row]
    if not others:
        return []
    known = [f"{k}_vs_ours" for k in COMPARED if any(f"{k}_vs_ours" in row for row in others)]
    head = ["method", "n", *(metric(k).heading for k in known)]
    body = [[row["method"], str(row["n_vs_ours"]), *(said(k, row) for k in known)] for row in others]
    return [f"Each method less `{rows[0]['method']}`, on the images that both drew masks of:", grid(head, body)]

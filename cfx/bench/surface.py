"""The power surface as a figure."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def power_figure(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Effect and power against the strength of the confounding, one line a strength of the object."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for strength in sorted({row["strength"] for row in rows}):
        cells = sorted((r for r in rows if r["strength"] == strength), key=lambda r: r["q"])
        q = [r["q"] for r in cells]
        for axes, name in ((left, "effect"), (right, "power")):
            line = axes.plot(q, [r[name] for r in cells], marker="o", label=f"strength {strength:g}")[0]
            low, high = [r[f"{name}_low"] for r in cells], [r[f"{name}_high"] for r in cells]
            axes.fill_between(q, low, high, alpha=0.15, color=line.get_color(), linewidth=0)
    left.axhline(0, color="0.7", linewidth=0.8)
    right.axhline(0.05, color="0.7", linewidth=0.8)
    along = "q = P(object = label) in training"
    left.set(xlabel=along, ylabel="effect of the object (logits)")
    right.set(xlabel=along, ylabel="share of small tests that find it", ylim=(-0.03, 1.03))
    left.legend(frameon=False)
    figure.savefig(path, dpi=110)

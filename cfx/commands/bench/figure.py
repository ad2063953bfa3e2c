"""`figure.png` of a bench: what methods cost and are worth and what their edits look like; or the power of a test."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from torch import Tensor

from cfx.commands.bench.cells import Cell
from cfx.core.cohort import Cohort
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.display.catalogue import metric

Row = Mapping[str, Any]
Picture = NDArray[np.floating[Any]]
Point = tuple[float, float, str, Any]
"""Cost, worth, name and colour; a reference row has no cost and stands at infinity."""

WORTH = (("error_to_truth_ratio", "oracle_validity", "validity"), ("localisation_auprc", "feature_distance", "l1"))
"""The two panels: each shows the first of these metrics that the bench knows."""
EXAMPLES = 2
"""Images shown at each depth, of different target classes where there are several."""
_PANEL, _PICTURE, _WIDTH = 4.4, 1.7, 15.0  # inches; pictures are smaller where many stand side by side
_REFERENCES = {"identity": ("#777777", "--"), "random-real": ("#bb7700", ":")}


def draw(
    rows: Sequence[Row], found: Mapping[str, Mapping[str, Cell | str]], cohort: Cohort, *, dpi: int = 130
) -> bytes:
    """The figure as PNG: for every depth two panels of cost against worth, then examples.

    Args:
        rows: The rows of `results.json`.
        found: What was measured, by depth and method.
        cohort: The images the methods worked on.
        dpi: Dots per inch.
    """
    results = {
        depth: {name: cell.result for name, cell in cells.items() if isinstance(cell, Cell)}
        for depth, cells in found.items()
    }
    results = {depth: by_method for depth, by_method in results.items() if by_method}
    shown = {depth: _examples(by_method) for depth, by_method in results.items()}
    columns = 1 + (cohort.x_true is not None) + max(map(len, results.values()), default=0)
    high = min(_PICTURE, _WIDTH / columns)
    heights = [h for examples in shown.values() for h in (_PANEL, 2 * len(examples) * high + 0.3)]
    fig = Figure(figsize=(_WIDTH, sum(heights) or 1), layout="constrained")
    FigureCanvasAgg(fig)
    parts = iter(fig.subfigures(len(heights) or 1, 1, height_ratios=heights or [1], squeeze=False)[:, 0])
    for depth, by_method in results.items():
        _panels(next(parts), [row for row in rows if row["depth"] == depth and "error" not in row], depth)
        _gallery(next(parts), by_method, shown[depth], cohort)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def _panels(fig: SubFigure, rows: Sequence[Row], depth: str) -> None:
    """Cost against worth, twice."""
    fig.suptitle(f"Depth {depth}", fontsize=12, weight="bold")
    for ax, metrics in zip(fig.subplots(1, 2), WORTH, strict=True):
        shown = next(m for m in metrics if any(m in row for row in rows))
        _scatter(ax, [row for row in rows if shown in row], shown)
        ax.set_ylabel(metric(shown).axis, fontsize=9)


def _scatter(ax: Axes, rows: Sequence[Row], name: str) -> None:
    """One point a method with its interval and its name; the reference rows as lines."""
    methods = [row for row in rows if row["method"] not in _REFERENCES]
    spans = [row[f"{name}_{end}"] for row in methods for end in ("low", "high")]
    spans += [row[name] for row in rows if row["method"] == "identity"]
    room = 0.08 * (max(spans) - min(spans)) or 0.1
    ax.set_ylim(min(spans) - room, max(spans) + room)
    points: list[Point] = []
    for i, row in enumerate(methods):
        x, y = row["nfe_unet_forward"] + row["nfe_unet_backward"], row[name]
        colour = colormaps["tab20"](2 * i % 20 + i // 10 % 2)
        away = [[y - row[f"{name}_low"]], [row[f"{name}_high"] - y]]
        ax.errorbar(x, y, away, fmt="o", color=colour, ms=6, capsize=2.5, elinewidth=1)
        points.append((x, y, f"{row['method']} (n={row['n']})", colour))
    points += [_reference(ax, row["method"], row[name]) for row in rows if row["method"] in _REFERENCES]
    if all(x > 0 for x, *_ in points[: len(methods)]):
        ax.set_xscale("log")
    else:
        ax.set_xscale("symlog", linthresh=1)  # methods without a generator cost none
        ax.set_xlim(left=-0.4)
    ax.set_xlim(right=1.6 * max([1.0, *(x for x, *_ in points[: len(methods)])]))
    ax.set_xlabel("generator evaluations and back-propagations an image (log)", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25)
    _names(ax, points)


def _reference(ax: Axes, name: str, y: float) -> Point:
    """A line across the panel; where it would lie outside, only its name and value at the edge."""
    colour, style = _REFERENCES[name]
    bottom, top = ax.get_ylim()
    inside = bottom <= y <= top
    if inside:
        ax.axhline(y, color=colour, linestyle=style, linewidth=1)
    return math.inf, min(max(y, bottom), top), name if inside else f"{name}: {y:.2f}, outside", colour


def _names(ax: Axes, points: Sequence[Point]) -> None:
    """Names in the right margin, in the order of their heights, a line to each point: none covers another."""
    bottom, top = ax.get_ylim()
    order = sorted(points, key=lambda p: p[1])
    heights = _apart([(p[1] - bottom) / (top - bottom) for p in order], 0.062)
    for (x, y, name, colour), height in zip(order, heights, strict=True):
        reference = math.isinf(x)
        ax.annotate(
            name,
            xy=(1.0, y) if reference else (x, y),
            xycoords=ax.get_yaxis_transform() if reference else "data",
            xytext=(1.03, height),
            textcoords="axes fraction",
            fontsize=8,
            va="center",
            color=colour,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.7},
            annotation_clip=False,
        )


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Increasing heights, moved up until they are `gap` apart, and down again where that leads beyond 1."""
    out: list[float] = []
    for h in heights:
        out.append(max(h, out[-1] + gap) if out else h)
    limit = 1.0
    for i in range(len(out) - 1, -1, -1):
        out[i] = min(out[i], limit)
        limit = out[i] - gap
    return out


def _examples(results: Mapping[str, Counterfactuals]) -> list[int]:
    """Positions to show: rows that every method worked on and had to change, one a target class first."""
    first = next(iter(results.values()))
    shared = range(min(len(r) for r in results.values()))
    changed = [i for i in shared if int(first.verdict[i]) != Verdict.ALREADY] or list(shared)
    one_each = {int(first.target[i]): i for i in reversed(changed)}
    return sorted(list(dict.fromkeys([*one_each.values(), *changed]))[:EXAMPLES])


def _gallery(fig: SubFigure, results: Mapping[str, Counterfactuals], shown: Sequence[int], cohort: Cohort) -> None:
    """Two lines an example: the image, the truth and every method's counterfactual; below, the signed differences."""
    columns: dict[str, Tensor] = {} if cohort.x_true is None else {"truth": cohort.x_true}
    columns |= {name: result.x_cf for name, result in results.items()}
    axes = fig.subplots(2 * len(shown), 1 + len(columns), squeeze=False, gridspec_kw={"wspace": 0.02, "hspace": 0.02})
    for ax in axes.flat:
        ax.set_axis_off()
    for line, i in enumerate(shown):
        x = cohort.x[i]
        axes[2 * line, 0].imshow(_picture(x), interpolation="nearest")
        limit = max(0.1, float((next(iter(columns.values()))[i] - x).abs().max()))
        for j, values in enumerate(columns.values(), start=1):
            axes[2 * line, j].imshow(_picture(values[i]), interpolation="nearest")
            difference = _plane((values[i] - x).mean(0))
            axes[2 * line + 1, j].imshow(difference, cmap="RdBu_r", vmin=-limit, vmax=limit, interpolation="nearest")
        note = axes[2 * line + 1, 0]
        note.text(0.5, 0.5, f"minus x,\n±{limit:.2g}", ha="center", va="center", fontsize=8, transform=note.transAxes)
    for ax, name in zip(axes[0], ["x", *columns], strict=True):
        ax.set_title(name, fontsize=8)


def _picture(image: Tensor) -> Picture:
    """Colours `(h, w, 3)` in [0, 1] of an image `(c, *space)`: RGB for three channels, else the first in grey."""
    channels = image if len(image) == 3 else image[[0, 0, 0]]
    colours: Picture = (np.stack([_plane(c) for c in channels], -1).clip(-1, 1) + 1) / 2
    return colours


def _plane(values: Tensor) -> Picture:
    """The values `(*space)`, or the middle slice of a volume along its first axis."""
    plane: Picture = (values if values.ndim == 2 else values[len(values) // 2]).float().numpy()
    return plane


def power_figure(rows: Sequence[Row]) -> bytes:
    """Effect and power against the strength of the confounding as PNG, one line a strength of the object."""
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
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()

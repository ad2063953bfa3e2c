"""`figure.png` of a bench: what methods cost and are worth and what their edits look like; or the power of a test."""

import io
from collections import Counter
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
"""Cost, worth, name and colour."""

WORTH = (("error_to_truth_ratio", "oracle_validity", "validity"), ("localisation_auprc", "feature_distance", "l1"))
"""The two panels: each shows the first of these metrics that the bench knows."""
EXAMPLES = 2
"""Images shown at each depth, of different target classes where there are several."""
_PANEL, _PICTURE, _WIDTH = 4.4, 1.7, 15.0  # inches; pictures are smaller where many stand side by side
_TYPE = 8  # size of a name
_TUNED = "-tuned"
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
    results = {depth: _best_known(by_method) for depth, by_method in results.items() if by_method}
    shown = {depth: _examples(by_method) for depth, by_method in results.items()}
    columns = 1 + (cohort.x_true is not None) + max(map(len, results.values()), default=0)
    high = min(_PICTURE, _WIDTH / columns)
    heights = [h for examples in shown.values() for h in (2 * _PANEL, 2 * len(examples) * high + 0.4)]
    fig = Figure(figsize=(_WIDTH, sum(heights) or 1), layout="constrained")
    FigureCanvasAgg(fig)
    parts = iter(fig.subfigures(len(heights) or 1, 1, height_ratios=heights or [1], squeeze=False)[:, 0])
    panels: list[tuple[Axes, list[Point]]] = []
    for depth, by_method in results.items():
        panels += _panels(next(parts), [row for row in rows if row["depth"] == depth and "error" not in row], depth)
        _gallery(next(parts), by_method, shown[depth], cohort)
    fig.draw_without_rendering()  # so that it is known where in the picture a point is
    for ax, points in panels:
        named(ax, points)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def _best_known(results: Mapping[str, Counterfactuals]) -> dict[str, Counterfactuals]:
    """The results without those of methods that are there with tuned settings too."""
    return {name: result for name, result in results.items() if f"{name}{_TUNED}" not in results}


def _panels(fig: SubFigure, rows: Sequence[Row], depth: str) -> list[tuple[Axes, list[Point]]]:
    """Cost against worth, twice, and what has to be named in each."""
    fig.suptitle(f"Depth {depth}", fontsize=12, weight="bold")
    panels: list[tuple[Axes, list[Point]]] = []
    for ax, metrics in zip(fig.subplots(2, 1), WORTH, strict=True):
        shown = next(m for m in metrics if any(m in row for row in rows))
        panels.append((ax, _scatter(ax, [row for row in rows if shown in row], shown)))
        ax.set_ylabel(metric(shown).axis, fontsize=9)
    return panels


def _scatter(ax: Axes, rows: Sequence[Row], name: str) -> list[Point]:
    """One point a method with its interval, filled where it is tuned; the reference rows as lines. What to name."""
    methods = [row for row in rows if row["method"] not in _REFERENCES]
    spans = [row[f"{name}_{end}"] for row in methods for end in ("low", "high")]
    spans += [row[name] for row in rows if row["method"] == "identity"]
    room = 0.08 * (max(spans) - min(spans)) or 0.1
    ax.set_ylim(min(spans) - room, max(spans) + room)
    keys = list(dict.fromkeys(row["method"].removesuffix(_TUNED) for row in methods))
    most = Counter(row["n"] for row in methods).most_common(1)[0][0] if methods else 0
    points: list[Point] = []
    for row in methods:
        x, y = row["nfe_unet_forward"] + row["nfe_unet_backward"], row[name]
        i = keys.index(row["method"].removesuffix(_TUNED))
        colour = colormaps["tab20"](2 * i % 20 + i // 10 % 2)
        away = [[y - row[f"{name}_low"]], [row[f"{name}_high"] - y]]
        face = colour if row.get("tuned") else "white"
        ax.errorbar(x, y, away, fmt="o", color=colour, mfc=face, mew=1.5, ms=7, capsize=2.5, elinewidth=0.8)
        points.append((x, y, row["method"] if row["n"] == most else f"{row['method']} (n={row['n']})", colour))
    for row in rows:
        if row["method"] in _REFERENCES:
            _reference(ax, row["method"], row[name])
    if all(x > 0 for x, *_ in points):
        ax.set_xscale("log")
    else:
        ax.set_xscale("symlog", linthresh=1)  # methods without a generator cost none
        ax.set_xlim(left=-0.4)
    ax.set_xlim(right=2.5 * max([1.0, *(x for x, *_ in points)]))
    filled = "; filled: tuned, open: as published" if any(row.get("tuned") for row in methods) else ""
    ax.set_xlabel(f"generator evaluations and back-propagations an image (log); n = {most}{filled}", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25)
    return points


def _reference(ax: Axes, name: str, y: float) -> None:
    """A line across the panel with its name at the right edge; where it would lie outside, its name and value."""
    colour, style = _REFERENCES[name]
    bottom, top = ax.get_ylim()
    inside = bottom <= y <= top
    if inside:
        ax.axhline(y, color=colour, linestyle=style, linewidth=1)
    ax.annotate(
        name if inside else f"{name}: {y:.2f}, outside",
        xy=(1.0, min(max(y, bottom), top)),
        xycoords=ax.get_yaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        fontsize=8,
        va="center",
        color=colour,
        annotation_clip=False,
    )


def named(ax: Axes, points: Sequence[Point]) -> None:
    """Names beside their points, so that none covers another name or point; needs a figure that has been laid out."""
    here = ax.transData.transform([point[:2] for point in points]) if points else np.zeros((0, 2))
    unit = ax.figure.dpi / 72  # dots a point of type
    sizes = [(unit * 0.58 * _TYPE * len(name), unit * 1.05 * _TYPE) for _, _, name, _ in points]
    corners = beside(here, sizes, gap=unit * 5, box=np.array(ax.get_window_extent().extents))
    for (x, y, name, colour), at, corner in zip(points, here, corners, strict=True):
        note = ax.annotate(
            name,
            xy=(x, y),
            xytext=tuple((corner - at) / unit),
            textcoords="offset points",
            fontsize=_TYPE,
            va="bottom",
            color=tuple(0.7 * np.array(colour[:3])),
        )
        note.set_in_layout(False)


def beside(
    points: NDArray[np.floating[Any]],
    sizes: Sequence[tuple[float, float]],
    *,
    gap: float,
    box: NDArray[np.floating[Any]],
) -> list[NDArray[np.floating[Any]]]:
    """Lower left corners of names beside their points: each the first place around its point that covers least.

    Args:
        points: Where the points are, `(n, 2)`.
        sizes: Width and height of each name.
        gap: Between a point and its name, and around a point.
        box: x0, y0, x1, y1 that the names should stay within.

    Returns:
        A corner for each.
    """
    taken = [np.concatenate([p - gap, p + gap]) for p in points]
    corners: list[NDArray[np.floating[Any]]] = [np.zeros(2)] * len(points)
    for k in np.argsort([p[0] for p in points], kind="stable")[::-1]:  # those at the right edge have least choice
        (w, h), others = sizes[k], taken[:k] + taken[k + 1 :]
        offsets = [
            (side, level * (h + gap / 2) - h / 2)
            for far in range(4)
            for level in ((0,) if far == 0 else (far, -far))
            for side in (gap * 1.3, -w - gap * 1.3, -w / 2)
            if level or side != -w / 2
        ]
        places = [np.concatenate([points[k] + o, points[k] + o + (w, h)]) for o in offsets]
        best = min(places, key=lambda place: _covered(place, others, box))
        corners[k] = best[:2]
        taken.append(best)
    return corners


def _covered(
    place: NDArray[np.floating[Any]], others: Sequence[NDArray[np.floating[Any]]], box: NDArray[np.floating[Any]]
) -> float:
    """Area of a rectangle that others cover, and ten times what is outside the box."""

    def shared(other: NDArray[np.floating[Any]]) -> float:
        return float(np.clip(np.minimum(place[2:], other[2:]) - np.maximum(place[:2], other[:2]), 0, None).prod())

    return sum(map(shared, others)) + 10 * (float((place[2:] - place[:2]).prod()) - shared(box))


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
        ax.set_title(name.replace(_TUNED, "\ntuned"), fontsize=7)


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

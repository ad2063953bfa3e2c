"""`figure.png` of a bench of mask samplers: speed against worth, then readers against samples, a line a method."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from numpy.typing import NDArray
from torch import Tensor

from cfx.commands.bench.figure import Point, named
from cfx.commands.bench.segmentation_rows import Answer
from cfx.core.cohort import Cohort
from cfx.display.catalogue import metric
from cfx.display.images import array, centre, flat
from cfx.segmentation.metrics import diversity

Row = Mapping[str, Any]
Pixels = NDArray[np.floating[Any]]
EXAMPLES, SHOWN = 3, 4
"""Images, and masks of each."""
_CELL, _PANEL, _GAP = 0.92, 4.0, 0.35  # inches
_LEAST = 12  # pixels round the masks' middle that are shown at least
_INK = "#e0442f"
_TYPE = 0.04  # height of a name, of the panel's
_WORDS = (
    "Of each image: what readers drew, and the first masks of every method. The first column has the image, below it "
    "the share of a method's masks that have a pixel."
)


def draw(rows: Sequence[Row], answers: Mapping[str, Answer | str], cohort: Cohort, *, dpi: int = 130) -> bytes:
    """The figure as PNG.

    Args:
        rows: The rows of `results.json`.
        answers: What every method drew, or why it could not.
        cohort: The images, with their readers' masks.
        dpi: Dots per inch.
    """
    assert cohort.readings is not None
    done = {name: a for name, a in answers.items() if isinstance(a, Answer)}
    few = min((len(a.masks) for a in done.values()), default=len(cohort))
    shown = examples(cohort.readings[:few] != 0)
    height = _CELL * (1 + len(done)) + 0.5
    fig = Figure(figsize=(_CELL * (SHOWN + 1) * EXAMPLES + 2.2, _PANEL + height), layout="constrained")
    FigureCanvasAgg(fig)
    above, below = fig.subfigures(2, 1, squeeze=False, height_ratios=[_PANEL, height])[:, 0]
    panels = _panels(above, [row for row in rows if "error" not in row])
    _gallery(below, {"readers": cohort.readings} | {name: a.masks for name, a in done.items()}, cohort, shown)
    fig.draw_without_rendering()  # so that it is known where in the picture a point is
    for ax, points in panels:
        named(ax, points)
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()


def examples(readings: Tensor) -> list[int]:
    """A few images, from readers who agree to readers who do not, of those on which any drew something."""
    drawn = readings.flatten(1).any(1).nonzero().flatten()
    order = drawn[diversity(readings[drawn]).argsort(stable=True)].tolist() if len(drawn) else []
    return [order[round((len(order) - 1) * share)] for share in (0.2, 0.5, 0.8)] if order else []


def _panels(fig: SubFigure, rows: Sequence[Row]) -> list[tuple[Axes, list[Point]]]:
    """Masks a second against the debiased distance and against CI; controls, which have no speed, are lines."""
    panels: list[tuple[Axes, list[Point]]] = []
    for ax, name in zip(fig.subplots(1, 2), ("ged_debiased", "ci_4"), strict=True):
        panels.append((ax, _scatter(ax, [row for row in rows if row.get(name) is not None], name)))
    return panels


def _scatter(ax: Axes, rows: Sequence[Row], name: str) -> list[Point]:
    points: list[Point] = []
    for i, row in enumerate(row for row in rows if not row["control"]):
        colour = (0.0, 0.0, 0.0, 1.0) if i == 0 else colormaps["tab10"]((i - 1) % 10)
        x, y = row["samples_per_second"], row[name]
        ends = np.clip([[y - row[f"{name}_low"]], [row[f"{name}_high"] - y]], 0, None)
        ax.errorbar(x, y, ends, fmt="o", color=colour, ms=7, capsize=2.5, elinewidth=0.8)
        points.append((x, y, row["method"], colour))
    _controls(ax, {row["method"]: row[name] for row in rows if row["control"]})
    ax.set_xscale("log")
    ax.margins(x=0.15)
    ax.set_xlabel("masks a second (log)", fontsize=9)
    ax.set_ylabel(metric(name).axis, fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25)
    return points


def _controls(ax: Axes, values: Mapping[str, float]) -> None:
    """Lines with their names at the right edge, one above the other where they lie close."""
    for y in values.values():
        ax.axhline(y, color="0.6", linewidth=0.8, linestyle="--")
    bottom, top = ax.get_ylim()
    last = -np.inf
    for name, y in sorted(values.items(), key=lambda item: item[1]):
        last = max((y - bottom) / (top - bottom), last + _TYPE)
        ax.text(1, last, f" {name}", transform=ax.transAxes, fontsize=7, va="center", color="0.4")


def _gallery(fig: SubFigure, drawn: Mapping[str, Tensor], cohort: Cohort, shown: Sequence[int]) -> None:
    """A line for the readers and one a method; of each image first a map, then a few masks."""
    if not shown:
        return
    fig.suptitle(_WORDS, fontsize=9)
    axes = fig.subplots(len(drawn), (SHOWN + 1) * len(shown), squeeze=False)
    for k, image in enumerate(shown):
        at = slice(k * (SHOWN + 1), (k + 1) * (SHOWN + 1))
        for line, (name, masks) in zip(axes, drawn.items(), strict=True):
            _line(list(line[at]), name, masks[image] != 0, cohort, image)
    for line, name in zip(axes, drawn, strict=True):
        line[0].set_ylabel(name, fontsize=8, rotation=0, ha="right", va="center")


def _line(axes: Sequence[Axes], name: str, masks: Tensor, cohort: Cohort, image: int) -> None:
    """The image beside the readers, the share of samples beside a method; then masks on the image."""
    assert cohort.readings is not None
    every = array((cohort.readings[image] != 0).float())
    middle = centre(every.sum(0))
    window = _window(flat(every.max(0), middle))
    picture = flat(array(cohort.x[image, 0]), middle)[window]
    for ax in axes:
        ax.set(xticks=[], yticks=[])
    if name == "readers":
        axes[0].imshow(picture, cmap="gray", vmin=-1, vmax=1)
    else:
        axes[0].imshow(flat(array(masks.float()).mean(0), middle)[window], cmap="magma", vmin=0, vmax=1)
    for ax, mask in zip(axes[1:], masks[: len(axes) - 1], strict=False):
        ax.imshow(picture, cmap="gray", vmin=-1, vmax=1)
        inside = np.nan_to_num(flat(array(mask.float()), middle)[window])
        if 0 < inside.mean() < 1:
            ax.contour(inside, levels=[0.5], colors=_INK, linewidths=1.2)


def _window(there: Pixels) -> tuple[slice, slice]:
    """The part of a picture round what readers drew, as wide as it is high, with as much again round it."""
    rows, columns = np.nonzero(np.nan_to_num(there) > 0)
    reach = max(_LEAST, int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1)
    middle = [int(v.min() + v.max()) // 2 for v in (rows, columns)]
    first = [max(0, min(m - reach, n - 2 * reach)) for m, n in zip(middle, there.shape, strict=True)]
    return slice(first[0], first[0] + 2 * reach), slice(first[1], first[1] + 2 * reach)

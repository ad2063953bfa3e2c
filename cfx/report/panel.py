"""A figure of a few rows, for a README or a paper."""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from numpy.typing import NDArray

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.counterfactual.result import Counterfactuals
from cfx.display.images import DIVERGING, diagonals
from cfx.report.cards import Line, check_cohort, gap, layers, limit_of, lines, outlines, parted
from cfx.runtime.files import write_whole

# Inches: between pictures, for the colour bar, for the captions, and for the line of text over a row.
GAP, BAR, HEAD, LINE = 0.06, 0.72, 0.24, 0.26
LIGHT: list[AbstractPathEffect] = [withStroke(linewidth=1.6, foreground="white", alpha=0.65)]
"""Under dark lines, which have to be seen on the ends of the scale too."""
COLOURS = {"edit": "#ffb000", "lesion": "#22d3ee", "read": "#16191d", "rest": "#16191d"}


def panel(
    result: Counterfactuals, cohort: Cohort | None, rows: Sequence[int], path: str | os.PathLike[str], *, dpi: int = 150
) -> Path:
    """Write a PNG: one line of pictures a row, differences on one symmetric scale.

    Of a change the part that the classifier reads is outlined and the rest hatched, where that is known.

    Args:
        result: The result, 2D or 3D.
        cohort: The cohort of the same rows (names, truth), or None.
        rows: Positions in the result to show.
        path: File to write; its folder is created.
        dpi: Dots per inch.

    Returns:
        The path written.

    Raises:
        InputError: no rows, or a cohort of other rows.
        CfxError: the file cannot be written.
    """
    if not len(rows):
        raise InputError("rows: expected at least one position, got none")
    check_cohort(result, cohort)
    kept, inputs = result[list(rows)], cohort[list(rows)] if cohort is not None else None
    buffer = io.BytesIO()
    figure(kept, inputs).savefig(buffer, format="png", dpi=dpi, facecolor="white")
    write_whole(Path(path), buffer.getvalue())
    return Path(path)


def figure(result: Counterfactuals, cohort: Cohort | None) -> Figure:
    """The figure of `panel`, for all rows of a result, laid out in inches."""
    limit = limit_of(result, cohort)
    rows = [layers(result, cohort, i, limit) for i in range(len(result))]
    height, width = next(iter(rows[0].values())).shape[:2]
    high = 1.7 if width <= height * 1.6 else 1.1
    wide = high * width / height
    size = (len(rows[0]) * (wide + GAP) + BAR, HEAD + len(rows) * (high + LINE))
    fig = Figure(figsize=size)
    FigureCanvasAgg(fig)
    for i, (row, line) in enumerate(zip(rows, lines(result, cohort), strict=True)):
        top = HEAD + i * (high + LINE) + LINE
        fig.text(GAP / size[0], 1 - (top - 0.06) / size[1], said(line), fontsize=7.5, color="#333333")
        for j, (caption, colours) in enumerate(row.items()):
            left = GAP + j * (wide + GAP)
            ax = fig.add_axes((left / size[0], 1 - (top + high) / size[1], wide / size[0], high / size[1]))
            ax.imshow(colours, interpolation="nearest")
            ax.set_axis_off()
            if i == 0:
                fig.text(
                    (left + wide / 2) / size[0], 1 - HEAD / size[1], caption, ha="center", fontsize=9, weight="bold"
                )
            if caption == "Input":
                _draw_masks(ax, outlines(result, cohort, i), gap(result))
            elif caption == "Change":
                _draw_masks(ax, parted(result, i), gap(result))
    _draw_bar(fig, limit, size, high)
    return fig


def _draw_masks(ax: Axes, masks: Mapping[str, NDArray[np.bool_]], spacing: int) -> None:
    """Outline every mask, and hatch the rest of a change."""
    for kind, mask in masks.items():
        if kind == "rest":
            # corners of pixels, while matplotlib counts from their middles
            ends = [[(x - 0.5, y - 0.5), (x + n - 0.5, y - n - 0.5)] for x, y, n in diagonals(mask, spacing)]
            hatching = LineCollection(ends, colors=COLOURS[kind], linewidths=0.35, path_effects=LIGHT)
            ax.add_collection(hatching, autolim=False)
        elif mask.any():
            drawn = ax.contour(mask, levels=[0.5], colors=COLOURS[kind], linewidths=0.9)
            if kind == "read":
                drawn.set_path_effects(LIGHT)


def _draw_bar(fig: Figure, limit: float, size: tuple[float, float], high: float) -> None:
    """The scale of all differences, beside the first row."""
    top = HEAD + LINE
    ax = fig.add_axes(((size[0] - BAR + 0.15) / size[0], 1 - (top + high) / size[1], 0.1 / size[0], high / size[1]))
    bar = fig.colorbar(ScalarMappable(Normalize(-limit, limit), DIVERGING), cax=ax, ticks=[-limit, 0, limit])
    bar.outline.set_linewidth(0.4)
    ax.set_yticklabels([f"-{limit:.2g}", "0", f"+{limit:.2g}"], fontsize=7)
    ax.tick_params(length=2, width=0.4)


def said(line: Line) -> str:
    """One row in a few words."""
    oracle = "" if line.oracle_after == "-" else f", oracle {line.oracle_before} to {line.oracle_after}"
    read = f"; {line.parts.word}, reads {line.parts.share}" if line.parts.word else ""
    return f"{line.id}: {line.source} to {line.target}, {line.verdict}; p {line.before} to {line.after}{oracle}{read}"

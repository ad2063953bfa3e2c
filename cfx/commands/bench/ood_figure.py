"""`figure.png` and `maps.png` of a bench of detectors: the ladder as a dot plot, cost against AUROC, maps by images."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cfx.commands.bench.figure import Point, named
from cfx.core.cohort import Cohort
from cfx.core.statistics import wilson_interval
from cfx.display.images import array, flat
from cfx.ood import OodScores

Row = Mapping[str, Any]
KINDS = ("tolerated", "beyond", "near", "far")
_TITLES = {
    "tolerated": "inside the cohort's range: to be tolerated",
    "beyond": "covariates beyond it: to be found",
    "near": "near: to be found",
    "far": "far: to be found",
}
_LINE, _WIDTH = 0.30, 15.0  # inches
_EXAMPLES = 6  # shifts of which maps are shown


def draw(rows: Sequence[Row], *, dpi: int = 110) -> bytes:
    """The figure as PNG: one panel a kind of shift, one line a shift, one dot a method; below, cost against AUROC.

    Args:
        rows: The rows of `results.json`.
        dpi: Dots per inch.
    """
    done = [row for row in rows if "error" not in row]
    groups = {kind: shifts_of(done, kind) for kind in KINDS}
    left, right = (sum(len(groups[k]) for k in half) for half in (KINDS[:2], KINDS[2:]))
    height = (_LINE + 0.008 * len(done)) * max(left, right, 4) + 1.6
    fig = Figure(figsize=(_WIDTH, height + 5.2), layout="constrained")
    FigureCanvasAgg(fig)
    above, below = fig.subfigures(2, 1, squeeze=False, height_ratios=[height, 5.2])[:, 0]
    halves = above.subfigures(1, 2, squeeze=False)[0]
    for half, kinds in zip(halves, (KINDS[:2], KINDS[2:]), strict=True):
        some = [kind for kind in kinds if groups[kind]]
        if some:
            panels = half.subplots(len(some), 1, squeeze=False, height_ratios=[len(groups[k]) + 1 for k in some])[:, 0]
            for ax, kind in zip(panels, some, strict=True):
                _ladder(ax, done, groups[kind], kind)
    above.legend(handles=_legend(done), loc="outside upper center", ncols=6, frameon=False, fontsize=9)
    panels = below.subplots(1, 2)
    points = [_cost(ax, done, key) for ax, key in zip(panels, ("nfe_unet_forward", "seconds_per_image"), strict=True)]
    fig.draw_without_rendering()  # so that it is known where in the picture a point is
    for ax, some_points in zip(panels, points, strict=True):
        named(ax, some_points)
    return _png(fig, dpi)


def shifts_of(rows: Sequence[Row], kind: str) -> list[str]:
    """Names of the shifts of a kind, in the order of the ladder."""
    keys = dict.fromkeys(key for row in rows for key, value in row.items() if key.endswith(".kind") and value == kind)
    return [key.removeprefix("shift.").removesuffix(".kind") for key in keys]


def _colour(i: int) -> Any:  # noqa: ANN401 - a colour of matplotlib
    """The first method is black, the others have colours of their own."""
    return "black" if i == 0 else colormaps["tab20"]((2 * (i - 1)) % 20 + (i - 1) // 10 % 2)


def _ladder(ax: Axes, rows: Sequence[Row], shifts: Sequence[str], kind: str) -> None:
    """One line a shift; the dots of the methods of a line lie one below the other."""
    step = min(0.2, 0.7 / max(1, len(rows) - 1))
    for i, row in enumerate(rows):
        for j, shift in enumerate(shifts):
            value, low, high = _value(row, shift, kind)
            y = -j + step * ((len(rows) - 1) / 2 - i)
            size = 5.5 if i == 0 else 3.5
            ax.plot(
                [low, high], [y, y], color=_colour(i), linewidth=1.6 if i == 0 else 0.7, alpha=1.0 if i == 0 else 0.5
            )
            ax.plot(value, y, "o", color=_colour(i), markersize=size, zorder=3)
    for j in range(len(shifts) + 1):
        ax.axhline(0.5 - j, color="0.9", linewidth=0.6, zorder=0)
    marks = [f"{shift} *" if rows and rows[0].get(f"shift.{shift}.development") else shift for shift in shifts]
    ax.set_yticks([-j for j in range(len(shifts))], marks, fontsize=8)
    ax.set_ylim(0.5 - len(shifts), 0.5)
    ax.tick_params(axis="x", labelsize=8)
    ax.set_title(_TITLES[kind], fontsize=10, loc="left", weight="bold")
    if kind == "tolerated":
        ax.axvline(rows[0]["level"] if rows else 0.05, color="0.4", linestyle="--", linewidth=1)
        ax.set_xlim(-0.01, None)
        ax.set_xlabel("share called out (dashed: the level)", fontsize=8)
    else:
        ax.axvline(0.5, color="0.4", linestyle="--", linewidth=1)
        ax.set_xlim(-0.02, 1.02)
        ax.set_xlabel("AUROC (dashed: a coin); * for development", fontsize=8)


def _value(row: Row, shift: str, kind: str) -> tuple[float, float, float]:
    """What a method is shown with for a shift, and its interval."""
    key = f"shift.{shift}"
    if kind == "tolerated":
        share = row[f"{key}.out"]
        return (share, *wilson_interval(share, row[f"{key}.n"]))
    return row[f"{key}.auroc"], row[f"{key}.auroc_low"], row[f"{key}.auroc_high"]


def _legend(rows: Sequence[Row]) -> list[Any]:
    from matplotlib.lines import Line2D

    return [
        Line2D([], [], color=_colour(i), marker="o", markersize=6, linewidth=1, label=row["method"])
        for i, row in enumerate(rows)
    ]


def _cost(ax: Axes, rows: Sequence[Row], key: str) -> list[Point]:
    """Cost against the mean AUROC over near shifts; what to name."""
    known = [(i, row) for i, row in enumerate(rows) if row.get("auroc_near") is not None]
    points: list[Point] = []
    for i, row in known:
        x, y = row[key], row["auroc_near"]
        colour = colormaps["Greys"](1.0) if i == 0 else _colour(i)
        ends = [[y - row["auroc_near_low"]], [row["auroc_near_high"] - y]]
        ax.errorbar(x, y, np.clip(ends, 0, None), fmt="o", color=colour, ms=7, capsize=2.5, elinewidth=0.8)
        points.append((x, y, row["method"], colour))
    ax.set_xscale("symlog", linthresh=1 if key == "nfe_unet_forward" else 1e-4)
    ax.set_xlim(left=0 if key != "nfe_unet_forward" else -0.4, right=3 * max([1e-3, *(x for x, *_ in points)]))
    what = {"nfe_unet_forward": "U-Net evaluations an image", "seconds_per_image": "seconds an image"}[key]
    ax.set_xlabel(f"{what} (log)", fontsize=9)
    ax.set_ylabel("mean AUROC over near shifts", fontsize=9)
    ax.tick_params(labelsize=8)
    ax.grid(alpha=0.25)
    return points


@dataclass
class Shown:
    """One image a shift with what was planted in it, and every method's map of it."""

    images: dict[str, tuple[Float[Tensor, "c *space"], Float[Tensor, "1 *space"]]] = field(default_factory=dict)
    maps: dict[str, dict[str, Float[Tensor, "1 *space"]]] = field(default_factory=dict)

    def add(self, shift: str, method: str, cohort: Cohort, found: OodScores) -> None:
        """Take up the map of the first image in which something was planted."""
        assert cohort.lesion is not None
        there = cohort.lesion[: len(found)].flatten(1).any(1).nonzero().flatten()
        if found.map is not None and len(there):
            k = int(there[0])
            self.images[shift] = (cohort.x[k], cohort.lesion[k].float())
            self.maps.setdefault(shift, {})[method] = found.map[k]

    def picture(self, methods: Sequence[str], *, dpi: int = 110) -> bytes | None:
        """A line a shift: the image, what was planted, the methods' maps; None where no method has one."""
        columns = [m for m in methods if any(m in maps for maps in self.maps.values())]
        shifts = list(self.maps)[:_EXAMPLES]
        if not columns:
            return None
        fig = Figure(figsize=(1.55 * (2 + len(columns)), 1.7 * len(shifts) + 0.3), layout="constrained")
        FigureCanvasAgg(fig)
        axes = fig.subplots(len(shifts), 2 + len(columns), squeeze=False)
        for line, shift in enumerate(shifts):
            self._line(list(axes[line]), shift, columns)
        for ax, name in zip(axes[0], ["image", "planted", *columns], strict=True):
            ax.set_title(name, fontsize=8)
        return _png(fig, dpi)

    def _line(self, axes: Sequence[Axes], shift: str, columns: Sequence[str]) -> None:
        x, truth = self.images[shift]
        middle = tuple(int(v) for v in truth[0].nonzero().float().mean(0))
        for ax in axes:
            ax.set(xticks=[], yticks=[])
        axes[0].set_ylabel(shift, fontsize=8)
        axes[0].imshow(flat(array(x)[0], middle), cmap="gray", vmin=-1, vmax=1)
        axes[1].imshow(flat(array(truth)[0], middle), cmap="gray", vmin=0, vmax=1)
        for ax, name in zip(axes[2:], columns, strict=True):
            found = self.maps[shift].get(name)
            if found is None:
                ax.set_axis_off()
                continue
            low, high = np.quantile(array(found), [0.5, 0.998])
            ax.imshow(flat(array(found)[0], middle), cmap="magma", vmin=low, vmax=high)


def _png(fig: Figure, dpi: int) -> bytes:
    buffer = io.BytesIO()
    fig.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    return buffer.getvalue()

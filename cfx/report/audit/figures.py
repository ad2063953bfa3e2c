"""Figures of the audit page, as PNG in `data:` addresses."""

import base64
import io
from collections.abc import Mapping, Sequence

from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cfx.confounder.intervention import OPPOSITE, SAME
from cfx.confounder.reliance import Reliance
from cfx.core.crossed import Effect
from cfx.display.images import array, flat

INK, BAND, HIT, MISS = "#2457c5", "#dfe3e8", "#a3182d", "#5b6470"


def uri(figure: Figure) -> str:
    """A figure as a `data:` address."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, facecolor="white")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def blank(width: float, height: float) -> Figure:
    """An empty figure, inches."""
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def effects(found: Reliance) -> str:
    """Forest plot of what every arm does, the effect itself on top, the margin as a band; and one dot a network."""
    rows: list[tuple[str, Effect]] = [("effect: opposite - same", found.effect), *found.arms.items()]
    figure = blank(9.0, 0.8 + 0.34 * len(rows))
    left, right = figure.subplots(1, 2, width_ratios=(3, 1.1))
    left.axvspan(-found.margin, found.margin, color=BAND, linewidth=0, label="margin")
    for i, (_, e) in enumerate(rows):
        colour = HIT if i == 0 else INK
        left.plot([e.low, e.high], [-i, -i], color=colour, linewidth=2)
        left.plot(e.value, -i, "o", color=colour)
    left.axvline(0, color="0.6", linewidth=0.8)
    left.set_yticks([-i for i in range(len(rows))], [name.replace("_", " ") for name, _ in rows])
    left.set(xlabel=f"change of the score towards the other class ({found.unit})")
    seeds = found.by_seed.tolist()
    right.axhspan(-found.margin, found.margin, color=BAND, linewidth=0)
    right.plot(range(len(seeds)), seeds, "o", color=HIT)
    right.axhline(0, color="0.6", linewidth=0.8)
    right.set(
        xlabel="network", ylabel=f"effect ({found.unit})", xticks=range(len(seeds)), xlim=(-0.6, len(seeds) - 0.4)
    )
    return uri(figure)


def doses(curve: Mapping[float, Effect], unit: str = "logits") -> str:
    """Score against the dose of the other class's confounder; 0 at dose 0, by definition."""
    figure = blank(5.0, 3.0)
    axes = figure.subplots()
    t = [0.0, *curve]
    middle, low, high = ([0.0, *(getattr(e, k) for e in curve.values())] for k in ("value", "low", "high"))
    axes.fill_between(t, low, high, color=INK, alpha=0.15, linewidth=0)
    axes.plot(t, middle, "o-", color=INK)
    axes.axhline(0, color="0.6", linewidth=0.8)
    axes.set(xlabel="dose", ylabel=f"change of the score ({unit})", xticks=t)
    return uri(figure)


def gallery(arms: Mapping[str, Float[Tensor, "b c *space"]], titles: Sequence[str]) -> str:
    """Some images in every arm, one line an image; the last column is opposite minus same."""
    images = {name: array(x) for name, x in arms.items()}
    change = images[OPPOSITE] - images[SAME]
    count, columns = len(change), len(images) + 1
    figure = blank(1.35 * columns, 1.5 * count + 0.2)
    axes = figure.subplots(count, columns, squeeze=False)
    middle = tuple(n // 2 for n in change.shape[2:])
    for i in range(count):
        for j, (name, x) in enumerate(images.items()):
            axes[i, j].imshow(flat(x[i, 0], middle), cmap="gray", vmin=-1, vmax=1)
            axes[i, j].set_title(name.replace("_", " ") if i == 0 else "", fontsize=8)
        axes[i, -1].imshow(flat(change[i].mean(0), middle), cmap="RdBu_r", vmin=-1, vmax=1)
        axes[i, -1].set_title("opposite - same" if i == 0 else "", fontsize=8)
        axes[i, 0].set_ylabel(titles[i], fontsize=8)
    for a in axes.flat:
        a.set(xticks=[], yticks=[])
    return uri(figure)


def love(rows: Sequence[tuple[str, float, float, float, bool]]) -> str:
    """Love plot: (variable, standardised difference, low, high, differs) of every variable, largest first."""
    figure = blank(6.5, 0.8 + 0.26 * len(rows))
    axes = figure.subplots()
    axes.axvspan(-0.1, 0.1, color=BAND, linewidth=0)
    for i, (_, value, low, high, differs) in enumerate(rows):
        colour = HIT if differs else MISS
        axes.plot([low, high], [-i, -i], color=colour, linewidth=1.5)
        axes.plot(value, -i, "o", color=colour, markersize=5)
    axes.axvline(0, color="0.6", linewidth=0.8)
    axes.set_yticks([-i for i in range(len(rows))], [name for name, *_ in rows], fontsize=8)
    axes.set(xlabel="standardised difference of the classes")
    return uri(figure)

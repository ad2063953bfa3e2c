"""Figures of the page, as PNG in `data:` addresses."""

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from torch import Tensor

from cfx.display.images import Pixels, array, data_uri, flat
from cfx.report.audit.figures import HIT, INK, blank, uri

_BINS = 30
MAP = "magma"
"""Colours of a map, low to high."""


def against(calibration: Float[Tensor, " m"], score: Float[Tensor, " n"], threshold: float | None, calm: float) -> str:
    """Histogram of the scores that were calibrated on and, below it, of those that were asked about.

    Args:
        calibration: Scores of in-distribution images.
        score: Scores of the images.
        threshold: Scores above it are out; None where nothing can be.
        calm: Scores up to here are shown on a linear axis, those far beyond gathered at its end.
    """
    figure = blank(10.2, 3.6)
    above, below = figure.subplots(2, 1, sharex=True)
    low = min(float(calibration.min()), float(score.min()))
    edges = np.linspace(low, calm, _BINS + 1) if calm > low else np.linspace(low - 0.5, low + 0.5, _BINS + 1)
    for axes, values, colour, name in (
        (above, calibration, INK, f"{len(calibration)} calibration images"),
        (below, score, HIT, f"{len(score)} images asked about"),
    ):
        axes.hist(np.clip(array(values), edges[0], edges[-1]), bins=edges, color=colour, alpha=0.85, label=name)
        if threshold is not None and threshold <= edges[-1]:
            axes.axvline(threshold, color="0.35", linewidth=1.2, linestyle="--")
        axes.legend(frameon=False, loc="upper center", fontsize=9)
        axes.set_ylabel("images", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    beyond = int((score > edges[-1]).sum())
    more = f"; the last bar holds {beyond} beyond" if beyond else ""
    below.set_xlabel(f"score (higher is more out of distribution){more}; dashed: threshold", fontsize=9)
    return uri(figure)


def limits(maps: Float[Tensor, "n 1 *space"]) -> tuple[float, float]:
    """Common ends of the colours of many maps: their median, and their 99.8 % quantile."""
    values = array(maps).ravel()
    low, high = np.quantile(values[np.isfinite(values)], [0.5, 0.998]).tolist()
    return low, max(high, low + 1e-9)


def coloured(values: Float[Tensor, "1 *space"], at: tuple[int, ...], ends: tuple[float, float]) -> str:
    """A map as a picture in a `data:` address."""
    plane = flat(array(values)[0], at)
    low, high = ends
    colours: Pixels = colormaps[MAP](((np.nan_to_num(plane) - low) / (high - low)).clip(0, 1)).astype(np.float32)
    colours[..., 3] = np.isfinite(plane)
    return data_uri(colours)


def scale() -> str:
    """The colours of a map, low to high, as a one-row picture."""
    return data_uri(colormaps[MAP](np.linspace(0, 1, 256))[None].astype(np.float32))

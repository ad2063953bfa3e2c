"""`figure.png` of a bench of attributions: maps over their images, red for the target, blue against, zero white."""

import io
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.display.images import array, centre, overlaid, picture

_ACROSS, _SIDE = 9, 1.5  # panels, inches


def draw(cohort: Cohort, maps: Mapping[str, Float[Tensor, "n m *space"]], *, dpi: int = 110) -> bytes:
    """The figure as PNG: a line of panels an image, the image first and a map of every method beside it.

    Each map has its own scale, since methods have none in common.

    Args:
        cohort: The images.
        maps: Maps of the first of them, by method.
        dpi: Dots per inch.
    """
    few = min(len(next(iter(maps.values()))), len(cohort))
    lines = -(-(len(maps) + 1) // _ACROSS)
    fig = Figure(figsize=(_ACROSS * _SIDE, few * lines * (_SIDE + 0.25)), layout="constrained")
    FigureCanvasAgg(fig)
    panels = fig.subplots(few * lines, _ACROSS, squeeze=False).reshape(few, -1)
    for ax in panels.flat:
        ax.axis("off")
    for i in range(few):
        image, place = array(cohort.x[i]), centre(array(cohort.x[i, 0] + 1))
        _panel(panels[i, 0], picture(image, place), "image" if i == 0 else "")
        for ax, (name, found) in zip(panels[i, 1:], maps.items(), strict=False):
            _panel(ax, overlaid(image, array(found[i]).sum(0), place), name if i == 0 else "")
    buffer = io.BytesIO()
    fig.savefig(buffer, dpi=dpi, format="png")
    return buffer.getvalue()


def _panel(ax: Axes, colours: np.ndarray, title: str) -> None:
    ax.imshow(colours, interpolation="nearest")
    ax.set_title(title, fontsize=7)

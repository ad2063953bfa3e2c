"""The picture of the bench `faithful`: a line a classifier, what it can read, and what each method shows of it."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from cfx.commands.bench.stock import Case
from cfx.counterfactual.result import Counterfactuals, Verdict

MOST = 10
"""Lines of the picture; of more cases every other one is left out, and so on."""
_LIMIT = 0.8  # change at which the colours end


@dataclass(frozen=True)
class Example:
    """A case, and what its first network was shown by each method."""

    case: Case
    results: Mapping[str, Counterfactuals]


def draw(examples: Sequence[Example]) -> bytes:
    """PNG of one image a case: x, the disease, and every method's change with the outline of what is read in it.

    In the first column the outline is of what the classifier can read, where that is known.
    """
    some = examples[:: max(1, -(-len(examples) // MOST))]
    methods = list(dict.fromkeys(name for example in some for name in example.results))
    figure = Figure(figsize=(1.5 * (2 + len(methods)) + 1.2, 1.5 * max(1, len(some)) + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(max(1, len(some)), 2 + len(methods), squeeze=False)
    for line, example in zip(axes, some, strict=False):
        _line(list(line), example, methods)
    for ax, name in zip(axes[0], ["x, what can be read", "the disease", *methods], strict=True):
        ax.set_title(name, fontsize=8)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=80)
    return buffer.getvalue()


def _line(axes: Sequence[Axes], example: Example, methods: Sequence[str]) -> None:
    """One case."""
    case, first = example.case, next(iter(example.results.values()))
    i = _shown(first)
    x = case.images.x[i]
    for ax in axes:
        ax.set(xticks=[], yticks=[], frame_on=False)
    axes[0].imshow(_plane(x.mean(0)), cmap="gray", vmin=-1, vmax=1)
    axes[0].set_ylabel(case.name, fontsize=8)
    _outline(axes[0], None if case.truth is None else case.truth[i], "tab:green")
    _change(axes[1], case.disease[i] - x)
    for ax, name in zip(axes[2:], methods, strict=True):
        result = example.results.get(name)
        if result is not None and i < len(result):
            _change(ax, result.x_cf[i] - x)
            _outline(ax, None if result.read is None else result.read[i], "black")


def _shown(result: Counterfactuals) -> int:
    """The first image that was changed."""
    changed = (result.verdict != Verdict.ALREADY).nonzero().flatten()
    return int(changed[0]) if len(changed) else 0


def _change(ax: Axes, e: Tensor) -> None:
    """A change, red where it is brighter."""
    ax.imshow(_plane(e.mean(0)), cmap="RdBu_r", vmin=-_LIMIT, vmax=_LIMIT, interpolation="nearest")


def _outline(ax: Axes, region: Tensor | None, colour: str) -> None:
    """The edge of a region, if there is any of it."""
    if region is None or not bool(region.any()):
        return
    plane = _plane(region[0].float())
    if plane.max() > plane.min():
        ax.contour(plane, levels=[0.5], colors=[colour], linewidths=0.8)


def _plane(values: Tensor) -> np.ndarray:
    """An image, or the middle slice of a volume along its last axis, as it is looked at."""
    plane: np.ndarray = (values if values.ndim == 2 else values[..., values.shape[-1] // 2]).float().numpy()
    return plane

"""Reliability diagrams of every task, before and after the temperature, with counts and the band of calibrated rows."""

import io
from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.calibration import reliability
from cfx.core.calibration import Reliability
from cfx.core.statistics import wilson_interval

Shown = tuple[Float[Tensor, "n k"], Float[Tensor, "n k"], Int[Tensor, " n"]]
"""Probabilities before and after, and classes."""


def diagrams(tasks: Mapping[str, Shown]) -> bytes:
    """A picture: a column a task, accuracy against confidence above, rows in each bin below.

    Args:
        tasks: What to show, by the name of the task.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(tasks), figsize=(3.4 * len(tasks), 4.4), squeeze=False, sharex="col", height_ratios=(3, 1),
        layout="constrained",
    )  # fmt: skip
    for column, (name, (before, after, y)) in enumerate(tasks.items()):
        above, below = axes[:, column]
        above.plot([0, 1], [0, 1], color="0.7", linewidth=1)
        for label, p, style in (("as trained", before, "o--"), ("after temperature", after, "o-")):
            found = reliability(p, y)
            _line(above, found, f"{label}, ECE {found.ece:.3f}", style)
            below.stairs(found.count.tolist(), found.edges.tolist())
        above.set(title=name, ylabel="accuracy" if not column else "", ylim=(0, 1))
        below.set(xlabel="confidence", ylabel="rows" if not column else "")
        above.legend(fontsize=7)
    out = io.BytesIO()
    figure.savefig(out, dpi=120)
    plt.close(figure)
    return out.getvalue()


def _line(axis: "object", found: Reliability, label: str, style: str) -> None:
    """Accuracy of the filled bins, with the interval of each."""
    some = (found.count > 0).nonzero().flatten().tolist()
    share, n = found.accuracy.tolist(), found.count.tolist()
    ends = torch.tensor([wilson_interval(share[b], n[b]) for b in some])
    away = (ends - found.accuracy[some][:, None]).abs().T
    axis.errorbar(found.confidence[some], found.accuracy[some], yerr=away, fmt=style, label=label, markersize=3)  # type: ignore[attr-defined]

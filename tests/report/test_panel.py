"""The panel shows the rows that were asked for, on one symmetric scale."""

from pathlib import Path

import matplotlib.image
import pytest
import torch

from cfx.core.cohort import Cohort
from cfx.counterfactual.result import Counterfactuals
from cfx.report import panel
from cfx.report.panel import figure


def rows(space: tuple[int, ...], low: float, high: float) -> tuple[Counterfactuals, Cohort]:
    """Two rows; the first changes by `low` in one corner and by `high` in another."""
    x = torch.zeros(2, 1, *space)
    mask = torch.zeros(2, 1, *space, dtype=torch.bool)
    x_cf = x.clone()
    first, last = (0, 0, *[1] * len(space)), (0, 0, *[-1] * len(space))
    x_cf[first], x_cf[last] = low, high
    mask[first] = mask[last] = True
    one = torch.ones(2)
    whole = torch.ones(2, dtype=torch.int64)
    probs = torch.tensor([[0.2, 0.8]] * 2)
    result = Counterfactuals(
        x, x_cf, whole, probs, probs, mask, one, one, one, 0 * whole, whole.cumsum(0),
        whole, whole, whole, whole, one, "typical", 0,
    )  # fmt: skip
    return result, Cohort(x, x_true=x_cf)


def test_figure_scale_is_symmetric_and_shared() -> None:
    result, cohort = rows((12, 10), -0.1, 0.5)
    bar = figure(result, cohort).axes[-1]
    assert bar.get_ylim() == pytest.approx((-0.5, 0.5))


@pytest.mark.parametrize("space", [(12, 10), (6, 8, 7)])
def test_panel_is_a_png(tmp_path: Path, space: tuple[int, ...]) -> None:
    result, cohort = rows(space, -0.1, 0.5)
    shown = matplotlib.image.imread(panel(result, cohort, [0, 1], tmp_path / "p.png", dpi=50))
    shorter = matplotlib.image.imread(panel(result, None, [1], tmp_path / "q.png", dpi=50))
    assert shown.shape[0] > shorter.shape[0]
    assert shown.shape[1] > shorter.shape[1]


def test_the_panel_outlines_what_is_read_and_hatches_the_rest() -> None:
    result, _ = rows((12, 10), -0.1, 0.5)
    read = torch.zeros_like(result.edited)
    read[:, :, 6:] = True
    some = torch.full((2,), 0.2)
    known = result.replace(
        read=read & result.edited, read_share=some, read_alone=some, rest_alone=some, read_error=some
    )
    (_, _, change, *_), (_, _, plain, *_) = (figure(shown, None).axes for shown in (known, result))
    assert len(change.collections) == 2
    assert len(plain.collections) == 0

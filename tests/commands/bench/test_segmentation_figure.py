"""The figure of a bench of mask samplers: images from agreement to disagreement, in a window round what was drawn."""

import numpy as np
import pytest
import torch

from cfx.commands.bench.segmentation_figure import _window, draw, examples
from cfx.commands.bench.segmentation_rows import Answer
from cfx.core.cohort import Cohort


def readings(space=(32, 32)) -> torch.Tensor:
    """Five images, the first without any mask, the others with readers who differ more and more."""
    masks = torch.zeros(5, 4, *space, dtype=torch.bool)
    for k in range(1, 5):
        masks[k, :, 8:16, 8:16] = True
        masks[k, :2, 8 : 8 + 2 * (k - 1), 8:16] = False
    return masks


def row(name: str, control: bool = False) -> dict:
    figures = dict.fromkeys(("ged_debiased", "ci_4"), 0.3)
    ends = {f"{k}_{end}": 0.3 for k in figures for end in ("low", "high")}
    return {"method": name, "n": 5, "control": control, "samples_per_second": None if control else 9.0} | figures | ends


def test_examples_go_from_agreement_to_disagreement():
    assert examples(readings()) == [2, 3, 3]  # shares .2, .5, .8 of the order 1 .. 4
    assert examples(readings()[:1]) == []


@pytest.mark.parametrize("space", [(32, 32), (16, 32, 32)])
def test_a_figure_is_drawn_in_2d_and_3d(space):
    masks = readings(space).to(torch.uint8)
    cohort = Cohort(x=torch.zeros(5, 1, *space), readings=readings(space))
    answers = {"ours": Answer(masks, (4,)), "gone": "no network", "few": Answer(masks[:3], (4,), control=True)}
    rows = [row("ours"), {"method": "gone", "n": 0, "error": "no network"}, row("few", control=True)]
    assert draw(rows, answers, cohort)[:4] == b"\x89PNG"


def test_the_window_holds_what_was_drawn():
    there = np.zeros((64, 64))
    there[2:6, 50:60] = 1
    window = _window(there)
    assert there[window].sum() == there.sum()
    assert there[window].shape == (24, 24)

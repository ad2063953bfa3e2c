"""Pictures say what the numbers say: symmetric colours, exact outlines, the right slices."""

import base64
import io
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from cfx.core.cohort import Cohort
from cfx.counterfactual.result import Counterfactuals
from cfx.display import images
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


def test_difference_colours_are_symmetric() -> None:
    change = np.linspace(-1, 1, 21, dtype=np.float32).reshape(1, 3, 7)
    colours = images.difference(change, (), 1.0)
    negated = images.difference(-change, (), 1.0)
    assert_array_equal(colours[::-1, ::-1], negated)
    white, red, blue = colours[1, 3], colours[2, 6], colours[0, 0]
    assert white[:3].min() > 0.95
    assert red[0] > red[2]
    assert blue[2] > blue[0]


@pytest.mark.parametrize(("low", "high", "limit"), [(-0.1, 0.3, 0.3), (-0.42, 0.1, 0.42), (0, 0, 1.0)])
def test_one_symmetric_limit(low: float, high: float, limit: float) -> None:
    changes = [np.array([[[low, high]]], np.float32), np.zeros((1, 1, 5), np.float32)]
    assert images.symmetric_limit(changes) == pytest.approx(limit)


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


def test_outline_encloses_exactly_the_mask() -> None:
    """Walking each row, an odd number of vertical edges to the left means inside."""
    mask = np.random.default_rng(0).random((9, 7)) < 0.4
    path = images.outline(mask)
    inside = np.zeros_like(mask)
    for piece in path.split("M")[1:]:
        start, sep, end = piece.partition("V")
        if sep:
            column, top = (int(v) for v in start.split())
            inside[top : int(end), column:] ^= True
    assert_array_equal(inside, mask)
    assert images.outline(np.ones((4, 6), bool)) == "M0 0H6M0 4H6M0 0V4M6 0V4"


def test_slices_go_through_the_centre_of_the_edit() -> None:
    change = np.zeros((6, 8, 7), np.float32)
    change[4, 2, 5] = -0.5
    assert images.centre(change) == (4, 2, 5)
    assert images.centre(0 * change) == (3, 4, 3)
    picture = images.flat(change, (4, 2, 5))
    assert picture.shape == (8, 7 + 7 + 8 + 2 * images.GAP)
    assert (picture == -0.5).sum() == 3
    assert np.isnan(picture[:, 7 : 7 + images.GAP]).all()


def test_data_uri_is_the_picture() -> None:
    image = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    uri = images.data_uri(images.picture(image, ()))
    back = matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.partition(",")[2])))
    np.testing.assert_allclose(back[..., 0] * 2 - 1, image[0], atol=1 / 255)
    assert (back[..., 3] == 1).all()

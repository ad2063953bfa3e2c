"""Figures of the audit page: what is drawn stands where the numbers say."""

import base64
import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from matplotlib import image
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from cfx.confounder.intervention import OPPOSITE, SAME
from cfx.core.crossed import Effect
from cfx.report.audit import figures
from tests.report.audit.hand_made import audited


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Figure]]:
    """The figures that were drawn, before they became pictures."""
    found: list[Figure] = []
    make = figures.uri

    def keep(figure: Figure) -> str:
        found.append(figure)
        return make(figure)

    monkeypatch.setattr(figures, "uri", keep)
    return found


def points(axes) -> list[tuple[float, float]]:
    """Every marker."""
    return [tuple(xy) for line in axes.lines if line.get_marker() == "o" for xy in line.get_xydata().tolist()]


def test_a_figure_is_a_png_on_white() -> None:
    head, _, data = figures.uri(figures.blank(2.0, 1.0)).partition(",")
    assert head == "data:image/png;base64"
    assert (image.imread(io.BytesIO(base64.b64decode(data))) == np.ones((110, 220, 4))).all()


def test_effects_have_a_line_an_arm_and_a_dot_a_network(drawn: list[Figure]) -> None:
    found = audited().reliance
    figures.effects(found)
    left, right = drawn[0].axes
    every = [found.effect, *found.arms.values()]
    assert points(left) == [(e.value, -i) for i, e in enumerate(every)]
    assert [list(line.get_xdata()) for line in left.lines if line.get_linewidth() == 2] == [
        [e.low, e.high] for e in every
    ]
    assert [t.get_text() for t in left.get_yticklabels()][:2] == ["effect: opposite - same", "identity"]
    assert points(right) == [(k, pytest.approx(e)) for k, e in enumerate(found.by_seed.tolist())]
    (band,) = left.patches
    assert (band.get_x(), band.get_width()) == pytest.approx((-found.margin, 2 * found.margin))


def test_a_dose_of_nothing_does_nothing(drawn: list[Figure]) -> None:
    figures.doses({0.5: Effect(0.2, 0.01, 9.0), 1.0: Effect(0.5, 0.02, 9.0)})
    assert points(drawn[0].axes[0]) == [(0.0, 0.0), (0.5, 0.2), (1.0, 0.5)]


@pytest.mark.parametrize("space", [(5, 6), (4, 5, 6)])
def test_the_gallery_ends_with_the_difference_that_counts(drawn: list[Figure], space: tuple[int, ...]) -> None:
    x = torch.rand(2, 2, *space, generator=torch.Generator().manual_seed(0)) - 0.5
    figures.gallery({"untouched": x, SAME: x - 0.125, OPPOSITE: x + 0.125}, ["a", "b"])
    axes = np.array(drawn[0].axes).reshape(2, 4)
    assert [a.get_title() for a in axes[0]] == ["untouched", SAME, OPPOSITE, "opposite - same"]
    assert [a.get_ylabel() for a in axes[:, 0]] == ["a", "b"]
    for line in axes:
        shown = line[-1].images[0].get_array()
        assert float(np.ma.masked_invalid(shown).mean()) == pytest.approx(0.25)
    if len(space) == 2:
        assert np.array_equal(axes[1, 0].images[0].get_array(), x[1, 0].numpy())


def test_what_differs_is_marked_in_the_love_plot(drawn: list[Figure]) -> None:
    figures.love([("age", 0.8, 0.5, 1.1, True), ("dose", -0.1, -0.3, 0.1, False)])
    (axes,) = drawn[0].axes
    assert points(axes) == [(0.8, 0), (-0.1, -1)]
    colours = [to_hex(line.get_color()) for line in axes.lines if line.get_marker() == "o"]
    assert colours == [figures.HIT, figures.MISS]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["age", "dose"]

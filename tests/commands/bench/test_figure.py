"""The figure of a bench: which rows it shows, where names stand, and that it can be drawn from what a bench leaves."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from cfx.commands.bench.cells import Cell
from cfx.commands.bench.figure import (
    _best_known,
    _examples,
    _gallery,
    _picture,
    _scatter,
    beside,
    draw,
    named,
    power_figure,
)  # fmt: skip
from cfx.core.cohort import Cohort
from cfx.counterfactual.result import Verdict
from tests.counterfactual.metrics.hand_made import result_of


def make(n=6, space=(8, 8), **more):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(n, 1, *space, generator=g) - 0.5
    return result_of(x, x + 0.25).replace(**more)


def row(method, nfe, **more):
    worth = {"validity": 0.5, "l1": 0.2, "l1_low": 0.1, "l1_high": 0.3, "validity_low": 0.4, "validity_high": 0.7}
    spent = {"nfe_unet_forward": nfe, "nfe_unet_backward": 0.0}
    return {"method": method, "depth": "typical", "n": 6} | worth | spent | more


BOX = np.array([0.0, 0.0, 1000.0, 400.0])


def overlap(a, b):
    return bool((np.minimum(a[2:], b[2:]) > np.maximum(a[:2], b[:2])).all())


class TestNames:
    @given(st.lists(st.tuples(st.floats(0, 1000), st.floats(20, 380)), min_size=1, max_size=8))
    @settings(deadline=None)
    def test_they_stand_beside_their_points_and_inside(self, points):
        points = np.array(points)
        sizes = [(90.0, 12.0)] * len(points)
        for point, corner in zip(points, beside(points, sizes, gap=5.0, box=BOX), strict=True):
            assert np.abs(corner + np.array([45.0, 6.0]) - point).max() <= 45 + 5 * 1.3 + 1e-6
            assert -1e-6 <= corner[0] <= 910 + 1e-6
            assert corner[1] >= -60

    def test_where_there_is_room_none_covers_another_or_a_point(self):
        points = np.array(
            [[100.0, 200.0], [105.0, 200.0], [102.0, 206.0], [990.0, 200.0], [500.0, 5.0], [110.0, 190.0]]
        )
        sizes = [(80.0, 12.0)] * len(points)
        corners = beside(points, sizes, gap=5.0, box=BOX)
        places = [np.concatenate([c, c + s]) for c, s in zip(corners, sizes, strict=True)]
        assert not any(overlap(a, b) for k, a in enumerate(places) for b in places[:k])
        near = [np.concatenate([p - 4, p + 4]) for p in points]
        assert not any(overlap(a, b) for a in places for b in near)
        assert all(place[2] <= 1000 for place in places)

    def test_a_point_alone_has_its_name_to_the_right(self):
        (corner,) = beside(np.array([[10.0, 50.0]]), [(40.0, 12.0)], gap=5.0, box=BOX)
        assert corner.tolist() == pytest.approx([16.5, 44.0])


class TestExamples:
    def test_one_of_each_target_first_and_none_that_was_there_already(self):
        verdict = torch.tensor([Verdict.ALREADY, Verdict.FLIPPED, Verdict.FLIPPED, Verdict.BUDGET])
        result = make(4, verdict=verdict, target=torch.tensor([0, 1, 1, 0]))
        assert _examples({"a": result}) == [1, 3]
        assert _examples({"a": result, "short": result[:3]}) == [1, 2]  # rows that all methods worked on

    def test_where_nothing_had_to_change_the_first_rows(self):
        assert _examples({"a": make(3, verdict=torch.full((3,), int(Verdict.ALREADY)))}) == [0, 1]


def test_the_gallery_has_one_row_of_a_method_that_was_tuned():
    result = make(2)
    assert list(_best_known({"a": result, "b": result, "a-tuned": result, "c-tuned": result})) == [
        "b",
        "a-tuned",
        "c-tuned",
    ]


class TestPanels:
    def axes(self, *rows):
        figure = Figure()
        FigureCanvasAgg(figure)
        ax = figure.subplots()
        points = _scatter(ax, rows, "l1")
        figure.draw_without_rendering()
        named(ax, points)
        return ax

    def test_a_method_stands_at_its_cost_and_worth_with_its_interval(self):
        ax = self.axes(row("a", 10.0, nfe_unet_backward=20.0), row("b", 100.0, l1=0.25))
        places = [container.lines[0].get_xydata()[0].tolist() for container in ax.containers]
        assert places == [[30.0, 0.2], [100.0, 0.25]]
        (interval,) = ax.containers[0].lines[2][0].get_segments()
        assert interval[:, 1].tolist() == pytest.approx([0.1, 0.3])
        assert ax.get_xscale() == "log"
        assert {t.get_text() for t in ax.texts} == {"a", "b"}
        assert "n = 6" in ax.get_xlabel()

    def test_another_number_of_images_is_said(self):
        ax = self.axes(row("a", 10.0), row("b", 20.0), row("c", 30.0, n=3))
        assert {t.get_text() for t in ax.texts} == {"a", "b", "c (n=3)"}

    def test_what_is_tuned_is_filled_in_the_colour_of_its_method(self):
        ax = self.axes(row("a", 10.0, tuned=False), row("a-tuned", 20.0, tuned=True), row("b", 30.0))
        published, tuned, other = (container.lines[0] for container in ax.containers)
        assert published.get_color() == tuned.get_color() == tuned.get_markerfacecolor() != other.get_color()
        assert published.get_markerfacecolor() == other.get_markerfacecolor() == "white"
        assert "filled: tuned" in ax.get_xlabel()
        assert "filled" not in self.axes(row("a", 10.0)).get_xlabel()

    def test_methods_that_cost_nothing_have_a_place(self):
        ax = self.axes(row("free", 0.0), row("b", 100.0))
        assert ax.get_xscale() == "symlog"
        assert ax.get_xlim()[0] < 0

    def test_references_are_lines_or_named_at_the_edge(self):
        near, far = row("identity", 0.0, l1=0.2), row("random-real", 0.0, l1=9.0)
        ax = self.axes(row("a", 10.0), near, far)
        assert {t.get_text() for t in ax.texts} == {"a", "identity", "random-real: 9.00, outside"}
        assert [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"] == [0.2]
        assert ax.get_ylim()[1] < 1  # the far one does not squeeze the others


class TestPictures:
    def test_colours_of_grey_rgb_and_the_middle_slice_of_a_volume(self):
        x = torch.linspace(-1, 1, 3 * 4 * 5).view(3, 4, 5)
        assert _picture(x) == pytest.approx((x.numpy().transpose(1, 2, 0) + 1) / 2)
        assert _picture(x[:1]) == pytest.approx(np.repeat((x[0].numpy()[..., None] + 1) / 2, 3, -1))
        assert _picture(x[None]) == pytest.approx(_picture(x[1:2]))
        assert _picture(9 * torch.ones(1, 2, 2)).max() == 1

    def test_the_gallery_shows_truth_and_methods_and_one_scale_of_their_differences(self):
        result, fig = make(2), Figure()
        other = result.replace(x_cf=result.x - 0.1)
        _gallery(fig.subfigures(), {"a": result, "b": other}, [1], Cohort(result.x, x_true=result.x + 0.5))
        axes = np.array(fig.subfigs[0].axes).reshape(2, 4)
        assert [ax.get_title() for ax in axes[0]] == ["x", "truth", "a", "b"]
        shown = [ax.images[0] for ax in axes[1, 1:]]
        assert [float(np.mean(i.get_array())) for i in shown] == pytest.approx([0.5, 0.25, -0.1])
        assert {tuple(np.round(i.get_clim(), 6)) for i in shown} == {(-0.5, 0.5)}


@pytest.mark.parametrize("space", [(8, 8), (4, 6, 8)])
def test_a_bench_of_which_a_method_failed_is_drawn(space):
    result = make(space=space)
    found = {
        "typical": {"a": Cell(result, {}, "x"), "b": "no generator"}, "boundary": {"a": "no generator"}
    }  # fmt: skip
    rows = [row("a", 10.0), row("identity", 0.0), row("b", 0.0, error="no generator")]
    png = draw(rows, found, Cohort(result.x), dpi=30)
    assert image.imread(io.BytesIO(png)).shape[1] == 15 * 30


def test_a_line_of_power_is_a_strength():
    rows = [
        {"strength": s, "q": q, "effect": s * q, "effect_low": 0.0, "effect_high": 1.0, "power": q, "power_low": 0.0,
         "power_high": 1.0}
        for s in (0.5, 1.0) for q in (0.9, 0.5)
    ]  # fmt: skip
    one, two = (image.imread(io.BytesIO(power_figure(some))) for some in (rows[:2], rows))
    assert one.shape == two.shape
    assert not np.array_equal(one, two)
    assert power_figure(rows[::-1]) == power_figure(rows)  # in the order of q and strength, whatever comes first

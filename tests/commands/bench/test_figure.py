"""The figure of a bench: which rows it shows, where names stand, and that it can be drawn from what a bench leaves."""

import io
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib import image
from matplotlib.figure import Figure

from cfx.commands.bench.cells import Cell
from cfx.commands.bench.figure import _apart, _examples, _gallery, _picture, _scatter, draw, power_figure
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


class TestNames:
    @given(st.lists(st.floats(0, 1), min_size=1, max_size=12).map(sorted))
    @settings(deadline=None)
    def test_they_keep_their_order_and_their_distance_below_the_top(self, heights):
        found = _apart(heights, 0.062)
        assert all(b - a >= 0.062 - 1e-9 for a, b in pairwise(found))
        assert found[-1] <= 1

    def test_they_stay_where_there_is_room(self):
        assert _apart([0.1, 0.4, 0.9], 0.1) == [0.1, 0.4, 0.9]
        assert _apart([0.1, 0.1, 0.9], 0.2) == pytest.approx([0.1, 0.3, 0.9])
        assert _apart([0.9, 1.0, 1.0], 0.2) == pytest.approx([0.6, 0.8, 1.0])


class TestExamples:
    def test_one_of_each_target_first_and_none_that_was_there_already(self):
        verdict = torch.tensor([Verdict.ALREADY, Verdict.FLIPPED, Verdict.FLIPPED, Verdict.BUDGET])
        result = make(4, verdict=verdict, target=torch.tensor([0, 1, 1, 0]))
        assert _examples({"a": result}) == [1, 3]
        assert _examples({"a": result, "short": result[:3]}) == [1, 2]  # rows that all methods worked on

    def test_where_nothing_had_to_change_the_first_rows(self):
        assert _examples({"a": make(3, verdict=torch.full((3,), int(Verdict.ALREADY)))}) == [0, 1]


class TestPanels:
    def axes(self, *rows):
        ax = Figure().subplots()
        _scatter(ax, rows, "l1")
        return ax

    def test_a_method_stands_at_its_cost_and_worth_with_its_interval(self):
        ax = self.axes(row("a", 10.0, nfe_unet_backward=20.0), row("b", 100.0, l1=0.25))
        places = [container.lines[0].get_xydata()[0].tolist() for container in ax.containers]
        assert places == [[30.0, 0.2], [100.0, 0.25]]
        (interval,) = ax.containers[0].lines[2][0].get_segments()
        assert interval[:, 1].tolist() == pytest.approx([0.1, 0.3])
        assert ax.get_xscale() == "log"
        assert {t.get_text() for t in ax.texts} == {"a (n=6)", "b (n=6)"}

    def test_methods_that_cost_nothing_have_a_place(self):
        ax = self.axes(row("free", 0.0), row("b", 100.0))
        assert ax.get_xscale() == "symlog"
        assert ax.get_xlim()[0] < 0

    def test_references_are_lines_or_named_at_the_edge(self):
        near, far = row("identity", 0.0, l1=0.2), row("random-real", 0.0, l1=9.0)
        ax = self.axes(row("a", 10.0), near, far)
        assert {t.get_text() for t in ax.texts} == {"a (n=6)", "identity", "random-real: 9.00, outside"}
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

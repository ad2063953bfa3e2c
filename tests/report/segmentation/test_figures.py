"""Pictures: outlines stand where masks end, and the figure has a line an image."""

import math

import numpy as np
import pytest

from cfx.report.segmentation.figures import Shown, against_readers
from tests.report.segmentation.hand_made import cohort, drawn


def test_what_is_shown_of_an_image_is_what_was_drawn():
    one = Shown.of(drawn(), cohort(), 0)
    assert [int(mask.sum()) for mask in one.drawn] == [0, 4, 9, 16]
    assert [int(mask.sum()) for mask in one.readers] == [4, 16]
    assert (one.volume, one.reader_volume) == ([0, 1, 2.25, 4], [1, 4])  # mm^2, pixels of .5 mm
    assert one.most == pytest.approx(math.log(2))
    assert one.entropy.max() == pytest.approx(math.log(2))  # two of four hold the ring of side 3
    kinds = [kind for kind, _ in one.paths]
    assert kinds == ["drawn"] * 3 + ["reader"] * 2  # an empty mask has no outline
    assert one.paths[0][1] == "M0 0H2M0 2H2M0 0V2M2 0V2"


def test_ticks_are_in_per_cent_of_the_largest():
    (kind, ticks), (other, theirs) = Shown.of(drawn(), cohort(), 0).rug
    assert (kind, ticks) == ("drawn", "M0.0 0V9M25.0 0V9M56.2 0V9M100.0 0V9")
    assert (other, theirs) == ("reader", "M25.0 11V20M100.0 11V20")
    assert [kind for kind, _ in Shown.of(drawn(), cohort(readers=False), 0).rug] == ["drawn"]
    assert Shown.of(drawn(), cohort(readers=False), 2).largest == 0


def test_a_volume_is_three_planes():
    space = (8, 8, 8)
    one = Shown.of(drawn(space), cohort(space), 1)
    assert one.image.shape[:2] == one.drawn[0].shape == one.entropy.shape == (8, 28)
    assert int(one.drawn[0].sum()) == 3 * 16
    assert one.volume == [8.0] * 4


@pytest.mark.parametrize("readers", [True, False])
def test_the_figure_has_a_line_an_image_and_says_how_many_drew(readers):
    shown = [Shown.of(drawn(), cohort(readers=readers), k) for k in (0, 1, 2)]
    figure = against_readers(shown, ["a", "b", "c"], "mm^2")
    assert len(figure.axes) == 12
    assert [a.get_title() for a in figure.axes[:4]] == [
        "2 readers" if readers else "no readers", "4 drawn outlines", "entropy", "size of outlines",
    ]  # fmt: skip
    bars = [patch.get_height() for patch in figure.axes[3].patches]
    assert sum(bars) == 4
    assert figure.axes[3].get_xlabel() == "mm²"
    assert len(figure.axes[3].collections) == readers
    assert np.asarray(figure.axes[0].images[0].get_array()).shape == (8, 8, 4)

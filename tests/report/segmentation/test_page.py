"""The page: what it says is what was drawn, least sure first, and it needs nothing but itself."""

import re
from pathlib import Path

import pytest

from cfx.atlas import Atlas, write_atlas
from cfx.report.segmentation import page as module
from cfx.report.segmentation.page import segmentation_figure, segmentation_page
from tests.report.segmentation.hand_made import cohort, drawn, rows, summary

VALUES = rows(drawn(), cohort())


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory) -> Atlas:
    return write_atlas(tmp_path_factory.mktemp("page") / "a.zarr", drawn(), cohort())


def written(atlas: Atlas, *warned: str) -> str:
    return segmentation_page(atlas, VALUES, summary(VALUES), "A & B", b"figure", warned)


def test_the_first_screen_says_how_sure_the_outline_is(atlas):
    html = written(atlas)
    assert html.index("Two drawn outlines of an image share 71 %") < html.index('class="tiles"')
    assert "A &amp; B" in html
    assert "data:image/png;base64,ZmlndXJl" in html
    assert "3 images, 4 masks each, drawn by toy" in html


def test_the_least_sure_comes_first_with_its_outlines(atlas):
    html = written(atlas)
    assert re.findall(r"<article.*?<strong>(.*?)</strong>", html, re.S) == ["&lt;torn&gt;", "sure", "refused"]
    assert re.findall(r'badge (\w+)">(\w+)', html) == [("already", "collapsed"), ("refused", "refused")]
    assert "Of 4 drawn outlines 3 hold a region; its area is 2.42 mm² on average" in html
    assert html.count('class="drawn"') == 3 + 4 + 3  # outlines of what holds something, and a rug an image
    assert "The network&#39;s answer was not finite" in html


def test_the_page_needs_nothing_else_and_is_bounded(atlas, monkeypatch):
    monkeypatch.setattr(module, "CARDS", 2)
    monkeypatch.setattr(module, "LINES", 1)
    html = written(atlas, "look & see")
    assert html.count("<article") == 2
    assert "1 rows, least sure first; 2 more are in the atlas" in html
    assert "look &amp; see" in html
    assert not re.search(r'(src|href)="(?!data:)', html)


def test_the_figure_is_a_png_of_the_atlas(atlas, tmp_path: Path):
    assert segmentation_figure(atlas, VALUES, "mm^2").startswith(b"\x89PNG")

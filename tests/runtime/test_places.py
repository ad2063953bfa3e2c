"""What takes its place is whole after a power cut or a kill at any moment, and a dead writer leaves nothing behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from power import cuts

from cfx.runtime import places
from cfx.runtime.places import beside, make_folders, new_folder, put, recover, sweep, sync


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def visible(folder: Path) -> list[str]:
    return [name for name in names(folder) if not name.startswith(".")]


def fill(path: Path, text: str) -> None:
    with new_folder(path) as new:
        (new / "deep").mkdir()
        (new / "deep" / "a").write_text(text)
        (new / "b").write_text(text)


def read(path: Path) -> set[str]:
    return {(path / "deep" / "a").read_text(), (path / "b").read_text()}


@pytest.fixture
def disk(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "after").mkdir()
    return tmp_path / "disk"


def test_a_file_survives_a_power_cut_old_or_new(disk, monkeypatch):
    put(disk / "a", b"old")

    def work():
        put(disk / "a", b"new")
        sync(disk)

    found = [(after / "a").read_bytes() for after in cuts(disk, work, monkeypatch, disk.parent / "after", seeds=4)]
    assert set(found) == {b"old", b"new"}
    assert found[-1] == b"new"


def test_a_power_cut_that_loses_bytes_is_seen(disk, monkeypatch):
    """The disk of these tests can tell: a file that is renamed and never forced is empty."""

    def work():
        (disk / "part").write_bytes(b"new")
        (disk / "part").rename(disk / "a")
        sync(disk)

    found = [(after / "a").read_bytes() for after in cuts(disk, work, monkeypatch, disk.parent / "after", seeds=0)
             if (after / "a").exists()]  # fmt: skip
    assert (disk / "a").read_bytes() == b"new"
    assert found == [b""]


def test_a_folder_survives_a_power_cut_old_or_new(disk, monkeypatch):
    fill(disk / "run", "old")
    for way in ("exchange", "renames"):
        if way == "renames":
            monkeypatch.setattr(places, "_exchanged", lambda one, other: False)
        seen = []
        for after in cuts(disk, lambda: fill(disk / "run", "new"), monkeypatch, disk.parent / "after", seeds=2):
            recover(after / "run")
            seen.append(read(after / "run"))
        assert all(found in ({"old"}, {"new"}) for found in seen)
        assert seen[-1] == {"new"}
        fill(disk / "run", "old")


LOOK = """
import os, sys
missed = 0
while not os.path.exists(sys.argv[1] + "/stop"):
    missed += not os.path.exists(sys.argv[1] + "/run/b")
print(missed)
"""


def test_the_name_is_never_gone_where_two_can_change_places(disk):
    """A reader that looks all the time finds one or the other."""
    fill(disk / "run", "first")
    process = subprocess.Popen([sys.executable, "-S", "-c", LOOK, str(disk)], stdout=subprocess.PIPE, text=True)
    for i in range(60):
        fill(disk / "run", str(i))
    (disk / "stop").touch()
    assert process.communicate(timeout=20)[0] == "0\n"


KILLED = """
import os, sys
from pathlib import Path
import importlib.util
spec = importlib.util.spec_from_file_location("places", sys.argv[4])  # without the rest of cfx, which takes seconds
places = importlib.util.module_from_spec(spec)
spec.loader.exec_module(places)
at, way, path = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
if way == "renames":
    places._exchanged = lambda one, other: False
left = [at]
def counted(real):
    def call(*arguments, **more):
        if left[0] == 0:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        return real(*arguments, **more)
    return call
for name in ("rename", "replace", "mkdir", "fsync", "unlink", "rmdir"):
    setattr(os, name, counted(getattr(os, name)))
places._exchanged = counted(places._exchanged)
with places.new_folder(path) as new:
    (new / "deep").mkdir()
    for name in ("deep/a", "b"):
        (new / name).write_text("new")
"""


@pytest.mark.parametrize("way", ["exchange", "renames"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_and_the_next_writer_sweeps(disk, way):
    found = set()
    for at in range(0, 40, 2 if way == "exchange" else 1):
        fill(disk / "run", "old")
        done = subprocess.run([sys.executable, "-S", "-c", KILLED, str(at), way, str(disk / "run"), places.__file__],
                              check=False)  # fmt: skip
        recover(disk / "run")
        (state,) = read(disk / "run")
        found.add(state)
        if done.returncode == 0:
            break
    assert done.returncode == 0
    assert found == {"old", "new"}
    fill(disk / "run", "again")
    assert names(disk) == ["run"]


def test_what_is_being_written_is_not_swept(disk):
    with new_folder(disk / "run") as new:
        (new / "a").write_text("")
        sweep(disk)
        assert (new / "a").exists()
        beside(disk / "run").mkdir()
        beside(disk / "run").write_text("")
        beside(disk / "other").write_text("")
        (disk / ".run.mine").write_text("")
        sweep(disk, "run")
        assert len([n for n in names(disk) if n.startswith(".run.") and n.endswith(".partial")]) == 1
        assert len([n for n in names(disk) if n.startswith(".other.")]) == 1
    sweep(disk)
    assert names(disk) == [".run.mine", "run"]


def test_what_fails_leaves_what_was_there(disk):
    fill(disk / "run", "old")

    def fail() -> None:
        with new_folder(disk / "run") as new:
            (new / "b").write_text("new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert read(disk / "run") == {"old"}
    (disk / "file").write_text("mine")
    with pytest.raises(NotADirectoryError, match="got a file"), new_folder(disk / "file"):
        pass
    assert (disk / "file").read_text() == "mine"
    assert names(disk) == ["file", "run"]


def test_new_folders_are_on_the_disk_by_name(disk, monkeypatch):
    after = cuts(disk, lambda: make_folders(disk / "a" / "b"), monkeypatch, disk.parent / "after", seeds=0)
    assert [(folder / "a" / "b").is_dir() for folder in after][-1]
    make_folders(disk / "a" / "b")


def test_a_folder_without_permission_is_an_error_of_the_disk(disk):
    (disk / "shut").write_text("")
    with pytest.raises(OSError, match="shut"):
        put(disk / "shut" / "a", b"")
    assert os.listdir(disk) == ["shut"]

"""A disk that loses its power: what is on it is what was forced there with `fsync`, and nothing else is certain.

The bytes of a file are certain as they were at its last `fsync`; the names in a folder as at the folder's. What came
after may be there or not, each by itself: a file that was never forced may have its name and no byte.
"""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path


class Disk:
    """Everything below a folder, watched; the folder itself and what it holds at first are on the disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bytes: dict[int, bytes] = {}
        self.names: dict[int, dict[str, int]] = {}
        self.kept: list[int] = []  # open descriptors, so that no number of a file is given away again
        for place, _, files in os.walk(root):
            for path in [*(Path(place) / name for name in files), Path(place)]:
                descriptor = os.open(path, os.O_RDONLY)
                self._forced(descriptor)
                os.close(descriptor)

    def _forced(self, descriptor: int) -> None:
        number = os.fstat(descriptor).st_ino
        self.kept.append(os.dup(descriptor))
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.is_dir():
            self.names[number] = {entry.name: entry.inode() for entry in os.scandir(path)}
        else:
            self.bytes[number] = path.read_bytes()

    def cut(self, to: Path, chance: random.Random | None = None) -> None:
        """What is found when the power is back; without `chance` no more than what is certain."""
        live = {entry.stat().st_ino: entry for entry in [self.root, *self.root.rglob("*")]}
        self._restored(self.root.stat().st_ino, live, to, chance)

    def _restored(self, number: int, live: dict[int, Path], to: Path, chance: random.Random | None) -> None:
        entry = live.get(number)
        if number in self.names or (entry is not None and entry.is_dir()):
            to.mkdir(exist_ok=True)
            for name, inner in self._entries(number, entry, chance).items():
                self._restored(inner, live, to / name, chance)
            return
        found = self.bytes.get(number, b"")
        to.write_bytes(found if chance is None or entry is None else chance.choice([found, entry.read_bytes()]))

    def _entries(self, number: int, entry: Path | None, chance: random.Random | None) -> dict[str, int]:
        certain = self.names.get(number, {})
        if chance is None or entry is None:
            return certain
        now = {e.name: e.inode() for e in os.scandir(entry)}
        chosen = {name: chance.choice([certain.get(name), now.get(name)]) for name in certain | now}
        return {name: inner for name, inner in chosen.items() if inner is not None}


def cuts(root: Path, work: Callable[[], object], patch: object, to: Path, seeds: int = 1) -> Iterator[Path]:
    """What a disk holds if the power goes at any `fsync` of some work, before it or after; then once all is done.

    Yields:
        A folder, again and again another one.
    """
    disk, real = Disk(root), os.fsync
    made: list[Path] = []

    def snap() -> None:
        for seed in range(-1, seeds):
            made.append(to / str(len(made)))
            disk.cut(made[-1], None if seed < 0 else random.Random(f"{len(made)} {seed}"))

    def fsync(descriptor: int) -> None:
        snap()
        real(descriptor)
        disk._forced(descriptor)

    with patch.context() as patched:  # type: ignore[attr-defined]
        patched.setattr(os, "fsync", fsync)
        work()
    snap()
    for descriptor in disk.kept:
        os.close(descriptor)
    for folder in made:
        yield folder
        shutil.rmtree(folder)

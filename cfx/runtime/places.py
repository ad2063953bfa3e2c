"""Files and folders that take their place whole, outlive a power cut, and leave nothing behind when a writer is killed.

What is new is made under a hidden name beside its place (`.name.<random>.partial`), forced to the disk, and renamed. A
rename is whole, but the disk may do it before it has the bytes, or forget it: so files are forced to the disk before
they are renamed, and the folder that names them after (POSIX promises no more: `fsync` of a file says nothing of its
name). A folder that stands in the way changes names with the new one in a single step where the system can
(`renameat2`, Linux); elsewhere it is called `.name.old` meanwhile, and gets its name back from whoever looks for it.

A writer holds a lock on what it makes; the system lets go of it when the writer dies. What nobody holds is swept away
by the next one who writes to the place.
"""

import ctypes
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_AT_ONCE = 8  # files that are forced to the disk together: a millisecond each instead of five, on an ext4 disk
_HERE, _EXCHANGE = -100, 2  # AT_FDCWD and RENAME_EXCHANGE of Linux


def beside(path: Path) -> Path:
    """A new hidden name beside a place."""
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")


def put(path: Path, data: bytes | bytearray | memoryview, *, near: Path | None = None, force: bool = True) -> None:
    """Write a file whole or not at all; its bytes are on the disk, its name is once its folder has been `sync`ed.

    Args:
        path: The file.
        data: Its bytes.
        near: The place beside which it is made, whose writers sweep; its own by default.
        force: Whether to force the bytes to the disk; of a new file that may also be done later, by `sync`.

    Raises:
        OSError: the disk refused; what was there is untouched.
    """
    part = beside(near or path)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            _hold(stream.fileno())
            stream.write(data)
            stream.flush()
            if force:
                os.fsync(stream.fileno())
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """An empty folder beside `path` that takes its place, whole and on the disk, when the block ends without an error.

    Raises:
        OSError: the disk refused; what was there is untouched.
    """
    recover(path)
    sweep(path.parent, path.name)
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(f"expected a folder or nothing there, got a file: {path}")
    part = beside(path)
    part.mkdir()
    descriptor = os.open(part, os.O_RDONLY)
    try:
        _hold(descriptor)
        yield part
        sync_all(part)
        _settle(part, path)
        sync(path.parent)
    finally:
        os.close(descriptor)
        shutil.rmtree(part, ignore_errors=True)  # what was there before, or what failed
        shutil.rmtree(_old(path), ignore_errors=True)


def recover(path: Path) -> None:
    """Give a folder its name back that a writer was killed over, where names cannot change places."""
    if not os.path.lexists(path) and _old(path).exists():
        with suppress(OSError):  # another process was faster, or nobody may write here
            _old(path).rename(path)


def sweep(folder: Path, name: str = "") -> None:
    """Remove what killed writers left in a folder: of the place of that name, by default of any."""
    start = f".{name}." if name else "."
    for left in list(folder.iterdir()) if folder.is_dir() else []:
        if left.name.startswith(start) and left.name.endswith(".partial") and _abandoned(left):
            shutil.rmtree(left, ignore_errors=True) if left.is_dir() else left.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Force to the disk what a file holds, or the names that a folder holds."""
    if os.name == "nt" and path.is_dir():
        return  # a folder cannot be opened there
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_each(paths: Iterable[Path]) -> None:
    """`sync` of several; at once, since a disk that is asked for many together writes them together."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(sync, paths))


def sync_all(folder: Path) -> None:
    """Force to the disk everything in a folder and below."""
    sync_each([folder, *folder.rglob("*")])


def make_folders(path: Path) -> None:
    """Make a folder and those above it; those that are new are on the disk by name."""
    if path.is_dir():
        return
    make_folders(path.parent)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def _settle(part: Path, path: Path) -> None:
    """Give a folder its name, and what had it, the name it had."""
    if not path.exists():
        part.rename(path)
    elif not _exchanged(part, path):
        path.rename(_old(path))
        part.rename(path)


def _exchanged(one: Path, other: Path) -> bool:
    """Let two paths change places in one step; False where that cannot be done."""
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, OSError, TypeError):  # another system than Linux
        return False
    return bool(rename(_HERE, os.fsencode(one), _HERE, os.fsencode(other), _EXCHANGE) == 0)


def _old(path: Path) -> Path:
    """What a folder is called while another takes its place, where the two cannot change places."""
    return path.with_name(f".{path.name}.old")


def _hold(descriptor: int) -> None:
    """Lock what is being made, so that nobody takes it for abandoned."""
    if fcntl is not None:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)


def _abandoned(path: Path) -> bool:
    """Whether nobody holds what is there."""
    if fcntl is None:
        return False
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True

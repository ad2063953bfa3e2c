"""One run a folder at a time: two would mix their files, and neither would say so.

The operating system holds the lock and lets go of it when the process ends, however it ends: a dead run keeps nothing.
"""

import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Concatenate, ParamSpec, TypeVar

from filelock import FileLock, Timeout

from cfx.core.errors import CfxError
from cfx.runtime.config import RunConfig
from cfx.runtime.files import write_whole
from cfx.runtime.shares import together

if TYPE_CHECKING:
    from accelerate import Accelerator

C = TypeVar("C", bound=RunConfig)
P = ParamSpec("P")
R = TypeVar("R")

_LOCK, _HOLDER = ".lock", ".holder.json"


@contextmanager
def alone(folder: Path, accelerator: "Accelerator | None" = None) -> Iterator[None]:
    """A block in which no other run works in this folder; the processes of one run hold it together.

    Args:
        folder: The run's folder; created.
        accelerator: The processes of the run; its main one holds the lock.

    Raises:
        CfxError: another run is at work there (the message says which), or the folder cannot be written.
    """
    main = accelerator is None or accelerator.is_main_process
    lock = FileLock(folder / _LOCK, blocking=False, thread_local=False)
    with together(accelerator):
        if main:
            _take(lock, folder)
    try:
        yield
    finally:
        if main:
            (folder / _HOLDER).unlink(missing_ok=True)
            lock.release()


def in_its_folder(run: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R]:
    """A run that holds its configuration's folder while it works."""

    @wraps(run)
    def held(config: C, /, *arguments: P.args, **more: P.kwargs) -> R:
        from cfx.runtime.processes import make_accelerator

        with alone(config.folder, make_accelerator()):
            return run(config, *arguments, **more)

    return held


def _take(lock: FileLock, folder: Path) -> None:
    """Take the lock or say who has it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise CfxError(
            f"out: another run is at work in {folder}{_holder(folder)}; wait for it, or name another"
        ) from error
    except OSError as error:
        raise CfxError(f"out: cannot write in {folder}: {error}") from error
    now = datetime.now(UTC).isoformat(timespec="seconds")
    write_whole(folder / _HOLDER, json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": now}))


def _holder(folder: Path) -> str:
    """Who holds a folder, as far as the holder has said."""
    try:
        held = json.loads((folder / _HOLDER).read_text())
        return f" (process {held['process']} on {held['host']}, since {held['since']})"
    except (OSError, ValueError, KeyError, TypeError):
        return ""

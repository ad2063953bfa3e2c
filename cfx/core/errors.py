"""The one family of errors cfx raises for what a user handed in or what the machine refused, and its warning."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import shorten
from typing import TextIO

_LONGEST = 400  # characters of an error's message that are quoted; compilers add pages


class CfxError(Exception):
    """Base of every error that cfx raises on purpose."""


class InputError(CfxError, ValueError):
    """An argument is not what the function needs; the message names it, what was expected and what came."""


class CheckpointError(CfxError):
    """A checkpoint is missing, damaged, or not of the expected kind."""


class AtlasError(CfxError):
    """An atlas cannot be written or read; the message names the path or the damaged array."""


class LaunchError(CfxError, RuntimeError):
    """The launcher and the processes disagree (for example several independent one-process worlds)."""


class CfxWarning(UserWarning):
    """Something a user should look at before believing a result; the message names it, and what to do."""


def in_one_line(error: BaseException) -> str:
    """The message of an error in one line; of a script's, which is a whole traceback, its last."""
    text = str(error).strip()
    if "Traceback of TorchScript" in text:
        text = text.splitlines()[-1]
    if isinstance(error, KeyError):  # whose text is the key alone
        text = f"KeyError: {text}"
    return shorten(text, _LONGEST, placeholder=" ...") or type(error).__name__


@contextmanager
def heard() -> Iterator[list[str]]:
    """The texts of the warnings of cfx that are given inside, each once; they are shown as ever."""
    found: list[str] = []
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None,
        ) -> None:  # fmt: skip
            if issubclass(category, CfxWarning) and str(message) not in found:
                found.append(str(message))
            usual(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield found

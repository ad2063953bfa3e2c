"""The one family of errors cfx raises for what a user handed in or what the machine refused, and its warning."""

from textwrap import shorten

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
    return shorten(text, _LONGEST, placeholder=" ...") or type(error).__name__

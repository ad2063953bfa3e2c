"""Where weights and results come from: enough to make them again, and to tell whether they are of the same."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from cfx.core.cohort import Source, spread
from cfx.runtime.files import digest, fingerprint

_PRINTED = 1024  # most images that a source's fingerprint looks at
PACKAGES = ("cfx", "torch", "monai", "accelerate", "diffusers", "numpy")


def provenance(
    config: Mapping[str, Any], steps: int, seconds: float, accelerator: Accelerator, figures: Mapping[str, float]
) -> dict[str, Any]:
    """Command, configuration, steps, hardware, versions, commit and figures of a run, as JSON values."""
    return {
        "command": command(sys.argv),
        "steps": steps,
        "training_seconds": round(seconds, 1),
        "processes": accelerator.num_processes,
        "hardware": hardware(accelerator.device),
        "versions": {"python": platform.python_version(), **versions()},
        "git_commit": git_commit(),
        "figures": dict(figures),
        "config": dict(config),
    }


def command(argv: Sequence[str]) -> str:
    """The command line as a person would type it."""
    program = Path(argv[0]).name if argv else ""
    start = {"__main__.py": "python -m cfx.training", "": "cfx.training.train(...)", "-c": "cfx.training.train(...)"}
    return " ".join([start.get(program, program), *argv[1:]])


def made(words: str, device: torch.device) -> dict[str, Any]:
    """When, how and where the rows of a run were made.

    Args:
        words: The command line that was given.
        device: What computed.
    """
    date = datetime.now(UTC).isoformat(timespec="seconds")
    return {"date": date, "command": words, "hardware": hardware(device), "versions": versions()}


def hardware(device: torch.device) -> str:
    """The device that computed, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads ({platform.machine()})"


def versions() -> dict[str, str]:
    """Versions of the packages that matter, those that are installed."""
    found: dict[str, str] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def git_commit() -> str | None:
    """The commit of the working directory, with `+` if files differ from it; None outside a repository.

    The folder may be anybody's, and git runs what a repository's own configuration names: monitors, filters, hooks, a
    remote that has what is missing. All of them are switched off.
    """
    try:
        commit = _git("rev-parse", "HEAD")
        return commit + ("+" if _git(*_tame(), "status", "--porcelain", "--ignore-submodules=all") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def _tame() -> list[str]:
    """Options that leave no filter of a repository a command to run."""
    names = _git("config", "--name-only", "--list").splitlines()
    filters = {name.rpartition(".")[0] for name in names if name.startswith("filter.")}
    options = [f"{name}.{key}" for name in sorted(filters) for key in ("clean=", "process=", "required=false")]
    return [part for option in options for part in ("-c", option)]


def _git(*arguments: str) -> str:
    quiet = ["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "--no-optional-locks"]
    offline = {"GIT_ALLOW_PROTOCOL": "", "GIT_NO_LAZY_FETCH": "1", "GIT_TERMINAL_PROMPT": "0"}
    done = subprocess.run(
        ["git", *quiet, *arguments], capture_output=True, text=True, check=True, cwd=Path.cwd(),
        env=os.environ | offline, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout.strip()


def source_print(source: Source | None) -> str:
    """Fingerprint of images: of their number, names, labels, and the values of up to 1024 of them, evenly spread."""
    if source is None:
        return "none"
    at = spread(len(source), _PRINTED)
    tensors = {"x": source[at].x} | ({} if source.y is None else {"y": source.y})
    return digest({"n": len(source), "ids": list(source.ids), "tensors": fingerprint(tensors)})

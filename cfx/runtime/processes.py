"""How a run starts: one accelerator, made once, and the launch traps refused by name."""

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import InitProcessGroupKwargs, ProjectConfiguration

from cfx.core.errors import InputError, LaunchError

RIGHT_WAY = (
    "On CPU start N processes with `torchrun --standalone --nproc_per_node N -m cfx.training CONFIG` "
    "(or `accelerate launch --multi_gpu --num_processes N -m cfx.training CONFIG`)."
)

_PATIENCE = timedelta(days=1)
"""How long processes wait for one that still works: the main one tests and writes while the others have done."""


def check_launch(environment: Mapping[str, str]) -> None:
    """Refuse `accelerate launch --cpu --num_processes N`, which starts one process and says nothing.

    That launcher sets an address to meet at, which it does only when asked for several processes, but no world.

    Raises:
        LaunchError: the environment is that launcher's.
    """
    simple = "ACCELERATE_MIXED_PRECISION" in environment and "MASTER_ADDR" in environment
    if simple and "WORLD_SIZE" not in environment:
        raise LaunchError(
            f"accelerate was asked for several processes but its --cpu launcher starts only one. {RIGHT_WAY}"
        )


def check_world(environment: Mapping[str, str], processes: int) -> None:
    """Refuse several launched processes that each believe to be alone: they would all write the same files.

    Raises:
        LaunchError: the launcher's world size is not the number of processes that found each other.
    """
    launched = int(environment.get("WORLD_SIZE", processes))  # MPI starts processes without saying how many
    if launched != processes:
        raise LaunchError(
            f"the launcher started {launched} processes but {processes} found each other: "
            f"these would be independent runs over the same files. {RIGHT_WAY}"
        )


def make_accelerator(
    precision: str = "no", trackers: Sequence[str] = (), folder: str | Path | None = None
) -> Accelerator:
    """The accelerator of this run, on a GPU where there is one.

    Args:
        precision: `no`, `bf16` or `fp16`.
        trackers: Names of accelerate's experiment trackers.
        folder: Where trackers write.

    Raises:
        LaunchError: the launcher and the processes disagree (see `check_launch`, `check_world`).
        InputError: a precision this device cannot do, or a tracker that is not installed.
    """
    check_launch(os.environ)
    if precision == "fp16" and not torch.cuda.is_available():
        raise InputError("precision 'fp16': expected a GPU, found none; use 'bf16' or 'no' on the CPU")
    installed = sorted(str(t.value) for t in get_available_trackers())
    if not set(trackers) <= set(installed):  # accelerate itself would only warn
        raise InputError(f"trackers: expected some of those installed, {installed}; got {list(trackers)}")
    # A second run in one process may ask for another precision; the process group itself stays.
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        cpu=not torch.cuda.is_available(),
        mixed_precision=precision,
        log_with=list(trackers) or None,
        project_config=ProjectConfiguration(project_dir=None if folder is None else str(folder)),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
    )
    check_world(os.environ, accelerator.num_processes)
    return accelerator

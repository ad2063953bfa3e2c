"""`cfx verify` and `cfx atlas verify`: everything read once, and what is wrong named."""

import os
from pathlib import Path

from cfx.atlas import verify_atlas
from cfx.core.errors import CheckpointError
from cfx.models.checkpoint import verify_checkpoint
from cfx.runtime.config import expanded
from cfx.training.state import MANIFEST, load_state


def verify(path: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """What there is at a path and what is wrong with it: of an atlas, a training state, or else a checkpoint.

    Args:
        path: Its folder; of a checkpoint that is shipped the bare name.

    Returns:
        A line of what was read, and a sentence for each fault.
    """
    folder = expanded(Path(path))
    if (folder / "zarr.json").exists():
        return verified_atlas(folder)
    if (folder / MANIFEST).exists():
        try:
            load_state(folder)
        except CheckpointError as error:
            return f"{folder}: a training state", [str(error)]
        return f"{folder}: a training state, as it was written", []
    faults = verify_checkpoint(folder)
    return f"{folder}: a checkpoint" + ("" if faults else ", as it was written"), faults


def verified_atlas(path: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """What there is in an atlas and what is wrong with it, as `verify`."""
    folder = expanded(Path(path))
    found = verify_atlas(folder)
    there = f"{found.rows - len(found.missing)} of {found.rows} rows in {found.arrays} arrays"
    if found.faults:
        return f"{folder}: {there}", found.faults
    if not found.proved:
        return f"{folder}: {there}, readable; of an older schema without digests, so nothing proves the metadata", []
    return f"{folder}: {there}, as they were written", []

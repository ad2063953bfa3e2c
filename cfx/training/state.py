"""The whole state of a run on disk: tensors as safetensors, numbers as JSON, hashes for all of it, no pickle.

`state/step-N/` appears by one rename, so a folder of that name is complete; its manifest proves the bytes.
"""

import json
import re
import shutil
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from cfx.core.errors import CfxWarning, CheckpointError
from cfx.runtime.files import atomic_folder, check_files, digest, read_tensors, sha256, write_tensors
from cfx.runtime.places import sweep

SCHEMA = 1
MANIFEST = "state.json"

Tensors = Mapping[str, Tensor]


def save_state(root: Path, step: int, tensors: Mapping[str, Tensors], values: Mapping[str, Any], keep: int = 2) -> Path:
    """Write `root/step-<step>` atomically and delete all but the newest `keep` states.

    Args:
        root: Folder of the run's states.
        step: Optimizer steps done.
        tensors: Named groups of tensors, one file each.
        values: Plain JSON values.
        keep: States to keep.
    """
    final = root / f"step-{step}"
    sweep(root)
    with atomic_folder(final) as folder:
        for name, group in tensors.items():
            write_tensors(folder / f"{name}.safetensors", group)
        files = {f.name: sha256(f) for f in sorted(folder.iterdir())}
        facts = {"schema_version": SCHEMA, "step": step, "values": dict(values), "files": files}
        (folder / MANIFEST).write_text(json.dumps(facts | {"sha256": digest(facts)}, indent=1))
    for old in sorted(_steps(root))[:-keep]:
        shutil.rmtree(root / f"step-{old}", ignore_errors=True)
    return final


def newest_state(root: Path) -> Path | None:
    """The folder of the latest state, or None."""
    return root / f"step-{max(steps)}" if (steps := list(_steps(root))) else None


def load_newest(root: Path) -> tuple[Path, int, dict[str, dict[str, Tensor]], dict[str, Any]] | None:
    """The latest state that is whole: its folder, step, tensors and values; None where no state is.

    A damaged one is stepped over with a warning: fewer steps are lost than all.

    Raises:
        CheckpointError: there are states, and none is whole; of the latest.
    """
    first: CheckpointError | None = None
    for step in sorted(_steps(root), reverse=True):
        folder = root / f"step-{step}"
        try:
            found = load_state(folder)
        except CheckpointError as error:
            first = first or error
            continue
        if first is not None:
            warnings.warn(f"{first}; going on from {folder}", CfxWarning, stacklevel=2)
        return folder, *found
    if first is not None:
        raise first
    return None


def _steps(root: Path) -> Iterable[int]:
    """Steps of which a whole state exists."""
    names = (p.name for p in root.iterdir()) if root.is_dir() else ()
    return [int(m[1]) for name in names if (m := re.fullmatch(r"step-(\d+)", name))]


def load_state(folder: Path) -> tuple[int, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Read and verify a state: the step, its groups of tensors and its values.

    Raises:
        CheckpointError: a file is missing, truncated or changed (named, with both hashes), or the schema is unknown.
    """
    file = folder / MANIFEST
    try:
        facts = json.loads(file.read_text())
        recorded = facts.pop("sha256", "none")
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{file}: expected the JSON manifest of a training state, {error}") from error
    if facts.get("schema_version") != SCHEMA:
        raise CheckpointError(f"{file}: expected schema version {SCHEMA}, got {facts.get('schema_version')}")
    if digest(facts) != recorded:
        raise CheckpointError(f"{file}: damaged; expected SHA-256 {recorded}, got {digest(facts)}")
    check_files(folder, facts["files"])
    tensors = {name.removesuffix(".safetensors"): read_tensors(folder / name) for name in facts["files"]}
    return facts["step"], tensors, facts["values"]


def optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    """The moments and step counts of an optimizer, keyed `<parameter>.<quantity>`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": value for index, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: Optimizer, tensors: Tensors) -> None:
    """Put moments back; parameter groups (learning rates) stay as configured."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})

"""One finished measurement on disk: `<label>-<depth>.safetensors`, and a JSON file beside it that vouches for it.

The JSON file is written last and holds the key of the measurement (a hash of everything that could change its outcome)
and the SHA-256 of the tensors, so a bench that was interrupted finds what is whole and still meant, and nothing else.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.counterfactual.result import Counterfactuals
from cfx.runtime.files import digest, read_tensors, sha256, write_tensors, write_whole


@dataclass(frozen=True)
class Cell:
    """A method at one depth.

    Attributes:
        result: Its counterfactuals.
        cost: What the bench measured around it: `peak_memory_mb` and, beside the first method, `ddim_seconds` (an
            image) and `ddim_nfe`; None where the machine cannot tell.
        hardware: Where it was measured.
        laws: One number a row for each law of `cfx.counterfactual.metrics.consistency` that was measured.
    """

    result: Counterfactuals
    cost: Mapping[str, float | None]
    hardware: str
    laws: Mapping[str, Tensor] = field(default_factory=dict)


def fingerprint(cohort: Cohort | None) -> str:
    """SHA-256 of a cohort's images and labels: of their values, not of where they came from."""
    if cohort is None:
        return "none"
    return digest({"x": _hash(cohort.x), "y": "none" if cohort.y is None else _hash(cohort.y)})


def _hash(value: Tensor) -> str:
    return f"{tuple(value.shape)} {hashlib.sha256(value.contiguous().numpy().tobytes()).hexdigest()}"


def write_cell(folder: Path, name: str, key: str, cell: Cell) -> None:
    """Keep a measurement under the key of its configuration; it is there as a whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors, plain = _split(cell.result)
    record = folder / f"{name}.json"
    record.unlink(missing_ok=True)
    write_tensors(folder / f"{name}.safetensors", tensors | dict(cell.laws))
    values = {"key": key, "sha256": sha256(folder / f"{name}.safetensors"), "result": plain}
    write_whole(record, json.dumps(values | {"cost": dict(cell.cost), "hardware": cell.hardware}, indent=2) + "\n")


def read_cell(folder: Path, name: str, key: str) -> Cell | None:
    """The measurement kept under this key; None if there is none, or only one of another key or a damaged one."""
    tensors = folder / f"{name}.safetensors"
    try:
        values = json.loads((folder / f"{name}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    if values["key"] != key or not tensors.is_file() or sha256(tensors) != values["sha256"]:
        return None
    known, kept = {f.name for f in fields(Counterfactuals)}, read_tensors(tensors)
    parts: dict[str, Any] = values["result"] | {k: v for k, v in kept.items() if k in known}
    laws = {k: v for k, v in kept.items() if k not in known}
    return Cell(Counterfactuals(**parts), values["cost"], values["hardware"], laws)


def _split(result: Counterfactuals) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a result, and its other fields."""
    values = {f.name: getattr(result, f.name) for f in fields(result)}
    tensors = {k: v for k, v in values.items() if isinstance(v, Tensor)}
    return tensors, {k: v for k, v in values.items() if k not in tensors}

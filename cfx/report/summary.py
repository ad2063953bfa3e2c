"""`summary.json`: the numbers of a run under flat, stable names, for scripts."""

import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path

from cfx.core.errors import CfxError, InputError

Scalar = float | int | str | bool | None


def write_summary(path: str | os.PathLike[str], metrics: Mapping[str, object]) -> dict[str, Scalar]:
    """Write metrics as one flat JSON object, keys sorted, NaN and infinities as null, the whole file or nothing.

    Args:
        path: File to write; its folder is created.
        metrics: Numbers (also one-element arrays and tensors), strings, booleans or None; a nested mapping
            contributes `outer_inner` keys.

    Returns:
        What was written.

    Raises:
        InputError: a value of another kind, or two values under one flat name.
        CfxError: the file cannot be written.
    """
    found = dict(sorted(flatten(metrics).items()))
    write_whole(Path(path), (json.dumps(found, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode())
    return found


def flatten(metrics: Mapping[str, object], prefix: str = "") -> dict[str, Scalar]:
    """Metrics with flat names and JSON values, in the order given.

    Raises:
        InputError: a value that is not a scalar, or two values under one flat name.
    """
    flat: dict[str, Scalar] = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}"
        part = flatten(value, f"{name}_") if isinstance(value, Mapping) else {name: _scalar(name, value)}
        if double := sorted(flat.keys() & part.keys()):
            raise InputError(f"metrics: expected distinct flat names, got {double} twice")
        flat |= part
    return flat


def _scalar(name: str, value: object) -> Scalar:
    item = getattr(value, "item", None)
    if callable(item):
        try:
            value = item()
        except (RuntimeError, ValueError) as error:
            raise InputError(f"metrics[{name!r}]: expected one number, got {type(value).__name__}: {error}") from error
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    raise InputError(f"metrics[{name!r}]: expected a number, a string or None, got {type(value).__name__}")


def write_whole(path: Path, data: bytes) -> None:
    """Write a file completely or leave what was there.

    Raises:
        CfxError: the file cannot be written.
    """
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True) if part.parent.is_dir() else None
        raise CfxError(f"{path}: could not write: {error}") from error

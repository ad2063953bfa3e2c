"""Bytes on disk: hashes, atomic folders, tensors without pickle."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from cfx.core.errors import CfxError, CheckpointError
from cfx.runtime.places import make_folders, new_folder, put, sweep, sync


def resolved(path: str | os.PathLike[str]) -> Path:
    """A path with `~` and `$NAME` put in; what is no user's home and no variable stays as it is."""
    return Path(os.path.expandvars(os.path.expanduser(path)))


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(value: Mapping[str, object]) -> str:
    """SHA-256 of plain values, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of the shapes, dtypes and values of tensors: of what they are, not of where they came from."""
    found = hashlib.sha256()
    for name, value in sorted(tensors.items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        found.update(value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def check_files(folder: Path, hashes: Mapping[str, str]) -> None:
    """Compare files with their recorded hashes.

    Raises:
        CheckpointError: a file is missing or differs; the message names it and both hashes.
    """
    for name, expected in hashes.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{path}: missing; expected a file with SHA-256 {expected}")
        found = sha256(path)
        if found != expected:
            raise CheckpointError(f"{path}: damaged; expected SHA-256 {expected}, got {found}")


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """A temporary folder beside `path` that takes its place, whole, when the block ends without an error.

    Raises:
        CfxError: the disk refused; what was there stays.
    """
    try:
        make_folders(path.parent)
        with new_folder(path) as folder:
            yield folder
    except (OSError, SafetensorError) as error:
        raise CfxError(f"{path}: could not write: {error}") from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors: equal tensors are equal bytes, since no metadata is kept, whose order is random."""
    save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)
    path.chmod(0o644)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read tensors written by `write_tensors`.

    Raises:
        CheckpointError: not a whole safetensors file.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: expected a safetensors file, {error}") from error


def write_whole(path: Path, data: str | bytes) -> None:
    """Write a file completely or leave what was there.

    Raises:
        CfxError: the file cannot be written.
    """
    try:
        make_folders(path.parent)
        sweep(path.parent, path.name)
        put(path, data.encode() if isinstance(data, str) else data)
        sync(path.parent)
    except OSError as error:
        raise CfxError(f"{path}: could not write: {error}") from error

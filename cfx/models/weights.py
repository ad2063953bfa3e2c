"""Files that hold a network or its tensors, told apart by what is in them, and read without running what they hold.

safetensors       a length, then a JSON header                    tensors
torch.save        a zip with `data.pkl`, or an old pickle         tensors, read with `weights_only=True`
TorchScript       a zip with `code/` and `constants.pkl`          a network: `torch.jit.load`
torch.export      a zip with `models/model.json`                  a network: `cfx.models.exported`
"""

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cfx.core.errors import CheckpointError, in_one_line
from cfx.runtime.files import read_tensors

Contents = Literal["safetensors", "tensors", "torchscript", "exported"]
_HEADER = 9  # bytes of a safetensors file before and with the first of its JSON
_SHOWN = 12  # names in a message


def contents(path: Path) -> Contents:
    """What a file holds.

    Raises:
        CheckpointError: none of these, or unreadable.
    """
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEADER)
        names = _members(path) if head[:2] == b"PK" else []
    except (OSError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path}: cannot be read, {error}") from error
    if any(re.search(r"(^|/)models/.*\.json$|^serialized_exported_program\.json$", name) for name in names):
        return "exported"
    if any("/code/" in name for name in names) and any(name.endswith("/constants.pkl") for name in names):
        return "torchscript"
    if any(name.endswith("/data.pkl") for name in names) or head[:1] == b"\x80":
        return "tensors"
    if head[8:9] == b"{":
        return "safetensors"
    raise CheckpointError(
        f"{path}: expected a safetensors file, a state dict of torch.save, a TorchScript or a torch.export file; got "
        "none of them"
    )


def _members(path: Path) -> list[str]:
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


def read_script(path: Path) -> nn.Module:
    """The network of a TorchScript file, whose own graph is all that runs.

    Raises:
        CheckpointError: damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*torch.jit.*", category=DeprecationWarning)
            network: nn.Module = torch.jit.load(path, map_location="cpu")
    except (RuntimeError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a TorchScript file, {in_one_line(error)}") from error
    return network


def read_state(path: Path, key: str | None = None) -> dict[str, Tensor]:
    """A state dict (names to tensors) of a safetensors or torch.save file; nothing else is unpickled.

    Args:
        path: The file.
        key: Where in it the state dict is, where it holds more: `model`, or `state.model` one level further down.

    Raises:
        CheckpointError: damaged, other objects than tensors, no such key, or none where one is needed; the message
            lists the keys that were found.
    """
    kind = contents(path)
    if kind not in ("safetensors", "tensors"):
        raise CheckpointError(f"{path}: expected tensors, got a whole network ({kind})")
    return state_in(read_tensors(path) if kind == "safetensors" else _unpickled(path), key, str(path))


def _unpickled(path: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of protocols; what cannot be read is an error anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        what = f"it also holds {found[1]}" if found else "it holds other objects"
        raise CheckpointError(
            f"{path}: expected a file of tensors; {what}, and reading that would run code, which cfx never does. Save "
            "the network's state_dict() alone, or name what builds the network: package.module:callable"
        ) from error
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{path}: expected a file of tensors, {in_one_line(error)}") from error


def state_in(found: object, key: str | None, place: str) -> dict[str, Tensor]:
    """The state dict in what a file holds, at a dotted key; errors as `read_state`."""
    for part in key.split(".") if key else ():
        if not isinstance(found, Mapping) or part not in found:
            raise CheckpointError(f"{place}: expected the key {key!r}, got the keys {_keys(found)}")
        found = found[part]
    if isinstance(found, Mapping) and found and all(isinstance(v, Tensor) for v in found.values()):
        return {str(name): value for name, value in found.items()}
    if not isinstance(found, Mapping):
        raise CheckpointError(f"{place}: expected a state dict (names to tensors), got {type(found).__name__}")
    inside = _states(found, f"{key}." if key else "")
    which = f"; name the one that is meant, key: {' or key: '.join(inside)}" if inside else ""
    raise CheckpointError(f"{place}: expected a state dict (names to tensors), got the keys {_keys(found)}{which}")


def _states(found: Mapping[Any, object], above: str) -> list[str]:
    """Keys under which a state dict lies, one or two levels down."""
    names: list[str] = []
    for name, value in found.items():
        if isinstance(value, Mapping) and value:
            whole = all(isinstance(v, Tensor) for v in value.values())
            names += [f"{above}{name}"] if whole else _states(value, f"{above}{name}.") if not above else []
    return names


def _keys(found: object) -> str:
    names = [str(name) for name in found] if isinstance(found, Mapping) else []
    return str(names[:_SHOWN])[:-1] + (", ...]" if len(names) > _SHOWN else "]")


def fill(network: nn.Module, state: Mapping[str, Tensor], place: str) -> nn.Module:
    """Load a state dict, whole or not at all.

    Raises:
        CheckpointError: other names or shapes than the network's.
    """
    given = unprefixed(network, state)
    _same_names(set(network.state_dict()), set(given), place)
    try:
        network.load_state_dict(given)
    except RuntimeError as error:
        raise CheckpointError(f"{place}: the weights do not fit the network: {in_one_line(error)}") from error
    return network


def unprefixed(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict without a first part that all names share and none of the network's has.

    Such as `module.` of parallel training, or `model.` of a trainer.
    """
    first = {name.partition(".")[0] for name in state}
    own = {name.partition(".")[0] for name in network.state_dict()}
    shared = len(first) == 1 and not first & own
    return {name.partition(".")[2] if shared else name: value for name, value in state.items()}


def _same_names(mine: set[str], given: set[str], place: str) -> None:
    missing, more = sorted(mine - given), sorted(given - mine)
    if missing or more:
        raise CheckpointError(
            f"{place}: the weights do not fit the network: it has {len(missing)} tensors that are not among them "
            f"({_some(missing)}), and they have {len(more)} that are not its own ({_some(more)}); other keywords?"
        )


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "") if names else "none"

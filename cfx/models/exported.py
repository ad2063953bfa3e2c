"""A network from a torch.export file (`.pt2`), once the file is known to hold a graph of tensor operations and no more.

`torch.export.load` is not made for files of strangers: it falls back to full unpickling of inputs, constants and some
weights, evaluates the expressions of dynamic sizes, runs guards that are Python text, and looks operators up by dotted
name anywhere in torch. A file that torch.export writes of an image classifier needs none of that. So the archive is
looked through first, and refused by name of what it holds besides:

    pickles         must be readable with `weights_only=True`; opaque and custom objects, compiled libraries: refused
    expressions     and guards: only numbers, symbols, sizes of inputs and their arithmetic
    operators       only `torch.ops.aten` and `prims`, Python's arithmetic, `math`, and control flow of graphs
    names           plain identifiers, since they become names in generated code
"""

import io
import json
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cfx.core.errors import CheckpointError, InputError, in_one_line

_ARITHMETIC = "add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|getitem"
_CONTROL = "cond|while_loop|scan|map_impl|wrap_with_set_grad_enabled|wrap_with_autocast"
_OPERATORS = re.compile(
    rf"torch\.ops\.(aten|prims)\.(?!from_file)\w+(\.\w+)?|_operator\.({_ARITHMETIC})|math\.\w+|torch\.sym_\w+"
    rf"|torch\.ops\.higher_order\.({_CONTROL})"
)
_WORDS = re.compile(r"[A-Za-z_]\w*")
_SIZES = frozenset(
    {
        "Symbol", "Integer", "Rational", "Float", "Add", "Mul", "Pow", "Max", "Min", "Mod", "PythonMod", "FloorDiv",
        "CleanDiv", "CeilDiv", "IntTrueDiv", "Where", "Eq", "Ne", "Equality", "Unequality", "GreaterThan", "LessThan",
        "StrictGreaterThan", "StrictLessThan", "And", "Or", "Not", "positive", "nonnegative", "integer", "True",
        "False",
    }
)  # fmt: skip
_SYMBOL = re.compile(r"[a-z]{1,4}\d+")
_EXPRESSION = re.compile(r"[\w\s+\-*/(),'=<>&|~]*")
_SIZE_OF = re.compile(r"L\['\w+'\]\.size\(\)\[\d+\]")
_GUARD = re.compile(r"([\d\s+\-*/()=<>!%,]|and|or|not|Max|Min|Mod|FloorDiv)*")
_NAMES = ("name", "fqn", "forward_arg_names")
_IDENTIFIER = re.compile(r"[A-Za-z_0-9.\[\]]*")


def read_exported(path: Path) -> nn.Module:
    """The module of a torch.export file.

    Raises:
        CheckpointError: damaged, written by a version of torch that this one cannot read, or holding more than a graph
            of tensor operations; the message says what.
    """
    data = path.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
            if len(files) != len(archive.namelist()):
                raise CheckpointError(f"{path}: two members of one name")
        for fault in _faults(files):
            raise CheckpointError(f"{path}: expected a graph of tensor operations, got {fault}; it is not loaded")
        program = torch.export.load(io.BytesIO(data))
        network = program.module()
        network.register_forward_pre_hook(_as_exported(_sizes(program)), prepend=True)
        return network
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: expected a torch.export file, {in_one_line(error)}") from error


def _sizes(program: torch.export.ExportedProgram) -> list[int | None]:
    """Sizes of the images that a program was exported for; None where any will do."""
    names = program.graph_signature.user_inputs
    inputs = (node for node in program.graph.nodes if node.op == "placeholder" and node.name in names)
    first = next((node.meta.get("val") for node in inputs), None)
    return [n if isinstance(n, int) else None for n in first.shape] if isinstance(first, torch.Tensor) else []


def _as_exported(sizes: list[int | None]) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """What refuses images of other sizes than those that a program was exported for, in words, before torch does."""

    def refuse(network: nn.Module, images: tuple[Any, ...]) -> None:
        came = list(images[0].shape) if images and isinstance(images[0], torch.Tensor) else []
        if len(came) != len(sizes) or all(n in (None, m) for n, m in zip(sizes, came, strict=True)):
            return
        if sizes[0] in (None, came[0]):
            wanted = ", ".join("any" if n is None else str(n) for n in sizes[1:])
            raise InputError(f"network: exported for images of shape ({wanted}), got {tuple(came[1:])}")
        raise InputError(
            f"network: exported for batches of exactly {sizes[0]}, got {came[0]}; export it for any number, with two "
            "images or more: torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim('batch')},))"
        )

    return refuse


def _faults(files: Mapping[str, bytes]) -> Iterator[str]:
    """What in an archive is no graph of tensor operations."""
    raw = {name for name, data in files.items() if name.endswith("_config.json") for name in _raw(json.loads(data))}
    for name, data in files.items():
        last = name.rpartition("/")[2]
        if "aotinductor" in name or last.endswith((".so", ".cubin")):
            yield f"compiled code ({name})"
        elif last.startswith(("opaque_obj", "custom_obj")):
            yield f"an object of its own ({name})"
        elif last.endswith(".json"):
            yield from _graph_faults(json.loads(data))
        elif last.endswith(".pt") or (re.match(r"(weight|tensor)_\d+$", last) and last not in raw):
            yield from _pickle_faults(name, data)


def _raw(config: Mapping[str, Any]) -> set[str]:
    """Members of the archive that are plain numbers."""
    return {entry["path_name"] for entry in config.get("config", {}).values() if not entry.get("use_pickle", True)}


def _pickle_faults(name: str, data: bytes) -> Iterator[str]:
    try:
        if data:
            torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
    except Exception as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        yield f"a pickle of {found[1] if found else 'other objects than tensors'} ({name})"


def _graph_faults(node: object, key: str = "") -> Iterator[str]:
    """What in the JSON of a graph would be run as Python."""
    if isinstance(node, Mapping):
        for name, inner in node.items():
            yield from _graph_faults(inner, name)
        if isinstance(node.get("target"), str) and "inputs" in node and not _OPERATORS.fullmatch(node["target"]):
            yield f"the operator {node['target']!r}"
        if "__enum__" in node:
            yield "an enumeration by name of its module"
    elif isinstance(node, list):
        for inner in node:
            yield from _graph_faults(inner, key)
    elif isinstance(node, str):
        yield from _text_faults(node, key)


def _text_faults(text: str, key: str) -> Iterator[str]:
    """What in one text of the JSON of a graph would be run as Python."""
    words = [w for w in _WORDS.findall(text) if not _SYMBOL.fullmatch(w)] if key == "expr_str" else []
    if key == "expr_str" and (not _EXPRESSION.fullmatch(text) or not _SIZES.issuperset(words)):
        yield f"the expression {text!r}"
    if key == "guards_code" and not _GUARD.fullmatch(_SIZE_OF.sub("1", text)):
        yield f"the guard {text!r}"
    if key in _NAMES and not _IDENTIFIER.fullmatch(text):
        yield f"the name {text!r}"
    if "__enum__" in text:
        yield "an enumeration by name of its module"

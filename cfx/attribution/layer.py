"""The feature map of a layer while the network runs: by name, or the last one that has places.

What the layer returns is handed on as a copy, so that an operation that works in place behind it changes the copy.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cfx.attribution.method import Question
from cfx.core.errors import InputError


def resolved(question: Question, layer: str) -> str:
    """The name of a layer: the one given, or the last part of the network that ran once and returned a map.

    Raises:
        InputError: a classifier that is no module, no such layer, or none that returns a map.
    """
    network = question.judge.classifier
    if not isinstance(network, nn.Module):
        raise InputError(f"layer: expected a classifier that is a module, whose parts can be seen, got {network!r:.60}")
    names = {name for name, _ in network.named_modules() if name}
    if layer:
        if layer not in names:
            raise InputError(f"layer: expected one of {sorted(names)}, got {layer!r}")
        return layer
    ran: list[tuple[str, bool]] = []

    def note(name: str, _: nn.Module, __: object, out: object) -> None:
        is_map = isinstance(out, Tensor) and out.ndim == question.x.ndim and len(out) == 1 and out[0, 0].numel() > 1
        ran.append((name, is_map and "att" not in name))  # attention over tokens has as many axes, but no places

    with _hooked([(network.get_submodule(name), partial(note, name)) for name in names]), torch.no_grad():
        question.judge.logits(question.x[:1])
    times = [name for name, _ in ran]
    maps = [name for name, is_map in ran if is_map and times.count(name) == 1]
    if not maps:
        raise InputError("layer: expected a network of which some part returns a map (b, c, *space) once; name a layer")
    return maps[-1]


@contextmanager
def watched(question: Question, name: str) -> Iterator[list[Tensor]]:
    """The map of a layer, in a list, once the network has run inside."""
    network, seen = question.judge.classifier, list[Any]()
    assert isinstance(network, nn.Module)

    def keep(_: nn.Module, __: object, out: object) -> object:
        seen.append(out)
        return out.clone() if isinstance(out, Tensor) else out

    with _hooked([(network.get_submodule(name), keep)]):
        yield seen


def only(seen: list[Tensor], question: Question, name: str) -> Tensor:
    """The one map.

    Raises:
        InputError: the layer did not run, ran more than once, or returned something else.
    """
    if len(seen) != 1:
        raise InputError(f"layer: expected {name} to run once, it ran {len(seen)} times")
    out = seen[0]
    if not isinstance(out, Tensor) or out.ndim != question.x.ndim or len(out) > len(question):
        came = tuple(out.shape) if isinstance(out, Tensor) else type(out).__name__
        raise InputError(f"layer: expected a map (b, c, *space) of {name}, got {came}")
    return out


@contextmanager
def _hooked(hooks: list[tuple[nn.Module, Callable[..., object]]]) -> Iterator[None]:
    """Forward hooks that are gone afterwards."""
    handles = []
    try:
        for module, hook in hooks:
            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()

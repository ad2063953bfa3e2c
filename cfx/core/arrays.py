"""What a user hands in as tensors: arrays and lists become tensors, what cannot is refused by its name in one line."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from cfx.core.errors import InputError

C = TypeVar("C")
_PLAIN = (list, tuple, range, int, float, bool, np.generic)


def as_tensor(value: object, name: str, expected: str) -> Tensor:
    """A value as a plain tensor of its own kind of numbers, dense, without a gradient.

    Args:
        value: A tensor, a numpy array of any byte order and strides (or what numpy makes one of), numbers or a list.
        name: What it is called in errors.
        expected: What it should be, used in errors.

    Raises:
        InputError: it holds no numbers, has rows of different lengths, or is a tensor without values.
    """
    if isinstance(value, Tensor):
        return _dense(value, name, expected)
    if not isinstance(value, _PLAIN) and not hasattr(value, "__array__"):
        raise InputError(f"{name}: expected {expected}, got {type(value).__name__}")
    try:
        if isinstance(value, list | tuple) and value and isinstance(value[0], Tensor):
            return torch.stack([_dense(v, name, expected) for v in value])
        found = np.array(value)  # a copy: torch refuses strides below zero, and warns of arrays that are read-only
        return torch.from_numpy(found.astype(found.dtype.newbyteorder("="), copy=False))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        held = f" of {type(value[0]).__name__}" if isinstance(value, list | tuple) and value else ""
        raise InputError(f"{name}: expected {expected}, got {type(value).__name__}{held} without numbers") from error


def _dense(value: Tensor, name: str, expected: str) -> Tensor:
    if value.is_meta:
        raise InputError(f"{name}: expected {expected}, got a tensor on the meta device, which has no values")
    if value.is_nested:
        raise InputError(f"{name}: expected {expected}, got a nested tensor, whose rows have different shapes")
    value = value.detach()
    if value.is_quantized:
        return value.dequantize()
    return (value if value.layout == torch.strided else value.to_dense()).as_subclass(Tensor)


def whole_numbers(value: Tensor, name: str) -> Tensor:
    """Numbers that stand for something, such as classes, as int64.

    Raises:
        InputError: some are not whole.
    """
    if value.is_complex() or (value.is_floating_point() and not bool((value == value.round()).all())):
        odd = value if value.is_complex() else value[value != value.round()]
        raise InputError(f"{name}: expected whole numbers, got {odd.flatten()[:4].tolist()}")
    return value.long()


def taking(prepare: Callable[[dict[str, Any]], dict[str, Any]]) -> Callable[[type[C]], type[C]]:
    """A decorator of dataclasses whose arguments are prepared before the class sees, and checks, them.

    Args:
        prepare: Arguments by name to arguments by name.
    """

    def decorate(cls: type[C]) -> type[C]:
        strict: Callable[..., None] = cls.__init__
        names = [f.name for f in fields(cls) if f.init]  # type: ignore[arg-type]

        @wraps(strict)
        def init(self: C, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401
            strict(self, *args[len(names) :], **prepare(dict(zip(names, args, strict=False)) | kwargs))

        shown = signature(strict)
        loose = [p.replace(annotation=p.empty) for p in shown.parameters.values()]
        init.__signature__ = shown.replace(parameters=loose)  # type: ignore[attr-defined]
        init.__annotations__ = {}
        cls.__init__ = init  # type: ignore[assignment]
        return cls

    return decorate


def texts(value: object, name: str) -> tuple[str, ...]:
    """A sequence of names as texts.

    Raises:
        InputError: it is no sequence, or a single text.
    """
    if isinstance(value, str) or not (isinstance(value, Sequence) or hasattr(value, "__array__")):
        raise InputError(f"{name}: expected a list of names, got {value!r:.60}")
    return tuple(str(v) for v in value)  # type: ignore[attr-defined]

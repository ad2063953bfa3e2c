"""A user's network, run: on its own device, at rest, some images at a time, each batch a private copy.

Whatever a network does to its input in place, and whatever state its parts were in, is its own affair: images that are
handed over are copies, and every part's state is restored, also after an error or an interrupt. Threads may share a
network: it is at rest while any of them asks, and is given back by the last.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import chain
from threading import Lock, get_ident
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from cfx.core.errors import InputError, in_one_line
from cfx.core.outputs import tensor_of

T = TypeVar("T")

BATCH = 64
"""Images a network is shown together where nothing else is asked for."""


def device_of(*networks: object) -> torch.device | None:
    """The device of the first network that has parameters or buffers; None if none has."""
    modules = (n for n in networks if isinstance(n, nn.Module))
    return next((t.device for m in modules for t in chain(m.parameters(), m.buffers())), None)


def dtype_of(network: object) -> torch.dtype | None:
    """Precision of a network's first floating-point parameter or buffer; None if it has none."""
    tensors = chain(network.parameters(), network.buffers()) if isinstance(network, nn.Module) else ()
    return next((t.dtype for t in tensors if t.is_floating_point()), None)


@contextmanager
def at_rest(*networks: object) -> Iterator[None]:
    """Evaluation mode and no parameter gradients inside; every part's own state is restored after.

    Scripted, traced, frozen, exported, compiled and parallel modules are modules like others; a plain function, or
    None, has no state.
    """
    with ExitStack() as stack:
        for network in networks:
            if isinstance(network, nn.Module):
                stack.enter_context(_resting(network))
        yield


class _Held:
    """Parts of networks that someone has at rest, each with what is given back by the last to let go.

    Several may ask one network at a time, from threads or by turns: none may wake it while another still asks.
    """

    def __init__(self) -> None:
        self.lock = Lock()
        self.kept: dict[int, tuple[nn.Module | Tensor, bool, int]] = {}

    def take(self, parts: Iterable[nn.Module | Tensor]) -> list[nn.Module | Tensor]:
        """Count one more holder of each part; those that had none."""
        fresh = []
        for part in parts:
            _, state, n = self.kept.get(id(part), (part, _state(part), 0))
            self.kept[id(part)] = (part, state, n + 1)
            fresh += [part] if n == 0 else []
        return fresh

    def let_go(self, parts: Iterable[nn.Module | Tensor]) -> list[tuple[nn.Module | Tensor, bool]]:
        """Count one holder less; the parts that have none now, with the state that each had."""
        free = []
        for part in parts:
            _, state, n = self.kept.pop(id(part))
            if n > 1:
                self.kept[id(part)] = (part, state, n - 1)
            else:
                free.append((part, state))
        return free


_HELD = _Held()


@contextmanager
def _resting(module: nn.Module) -> Iterator[None]:
    parts: list[nn.Module | Tensor] = [m for m in module.modules() if hasattr(m, "training")]
    parts += list(module.parameters())  # a frozen script has no mode
    try:
        with _HELD.lock:
            _restore([(part, False) for part in _HELD.take(parts)])
        yield
    finally:
        with _HELD.lock:
            _restore(_HELD.let_go(parts))


def _state(part: nn.Module | Tensor) -> bool:
    """Training mode of a module, or whether a parameter has gradients."""
    return bool(part.training) if isinstance(part, nn.Module) else bool(part.requires_grad)


def _restore(states: list[tuple[nn.Module | Tensor, bool]]) -> None:
    """Switch the first module, which is the whole, in its own way; then every part by itself, whatever that way did."""
    modules = [(part, state) for part, state in states if isinstance(part, nn.Module)]
    for m, mode in modules[:1]:
        with suppress(NotImplementedError):  # an exported graph keeps the mode it was exported in
            m.train(mode)
    for m, mode in modules:
        m.training = mode
    for p, grad in states:
        if not isinstance(p, nn.Module):
            p.requires_grad_(grad)  # one by one: a script refuses to set all at once


def here(hook: Callable[..., Any]) -> Callable[..., Any]:
    """A hook that acts in this thread alone: others may run the same network meanwhile."""
    thread = get_ident()
    return lambda *arguments: hook(*arguments) if get_ident() == thread else None


def ask(
    network: Callable[..., T],
    *images: Float[Tensor, "b c *space"],
    name: str = "network",
    device: torch.device | None = None,
) -> T:
    """What a network says of one batch, which it is shown as private copies on its own device, in its own precision.

    Args:
        network: A module or any function of images. One wrapped for distributed training is asked without its wrapper,
            whose processes would wait for each other.
        images: Its arguments.
        name: What the network is called in errors.
        device: Where a network without parameters works; by default where the images are.

    Raises:
        InputError: the network cannot take these images; the message has its own words.
    """
    inside: Callable[..., T] = network.module if isinstance(network, DistributedDataParallel) else network
    device, dtype = device_of(network) or device, dtype_of(network)
    try:
        return inside(*(v.to(device or v.device, dtype or v.dtype, copy=True) for v in images))
    except InputError:
        raise
    except Exception as error:
        shapes = ", ".join(str(tuple(v.shape)) for v in images)
        raise InputError(f"{name}: failed on images of shape {shapes}: {in_one_line(error)}") from error


def in_batches(
    network: Callable[..., Tensor], *images: Float[Tensor, "n c *space"], batch: int = BATCH, name: str = "network"
) -> Float[Tensor, "n ..."]:
    """Outputs of a network for any number of images, at rest, without gradient; on the CPU.

    Args:
        network: A module or any function from images to one row each.
        images: Its arguments, at least one image.
        batch: Images shown together.
        name: What the network is called in errors.

    Raises:
        InputError: as `ask`.
    """
    with at_rest(network), torch.no_grad():
        parts = zip(*(v.split(batch) for v in images), strict=True)
        return torch.cat([ask(network, *part, name=name).cpu() for part in parts])


def columns(out: object, n: int, name: str = "classifier") -> Float[Tensor, "n k"]:
    """Numbers for `n` images with one row an image, float32: `(n, k)` as it is, `(n,)` as `(n, 1)`.

    A network that squeezes its output drops the row of a lone image: a number, or k of them, are then its row. Outputs
    that wrap the numbers (`.logits`, a mapping, the first of a tuple) are unwrapped by `cfx.core.outputs`.

    Raises:
        InputError: anything else.
    """
    found = tensor_of(out, name)
    if n == 1 and found.ndim < 2:
        found = found.reshape(1, -1)
    if found.ndim not in (1, 2) or len(found) != n or found.is_complex():
        of = " complex" if found.is_complex() else ""
        raise InputError(f"{name}: expected logits of shape ({n}, k), got{of} {tuple(found.shape)}")
    return found.reshape(n, -1).float()

"""Work shared among processes: batches dealt in turn, parts joined in order as bytes, and failures shared too.

Nothing here pickles, and nothing depends on how many processes there are but who does what.
"""

import json
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor, distributed

from cfx.core.errors import CfxError, InputError, in_one_line
from cfx.core.rows import Rows

if TYPE_CHECKING:
    from accelerate import Accelerator

R = TypeVar("R", bound=Rows)

_LOST = re.compile(r"gloo|NCCL|[Cc]onnection (closed|reset|refused)|[Tt]imed out|[Bb]roken pipe")
_SHARES = 8  # batches that few rows are cut into
_FEWEST = 4  # rows below which a batch is not worth cutting


def dealt(n: int, accelerator: "Accelerator | None") -> range:
    """Which of the batches 0 .. n-1 are this process's: they are dealt in turn, and all are its own without a world."""
    return range(n) if accelerator is None else range(accelerator.process_index, n, accelerator.num_processes)


def even(n: int, most: int) -> int:
    """Rows to work on together, so that a few processes get even shares of few rows; at most `most`.

    It depends on the number of rows alone: the batches, hence every bit of a result, are the same for any number of
    processes.
    """
    return min(most, max(_FEWEST, -(-n // _SHARES)))


def shared(
    work: Callable[[Int[Tensor, " b"]], R], kind: type[R], n: int, batch_size: int, accelerator: "Accelerator | None"
) -> R:
    """All rows of something that is worked out batch by batch; every process does its share and gets the whole.

    Args:
        work: Works out the rows of some numbers among 0 .. n-1.
        kind: Class of the result.
        n: Rows, at least one.
        batch_size: Rows worked on together.
        accelerator: The processes; None for one alone.

    Raises:
        InputError: a batch of no rows.
        CfxError: the work failed, on this process or on another.
    """
    if batch_size < 1:
        raise InputError(f"batch_size: expected at least 1, got {batch_size}")
    batches = torch.arange(n).split(batch_size)
    with together(accelerator):
        mine = [work(batches[k]) for k in dealt(len(batches), accelerator)]
    return kind.cat(joined(mine, kind, len(batches), accelerator))


def joined(mine: Sequence[R], kind: type[R], n: int, accelerator: "Accelerator | None") -> list[R]:
    """All `n` parts in order, on every process.

    Args:
        mine: This process's parts, those of `dealt`, in order.
        kind: Their class.
        n: Parts of all processes.
        accelerator: The processes.
    """
    if accelerator is None or accelerator.num_processes == 1:
        return list(mine)
    parts = iter(mine)
    found = []
    for k in range(n):
        owner = k % accelerator.num_processes
        part = next(parts) if owner == accelerator.process_index else None
        found.append(_told(part, kind, owner, accelerator.device))
    return found


def _told(part: R | None, kind: type[R], owner: int, device: torch.device) -> R:
    """A process's value on every process: a header of plain values and shapes, then the bytes of every column."""
    header: dict[str, Any] = {}
    if part is not None:
        columns = {name: [str(v.dtype)[6:], *v.shape] for name, v in part.parts().items() if isinstance(v, Tensor)}
        texts = {name: v for name, v in part.parts().items() if not isinstance(v, Tensor)}
        header = {"plain": part.plain(), "columns": columns, "texts": texts}
    text = torch.frombuffer(bytearray(json.dumps(header).encode()), dtype=torch.uint8)
    size = _sent(torch.tensor([len(text)]), owner, device)
    text = _sent(text if part is not None else torch.zeros(int(size), dtype=torch.uint8), owner, device)
    header = json.loads(bytes(text.tolist()))
    found: dict[str, Any] = {name: tuple(v) for name, v in header["texts"].items()}
    for name, (dtype, *shape) in header["columns"].items():
        blank = torch.zeros(shape, dtype=getattr(torch, dtype))
        mine = blank if part is None else part.parts()[name]
        assert isinstance(mine, Tensor)
        found[name] = _sent(mine, owner, device)
    return kind.of(found, header["plain"])


def _sent(value: Tensor, owner: int, device: torch.device) -> Tensor:
    """The owner's tensor on every process, bit for bit; the others hand in one of its shape and dtype."""
    if not value.numel():
        return value
    data = value.detach().cpu().contiguous().view(torch.uint8).to(device)
    with with_others():
        distributed.broadcast(data, owner)
    return data.cpu().view(value.dtype)


@contextmanager
def together(accelerator: "Accelerator | None") -> Iterator[None]:
    """A block that every process runs; if it fails on one it fails on all, once all have come to its end.

    Raises:
        CfxError: the block failed on another process, which says why.
    """
    failed = False
    try:
        yield
    except CfxError:
        failed = True
        raise
    finally:
        if failed or sys.exc_info()[0] is None:
            count = round(total(float(failed), accelerator))
            if count and not failed:
                raise CfxError(f"{count} of the processes failed; their messages say why")


@contextmanager
def with_others() -> Iterator[None]:
    """A block that talks with other processes: of one that is gone, its silence is put into words.

    Raises:
        CfxError: another process of this run ended, or the connection to it.
    """
    try:
        yield
    except RuntimeError as error:
        if not distributed.is_initialized() or not _LOST.search(str(error)):
            raise
        raise CfxError(
            "another process of this run has ended, or cannot be reached; its own message, if it had time for one, "
            f"says why. What is finished is kept, and the same command goes on from there ({in_one_line(error)})"
        ) from error


def total(value: float, accelerator: "Accelerator | None") -> float:
    """The sum of a number over all processes."""
    if accelerator is None or accelerator.num_processes == 1:
        return value
    found = torch.tensor(value, dtype=torch.float64, device=accelerator.device)
    with with_others():
        distributed.all_reduce(found)
    return float(found)


def is_main() -> bool:
    """Whether this is the process that speaks: rank 0, or the only one."""
    return not distributed.is_initialized() or distributed.get_rank() == 0


def leave() -> None:
    """Leave the process group, once all have come this far; a process that just exits can bring the others down.

    For programs that end here; does nothing in a world of one process.
    """
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()

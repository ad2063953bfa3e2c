"""Batches are dealt in turn and parts come back in order, bit for bit; a failure on one process is one on all."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.rows import Rows
from cfx.runtime.shares import dealt, even, is_main, joined, leave, shared, together, total

ROOT = Path(__file__).parent.parent.parent
RANKS = r"""
import torch
from cfx.core.errors import CfxError
from cfx.runtime.processes import make_accelerator
from cfx.runtime.shares import dealt, joined, leave, together, total
from tests.runtime.test_shares import Toy, toy
accelerator = make_accelerator()
rank = accelerator.process_index
for n in (1, 2, 5):
    parts = joined([toy(k) for k in dealt(n, accelerator)], Toy, n, accelerator)
    whole = [toy(k) for k in range(n)]
    for a, b in zip(parts, whole, strict=True):
        assert a.plain() == b.plain() and a.names == b.names
        for name in ("x", "row", "ok"):
            assert getattr(a, name).numpy().tobytes() == getattr(b, name).numpy().tobytes(), name
assert total(rank + 0.5, accelerator) == sum(r + 0.5 for r in range(accelerator.num_processes))
try:
    with together(accelerator):
        if rank == 1:
            raise CfxError("the second one fails")
except CfxError as error:
    print(f"{rank}: {error}\n", end="", flush=True)
with together(accelerator):
    pass
print("fine\n", end="", flush=True)
leave()
"""


@dataclass(frozen=True)
class Toy(Rows):
    """Some rows.

    Attributes:
        row: Their numbers.
        x: Values.
        ok: Flags.
        names: Texts.
        seed: A plain value.
    """

    row: Int[Tensor, " n"]
    x: Float[Tensor, "n c"]
    ok: Bool[Tensor, " n"]
    names: tuple[str, ...]
    seed: int


def toy(k: int) -> Toy:
    """Part k, of k rows, NaN and denormal numbers included."""
    x = torch.full((k, 3), torch.nan)
    x[:, 1], x[:, 2] = 1e-42, k + 1 / 3
    return Toy(torch.arange(k) + 10 * k, x, torch.arange(k) % 2 == 0, tuple(f"\u00e9{i}" for i in range(k)), 7)


def test_parts_join_on_two_processes(tmp_path):
    (tmp_path / "script.py").write_text(RANKS)
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    done = subprocess.run(
        [*launcher, str(tmp_path / "script.py")], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(done.stdout.splitlines()) == [
        "0: 1 of the processes failed; their messages say why", "1: the second one fails", "fine", "fine",
    ]  # fmt: skip


def test_alone_everything_is_ours():
    parts = [toy(1), toy(2)]
    assert list(dealt(3, None)) == [0, 1, 2]
    assert joined(parts, Toy, 2, None) == parts
    assert total(2.5, None) == 2.5
    assert is_main()
    leave()


def test_what_is_not_ours_is_not_caught():
    with pytest.raises(KeyError), together(None):
        raise KeyError("x")


@pytest.mark.parametrize("n", range(9))
@pytest.mark.parametrize("world", range(1, 5))
def test_every_batch_is_dealt_once(n, world):
    class Some:
        num_processes = world

        def __init__(self, rank):
            self.process_index = rank

    hands = [list(dealt(n, Some(rank))) for rank in range(world)]
    assert sorted(k for hand in hands for k in hand) == list(range(n))
    assert max(map(len, hands)) - min(map(len, hands)) <= 1


@pytest.mark.parametrize("batch_size", [1, 3, 7, 9])
def test_work_is_done_batch_by_batch_and_each_row_once(batch_size):
    seen = []

    def work(rows):
        seen.append(rows.tolist())
        return Toy(rows, rows[:, None] * 0.5, rows > 3, tuple(map(str, rows.tolist())), 7)

    found = shared(work, Toy, 7, batch_size, None)
    assert [row for rows in seen for row in rows] == list(range(7))
    assert {len(rows) for rows in seen[:-1]} <= {batch_size}
    assert found.names == tuple("0123456")
    assert torch.equal(found.row, torch.arange(7))


def test_a_batch_of_no_rows_is_refused():
    with pytest.raises(InputError, match="batch_size: expected at least 1, got 0"):
        shared(lambda rows: toy(1), Toy, 7, 0, None)


@pytest.mark.parametrize(
    ("n", "most", "size"),
    [(1, 24, 4), (8, 24, 4), (48, 24, 6), (50, 24, 7), (192, 24, 24), (20_000, 24, 24), (8, 2, 2)],
)
def test_few_rows_are_cut_finer(n, most, size):
    assert even(n, most) == size


@pytest.mark.parametrize("world", [2, 4, 8])
@pytest.mark.parametrize("n", [8, 16, 48, 64, 200, 1000])
def test_processes_have_even_shares(n, world):
    """No process has more than one batch above another, and none is idle where each can have four rows."""
    batches = torch.arange(n).split(even(n, 24))
    shares = [sum(len(batches[k]) for k in range(rank, len(batches), world)) for rank in range(world)]
    assert max(shares) - min(shares) <= even(n, 24)
    assert min(shares) > 0 or n < 4 * world


LOST = """
import os, sys
from cfx.core.errors import CfxError
from cfx.runtime.processes import make_accelerator
from cfx.runtime.shares import total
accelerator = make_accelerator()
total(1.0, accelerator)
if accelerator.process_index == 1:
    os.kill(os.getpid(), 9)
try:
    total(1.0, accelerator)
except CfxError as error:
    print("said", error, flush=True)
os._exit(0)
"""


def test_of_a_process_that_was_killed_the_others_say_so(tmp_path):
    ports = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29871", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    worker = [sys.executable, "-c", LOST]
    ranks = [
        subprocess.Popen(worker, env=os.environ | ports | {"RANK": str(r), "LOCAL_RANK": str(r)},
                         stdout=subprocess.PIPE, text=True)
        for r in range(2)
    ]  # fmt: skip
    said = [rank.communicate(timeout=240)[0] for rank in ranks]
    assert said[0].startswith("said another process of this run has ended")
    assert ranks[1].returncode == -9

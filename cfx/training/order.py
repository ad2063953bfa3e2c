"""What is due at each step: which rows, from which seed."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.cohort import Source
from cfx.core.random import permutation, uniform
from cfx.training.objectives import REMEDY, Batch

_ORDER_SEED = 0x5EED_0DE5  # sets the order of rows apart from their noise, which is keyed by the plain seed


@lru_cache(maxsize=4)
def _epoch(n: int, seed: int, epoch: int) -> Tensor:
    return permutation(n, seed=seed ^ _ORDER_SEED, stream=epoch)


def rows_at(slot: Int[Tensor, " b"], n: int, seed: int) -> Int[Tensor, " b"]:
    """Which rows of a cohort of n stand at these places of the endless sequence of shuffled epochs."""
    epochs = (slot // n).tolist()
    return torch.stack([_epoch(n, seed, e)[p] for e, p in zip(epochs, (slot % n).tolist(), strict=True)])


def mix(seed: int, step: int, rank: int) -> int:
    """A seed for torch's own generator that differs by step and process."""
    return hash((seed, step, rank)) & (2**63 - 1)


def split(
    n: int, held: int, seed: int, y: Int[Tensor, " n"] | None = None, subject: Int[Tensor, " n"] | None = None
) -> tuple[Tensor, Tensor]:
    """Rows 0 .. n-1 as those to train on and about `held` rows to hold out, at random; subjects stay whole.

    Of each class about the same share is held out, of at least one subject, and at least one is kept. A class of one
    subject is kept. A subject with several labels counts for that of its first row in the random order.

    Args:
        n: Number of rows.
        held: Rows to hold out.
        seed: Seed of the random order.
        y: Class of every row; None takes all for one.
        subject: Number of every row's subject; None where each is its own.
    """
    order = permutation(n, seed=seed ^ _ORDER_SEED, stream=2**32 - 1)  # no epoch reaches this stream
    subject = torch.arange(n) if subject is None else subject
    y = torch.zeros(n, dtype=torch.long) if y is None else y
    whose, label = subject[order], y[order]
    units, of, size = whose.unique(return_inverse=True, return_counts=True)
    first = torch.full((len(units),), n).scatter_reduce(0, of, torch.arange(n), "amin")
    out = torch.zeros(len(units), dtype=torch.bool)
    for k in label.unique():
        unit = first.argsort()
        unit = unit[label[first[unit]] == k]
        many = size[unit].cumsum(0) - size[unit] / 2 <= held * size[unit].sum() / n
        most = min(max(int(many.sum()), 1 if held else 0), len(unit) - 1)
        out[unit[:most]] = True
    return order[~out[of]], order[out[of]]


@dataclass(frozen=True)
class Classes:
    """The rows of each class of a cohort, to draw from.

    Attributes:
        order: All rows, class by class.
        start: Place in `order` where each class begins.
        count: Rows of each class.
    """

    order: Int[Tensor, " n"]
    start: Int[Tensor, " k"]
    count: Int[Tensor, " k"]

    @classmethod
    def of(cls, y: Int[Tensor, " n"]) -> Self:
        """The classes that occur, in label order."""
        _, count = y.unique(return_counts=True)
        return cls(y.argsort(stable=True), count.cumsum(0) - count, count)

    def draw(self, k: Int[Tensor, " b"], u: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
        """The row of class number k at the part u in [0, 1) of its rows."""
        return self.order[self.start[k] + (u.double() * self.count[k]).long()]


def drawn(cohort: Source, classes: Classes, each: int, batch: Batch, key: int) -> Batch:
    """Other rows that a step looks at, its classes in turn; the same for every part and process.

    Args:
        cohort: Training rows.
        classes: Which of them belong to each class.
        each: Rows of each class.
        batch: Rows of the step.
        key: Sets the draws apart from others of the same step.
    """
    m, device = each * len(classes.count), batch.x.device
    slot, seed = torch.arange(batch.step * m, (batch.step + 1) * m), batch.seed ^ key
    row = classes.draw(slot % len(classes.count), uniform((), seed=seed, row=slot, stream=REMEDY))
    read = cohort[row]
    y = None if read.y is None else read.y.to(device)
    return Batch(read.x.to(device), y, slot.to(device), seed, batch.step, row.to(device))


def at(values: Tensor, row: Int[Tensor, " b"]) -> Tensor:
    """The values of these rows, on the device of `row`."""
    return values[row.cpu()].to(row.device)

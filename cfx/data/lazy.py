"""Cohorts whose images are read when they are asked for, so that they need not fit in memory.

Labels, names and covariates of all rows are known from the start. Images are read in blocks of consecutive rows, as
they lie on disk, and the blocks used last are kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from jaxtyping import Int, Shaped
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.rows import Index, positions

CACHE = 2**29
"""Bytes of images that a lazy cohort keeps, by default: half a gibibyte."""

Columns = Mapping[str, Tensor]
"""Fields of a `Cohort` by name, `(m, ...)` each; those that have to be read."""
Reader = Callable[[slice], Columns]
"""The columns of consecutive rows, which depend on these rows alone; `x` is among them."""


@dataclass(frozen=True, eq=False)
class LazyCohort:
    """A `Source` over a function that reads.

    Attributes:
        read: Columns of some rows.
        ids: One name a row.
        y: Labels, as in `Cohort`, or None.
        covariates: Numeric columns `(n,)` by name.
        classes: Names of the classes, in label order.
        axes: Names of the spatial axes, as in `Cohort`.
        file: Path of every row's file, as in `Cohort`, or None.
        categories: What the codes of covariates stand for, as in `Cohort`.
        block: Rows that are read and kept together.
        cache: Most bytes to keep; one block is kept at least.
    """

    read: Reader
    ids: tuple[str, ...]
    y: Tensor | None = None
    covariates: Mapping[str, Shaped[Tensor, " n"]] = field(default_factory=dict)
    classes: Sequence[str] = field(default_factory=list)
    axes: Sequence[str] = field(default_factory=list)
    file: tuple[str, ...] | None = None
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)
    block: int = 1
    cache: int = CACHE

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(c, *space)` of one image; reads the first block."""
        return tuple(self._first["x"].shape[1:])

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.ids)

    def __getitem__(self, rows: Index) -> Cohort:
        """These rows with their images.

        Raises:
            InputError: images that cannot be read, are not in [-1, 1], or differ in shape from the first.
        """
        at = positions(rows, len(self))
        number = at // self.block
        found: dict[str, Tensor] = {}
        for b in number.unique().tolist() or [0]:
            here = number == b
            for name, column in self._kept.get(b).items():
                into = found.setdefault(name, column.new_empty(len(at), *column.shape[1:]))
                into[here] = column[at[here] - b * self.block]
        return self._cohort(at, found)

    def load(self) -> Cohort:
        """All rows at once, without the cache; errors as for some rows."""
        return self._cohort(torch.arange(len(self)), self.read(slice(0, len(self))))

    def _cohort(self, at: Int[Tensor, " m"], columns: Columns) -> Cohort:
        return Cohort(
            **columns,
            y=None if self.y is None else self.y[at],
            ids=tuple(self.ids[i] for i in at.tolist()),
            covariates={name: column[at] for name, column in self.covariates.items()},
            classes=self.classes,
            axes=self.axes,
            file=None if self.file is None else tuple(self.file[i] for i in at.tolist()),
            categories=self.categories,
        )

    @cached_property
    def _first(self) -> Columns:
        """The first block, which tells what all look like."""
        return self.read(slice(0, min(self.block, len(self))))

    @cached_property
    def _kept(self) -> "_Kept":
        return _Kept(self._read, self._first, self.cache, -(-len(self) // self.block))

    def _read(self, number: int) -> Columns:
        """The block of this number."""
        if not number:
            return self._first
        rows = slice(number * self.block, min((number + 1) * self.block, len(self)))
        columns = self.read(rows)
        for name, column in columns.items():
            if column.shape[1:] != self._first[name].shape[1:]:
                raise InputError(
                    f"images differ in shape: {name} is {tuple(self._first[name].shape[1:])} in {self.ids[0]}, "
                    f"{tuple(column.shape[1:])} in {self.ids[rows.start]}"
                )
        return columns


class _Kept:
    """The blocks used last.

    They lie in memory that is set aside once, and taken up as it fills. Small tensors that stay, allocated among large
    ones that go, would tear the heap apart: eight times their own size was measured in training.
    """

    def __init__(self, read: Callable[[int], Columns], first: Columns, most: int, blocks: int) -> None:
        """Make room for blocks like the first, `most` bytes of them and one at least, but no more than there are."""
        room = max(1, min(blocks, most // sum(column.nbytes for column in first.values())))
        self.read, self.room = read, room
        self.columns = {name: column.new_empty(room, *column.shape) for name, column in first.items()}
        self.place: OrderedDict[int, tuple[int, int]] = OrderedDict()  # slot and rows of each block, the latest last

    def get(self, number: int) -> Columns:
        """A block, to be copied before the next is asked for."""
        if number not in self.place:
            self._fill(number)
        self.place.move_to_end(number)
        slot, rows = self.place[number]
        return {name: column[slot, :rows] for name, column in self.columns.items()}

    def _fill(self, number: int) -> None:
        block = self.read(number)
        slot = len(self.place) if len(self.place) < self.room else self.place.popitem(last=False)[1][0]
        for name, column in block.items():
            self.columns[name][slot, : len(column)] = column
        self.place[number] = (slot, len(block["x"]))

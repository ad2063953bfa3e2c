"""Who is held out with whom, and whose target may stand in whose place.

The unit is the subject, however many rows (scans) there are of it: the rows of one subject are a group. It has one
target, is never split between folds, and is permuted whole, with subjects of as many rows. Subjects of one block and
equally many rows are dealt at random into cells, as many as the rarer value of a binary target has subjects, so that
each cell holds both values in about the same proportion; a matched pair is one cell. A cell stays in one fold, and
targets are permuted inside cells alone.

So folds are stratified for every permutation, they are the same for all, which lets all share one decomposition of the
view, and the test is exact: if the target is independent of the view, each way to hand out what a cell holds to its
subjects was as likely to give these cells. A continuous target needs no such care: folds do not look at it, and it is
permuted among all subjects of one block and size.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.random import permutation, uniform

_CELLS, _ORDERS, _FOLDS = range(3)  # streams


@dataclass(frozen=True)
class Subjects:
    """Subjects with their targets.

    Attributes:
        of_row: Subject of every row `(n,)`, numbered from 0.
        target: Target of every subject `(g,)`, float64; 0 and 1 for a binary one.
        binary: Whether there are two values.
        cell: Cell of every subject; those of a cell share a fold.
        pool: Pool of every subject; targets are permuted inside it.
    """

    of_row: Int[Tensor, " n"]
    target: Float[Tensor, " g"]
    binary: bool
    cell: Int[Tensor, " g"]
    pool: Int[Tensor, " g"]

    @classmethod
    def of(
        cls,
        target: Shaped[Tensor, "..."],
        groups: Int[Tensor, "_"] | None = None,
        blocks: Int[Tensor, "_"] | None = None,
        *,
        seed: int = 0,
    ) -> Self:
        """The subjects of rows, their cells and pools.

        Args:
            target: Booleans or integers of two values (the higher counts as positive), or floating-point numbers.
            groups: Subject of every row; None where every row is one.
            blocks: Inside what targets are exchangeable (a matched pair, an age bin, a site); None for all.
            seed: Seed of the cells.

        Raises:
            InputError: other numbers of rows, a target of one value, of three integers or with NaN, a subject with two
                targets or in two blocks, or no subjects of one block and size with different targets.
        """
        values, binary = _values(target)
        of = numbered(torch.arange(len(values)) if groups is None else groups, len(values), "groups")
        block = numbered(torch.zeros(len(values)) if blocks is None else blocks, len(values), "blocks")
        size = of.bincount()
        y = _of_groups(values, of, "target")
        pool = torch.stack([_of_groups(block, of, "blocks"), size], 1).unique(dim=0, return_inverse=True)[1]
        if len(torch.stack([pool.double(), y], 1).unique(dim=0)) == len(pool.unique()):
            raise InputError("target: expected groups of one block and size with different targets, got none")
        cell = _cells(y.long(), pool, seed) if binary else torch.arange(len(y))
        return cls(of, y, binary, cell, cell if binary else pool)

    def __len__(self) -> int:
        """Number of subjects."""
        return len(self.target)

    def mean(self, values: Float[Tensor, "m n"]) -> Float[Tensor, "m g"]:
        """Mean over the rows of each subject."""
        return sums(values.T, self.of_row).T / self.of_row.bincount()

    def permuted(self, draws: int, seed: int) -> Float[Tensor, "draws g"]:
        """Targets of the subjects, permuted at random inside their pools."""
        key = uniform((len(self),), seed=seed, row=torch.arange(draws), stream=_ORDERS).double()
        out = torch.empty(draws, len(self), dtype=torch.float64)
        out[:, self.pool.argsort(stable=True)] = self.target[(self.pool + key).argsort(dim=1, stable=True)]
        return out

    def folds(self, k: int, *, seed: int, repeat: int) -> Int[Tensor, " g"]:
        """Fold 0 .. k - 1 of every subject; cells of one make-up are dealt out evenly.

        Raises:
            InputError: fewer than three folds, fewer cells than folds, or a value of a binary target in fewer than
                three of them, so that a model would be trained without it.
        """
        cells = int(self.cell.max()) + 1
        if not 3 <= k <= cells:
            raise InputError(f"folds: expected 3 .. {cells}, one cell of groups in each at least, got {k}")
        made_of = torch.zeros(cells, dtype=torch.float64)
        if self.binary:  # positives and negatives as one number
            made_of.index_add_(0, self.cell, 1 + self.target * len(self))
        key = uniform((cells,), seed=seed, row=torch.tensor([repeat]), stream=_FOLDS)[0]
        shuffled = key.argsort(stable=True)
        fold = torch.empty(cells, dtype=torch.long)
        fold[shuffled[made_of[shuffled].argsort(stable=True)]] = torch.arange(cells) % k
        fold = fold[self.cell]
        if self.binary and min(len(fold[self.target == v].unique()) for v in (0, 1)) < 3:
            raise InputError("target: expected each value in three folds at least, got too few groups that have it")
        return fold


def numbered(groups: Shaped[Tensor, "*k"], n: int, name: str = "groups") -> Int[Tensor, " n"]:
    """Groups of rows, numbered from 0 in the order of their names.

    Args:
        groups: Name of every row's group, numbers of any kind.
        n: Number of rows there should be.
        name: What to call them in the error.

    Raises:
        InputError: not one entry a row.
    """
    if groups.shape != (n,):
        raise InputError(f"{name}: expected shape {(n,)}, one entry a row, got {tuple(groups.shape)}")
    numbers: Tensor = groups.unique(return_inverse=True)[1]
    return numbers


def sums(values: Shaped[Tensor, "n *k"], of_row: Int[Tensor, " n"]) -> Shaped[Tensor, "g *k"]:
    """Sum over the rows of each group; `of_row` as `numbered` has it."""
    return values.new_zeros(int(of_row.max()) + 1, *values.shape[1:]).index_add_(0, of_row, values)


def dealt(of_row: Int[Tensor, " n"], k: int, *, seed: int, stream: int = 0) -> Int[Tensor, " n"]:
    """Fold 0 .. k - 1 of every row; groups stay whole and are dealt out at random, the same number to each fold.

    Args:
        of_row: Group of every row, as `numbered` has it.
        k: Number of folds.
        seed: Seed of the deal.
        stream: Which of the independent deals of that seed.
    """
    return permutation(int(of_row.max()) + 1, seed=seed, stream=stream)[of_row] % k


def _values(target: Tensor) -> tuple[Float[Tensor, " n"], bool]:
    """The target in float64, 0 and 1 if it is of two integers."""
    if target.ndim != 1:
        raise InputError(f"target: expected one value a row, got shape {tuple(target.shape)}")
    if target.is_floating_point():
        if not bool(torch.isfinite(target).all()):
            raise InputError("target: expected finite values, got NaN or infinite ones")
        return target.double(), False
    found = target.unique()
    if len(found) != 2:
        raise InputError(f"target: expected two values, or floating-point numbers, got {found.tolist()[:8]}")
    return (target == found[1]).double(), True


def _of_groups(values: Tensor, of: Tensor, name: str) -> Tensor:
    """The one value of each group."""
    first = torch.empty(int(of.max()) + 1, dtype=values.dtype)
    first[of] = values
    differ = of[first[of] != values].unique().tolist()
    if differ:
        raise InputError(f"{name}: expected one value a group, got several in {len(differ)} groups")
    return first


def _cells(y: Int[Tensor, " g"], pool: Int[Tensor, " g"], seed: int) -> Int[Tensor, " g"]:
    """Random cells inside pools; a pool with one value falls into single groups."""
    counts = torch.stack([(pool[y == v]).bincount(minlength=int(pool.max()) + 1) for v in (0, 1)])
    number = torch.where(counts.amin(0) == 0, counts.amax(0), counts.amin(0))
    kind = 2 * pool + y
    key = uniform((len(y),), seed=seed, row=torch.zeros(1, dtype=torch.long), stream=_CELLS)[0].double()
    order = (kind + key).argsort(stable=True)
    start = torch.searchsorted(kind[order].contiguous(), kind)
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order))
    return (number.cumsum(0) - number)[pool] + (rank - start) % number[pool]

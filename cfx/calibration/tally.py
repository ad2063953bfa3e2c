"""All that calibration figures need of any number of rows or voxels, in a few numbers that add up.

So a cohort of volumes that no memory holds is measured case by case: `sum` the tallies of the cases.
"""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.calibration import measures
from cfx.core.calibration import BINS, Reliability, bin_sums, even_edges, top_label
from cfx.core.errors import InputError
from cfx.core.probabilities import Classes, Probabilities, classes, probabilities


@dataclass(frozen=True)
class Tally:
    """Sums over rows or voxels, float64.

    Attributes:
        rows: How many.
        right: Of how many the most probable class is right.
        loss: Sum of -log p_y.
        squares: Sum of the Brier scores.
        sums: `bin_sums` of the most probable class, and of every class.
    """

    rows: int
    right: int
    loss: float
    squares: float
    sums: Float[Tensor, "curves sums=4 bins"]

    @classmethod
    def of(cls, p: Probabilities, y: Classes, *, bins: int = BINS) -> Self:
        """The tally of some rows or voxels.

        Args:
            p: Probabilities `(n, k, *space)`.
            y: Classes `(n, *space)`.
            bins: Number of bins of equal width.

        Raises:
            InputError: numbers that are no probabilities, or labels that are no classes of them.
        """
        found = probabilities(p)
        truth, edges = classes(y, found), even_edges(bins)
        confidence, right = top_label(found, truth)
        sums = [bin_sums(confidence.clamp(0, 1), right, edges).cpu()]
        each = ((found[:, k].flatten().clamp(0, 1), (truth == k).flatten()) for k in range(found.shape[1]))
        sums += [bin_sums(of, own, edges).cpu() for of, own in each]
        n = truth.numel()
        return cls(
            n, int(right.sum()), n * measures.nll(found, truth), n * measures.brier(found, truth), torch.stack(sums)
        )

    def __add__(self, other: Self) -> Self:
        """Both together.

        Raises:
            InputError: other numbers of classes or bins.
        """
        if self.sums.shape != other.sums.shape:
            raise InputError(
                f"Tally: expected equal classes and bins, got {tuple(self.sums.shape)}, {tuple(other.sums.shape)}"
            )
        return type(self)(
            self.rows + other.rows, self.right + other.right, self.loss + other.loss, self.squares + other.squares,
            self.sums + other.sums,
        )  # fmt: skip

    def __radd__(self, other: int) -> Self:
        """What `sum` starts with."""
        return self

    def reliability(self, label: int | None = None) -> Reliability:
        """The reliability diagram of the most probable class, or of class `label`."""
        return Reliability.of(even_edges(self.sums.shape[2]), self.sums[0 if label is None else 1 + label])

    def figures(self) -> dict[str, float]:
        """As `measures.figures`, but the debiased error, of all rows together."""
        top, n = self.reliability(), self.rows
        each = [self.reliability(k).ece for k in range(len(self.sums) - 1)]
        return {
            "accuracy": self.right / n, "nll": self.loss / n, "brier": self.squares / n, "ece": top.ece,
            "ece_bins": top.ace, "classwise_ece": sum(each) / len(each),
        }  # fmt: skip

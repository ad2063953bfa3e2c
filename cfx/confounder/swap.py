"""Shapes of other brains on the same image: the intervention of the shape-reliance test.

Every image gets one donor of the other class at random and one of its own class whose change is of the same size, by
optimal assignment: what the two arms do to the image then differs in whose shape it is, not in how far it was bent. The
round trips, half of the way and back, bend and interpolate as much, and end in the image's own shape.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from cfx.confounder.intervention import (
    IDENTITY,
    OPPOSITE,
    ROUND_TRIP,
    ROUND_TRIP_SAME,
    SAME,
    UNTOUCHED,
    Shown,
    dose_arm,
    taken,
)
from cfx.confounder.shape.normalise import mean_shape
from cfx.confounder.shape.transfer import Transfer, Transferred
from cfx.core.cohort import Cohort, subject_names
from cfx.core.distance import plausible_volumes, solid
from cfx.core.errors import InputError
from cfx.core.random import permutation
from cfx.core.scores import pairwise_dice

RANDOM, NORMALISED = "random", "normalised"

Then = Callable[[Float[Tensor, "b c *space"], Bool[Tensor, "b 1 *space"]], Float[Tensor, "b c *space"]]


@dataclass(frozen=True)
class ShapeSwap:
    """A shape intervention with its donors drawn.

    Attributes:
        x: Images `(n, c, *space)`.
        mask: Their brains, without holes.
        y: Classes, 0 or 1.
        shapes: Pool of donors' masks `(m, 1, *space)`.
        other: Donor of the other class of every image.
        own: Donor of its own class.
        mean: The mean shape `(1, 1, *space)` of the pool, shown in the arm `normalised`.
        transfer: How a shape is given, and which volumes are usual among the pool: rows with a donor whose skull strip
            failed, say, are not to be trusted.
        doses: Parts of the way to show besides.
        lesion: Lesions that a transfer must not distort, or None.
        then: What the classifier's own pipeline does to an image and its mask before it classifies (normalisation,
            say), done to every arm; None for nothing.
        seed: Seed of the random warps.
    """

    x: Float[Tensor, "n c *space"]
    mask: Bool[Tensor, "n 1 *space"]
    y: Int[Tensor, " n"]
    shapes: Bool[Tensor, "m 1 *space"]
    other: Int[Tensor, " n"]
    own: Int[Tensor, " n"]
    mean: Bool[Tensor, "1 1 *space"]
    transfer: Transfer
    doses: tuple[float, ...] = ()
    lesion: Bool[Tensor, "n 1 *space"] | None = None
    then: Then | None = None
    seed: int = 0

    @classmethod
    def of(
        cls,
        cohort: Cohort,
        donors: Cohort,
        *,
        doses: tuple[float, ...] = (),
        then: Then | None = None,
        lesions: bool = False,
        seed: int = 0,
    ) -> Self:
        """Draw the donors.

        An image is never its own donor (rows of equal `cfx.core.cohort.subject_names` are one subject). While donors
        last none serves two images of an arm.

        Args:
            cohort: Test images with masks and the classes 0 and 1.
            donors: Whose masks are borrowed, of both classes; the test images themselves may serve.
            doses: Parts of the way to show besides.
            then: See the attribute.
            lesions: Whether the cohort's lesion masks must move without changing.
            seed: Seed of donors and random warps.

        Raises:
            InputError: images or donors without masks or without both classes, or of other shapes, or fewer than five
                donors.
        """
        (mask, y), (shapes, c) = (_labelled(part, name) for part, name in ((cohort, "cohort"), (donors, "donors")))
        if mask.shape[2:] != shapes.shape[2:]:
            raise InputError(f"donors: expected masks of shape {tuple(mask.shape[2:])}, got {tuple(shapes.shape[2:])}")
        gap = 1 - pairwise_dice(mask, shapes)
        lenders = subject_names(donors)
        taken = torch.tensor([[a == b for b in lenders] for a in subject_names(cohort)])
        other, own = torch.zeros_like(y), torch.zeros_like(y)
        for k in (0, 1):
            rows, theirs = (y == k).nonzero()[:, 0], [(c == j).nonzero()[:, 0] for j in (1 - k, k)]
            order = permutation(len(theirs[0]), seed=seed, stream=k)
            other[rows] = theirs[0][order.repeat(-(-len(rows) // len(order)))[: len(rows)]]
            size = gap[rows, other[rows]]
            cost = (gap[rows][:, theirs[1]] - size[:, None]).abs() + 1e6 * taken[rows][:, theirs[1]]
            own[rows] = theirs[1][_assign(cost)]
        lesion = cohort.lesion if lesions else None
        transfer = Transfer(plausible_volumes(shapes))
        return cls(cohort.x, mask, y, shapes, other, own, mean_shape(shapes), transfer, doses, lesion, then, seed)

    def show(self, rows: Int[Tensor, " b"]) -> Shown:
        """All arms of these rows, on the device of `rows`; each shape is matched once."""
        x, mask = taken(self.x, rows), taken(self.mask, rows)
        lesion = None if self.lesion is None else taken(self.lesion, rows)
        donors = (taken(self.shapes, taken(donor, rows)) for donor in self.donors)
        other, own = (self.transfer(x, mask, donor, lesion=lesion) for donor in donors)
        arms = {
            UNTOUCHED: (x, mask),
            IDENTITY: _shown(self.transfer.identity(x, mask)),
            ROUND_TRIP: (other.back(), mask),
            ROUND_TRIP_SAME: (own.back(), mask),
            SAME: _shown(own),
            OPPOSITE: _shown(other),
            RANDOM: _shown(self.transfer.random(x, mask, other.v, seed=self.seed, row=rows)),
            NORMALISED: _shown(self.transfer(x, mask, self.mean.to(rows.device).expand_as(mask), lesion=lesion)),
        }
        arms |= {dose_arm(t): _shown(self.transfer.deform(x, mask, other.v, dose=t)) for t in self.doses}
        quality = {
            f"{k}_{name}": getattr(t, k) for name, t in ((SAME, own), (OPPOSITE, other)) for k in ("dice", "blur")
        }
        done = {name: image if self.then is None else self.then(image, m) for name, (image, m) in arms.items()}
        return Shown(done, own.ok & other.ok, quality)

    @property
    def toward(self) -> Int[Tensor, " n"]:
        """The other class."""
        return 1 - self.y

    @property
    def start(self) -> str:
        """Doses lead from the image's own shape to the donor's."""
        return IDENTITY

    @property
    def donors(self) -> tuple[Int[Tensor, " n"], Int[Tensor, " n"]]:
        """Rows of the pool."""
        return self.other, self.own


def _shown(t: Transferred) -> tuple[Tensor, Tensor]:
    """Images and their support."""
    return t.x, t.mask


def _labelled(cohort: Cohort, name: str) -> tuple[Tensor, Tensor]:
    """Masks without holes, and classes."""
    if cohort.mask is None or cohort.y is None:
        raise InputError(f"{name}: expected masks and labels, got {'no labels' if cohort.y is None else 'no masks'}")
    if cohort.y.ndim != 1 or sorted(cohort.y.unique().tolist()) != [0, 1]:
        raise InputError(f"{name}.y: expected both classes 0 and 1, got {cohort.y.unique().tolist()}")
    return solid(cohort.mask), cohort.y


def _assign(cost: Float[Tensor, "n m"]) -> Int[Tensor, " n"]:
    """A column for every row at the least total cost, columns used anew only when all are used."""
    repeats = -(-cost.shape[0] // cost.shape[1])
    rows, columns = linear_sum_assignment(cost.repeat(1, repeats).numpy())
    found = torch.zeros(len(cost), dtype=torch.long)
    found[torch.from_numpy(rows)] = torch.from_numpy(columns) % cost.shape[1]
    return found

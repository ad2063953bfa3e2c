"""Masks that miss at most a share alpha of a region on average: conformal risk control of segmentations.

The mask of an image is every voxel whose probability is at least a threshold, lowered as far as calibration rows ask
for (`cfx.core.risk`, first part):

    false-negatives    share of the region's voxels that the mask leaves out
    lesions            share of the region's connected parts of which the mask has no voxel
    a function         of masks `(n, *space)` and regions to losses `(n,)` in [0, 1] that never rise as masks grow

These hold on average over images that have the region; of one without any, nothing can be missed. Dice rises and falls
with the mask, so no such argument holds: `dice` tries 19 thresholds, and promises that 1 - Dice is at most alpha on
average with probability 1 - delta over the calibration rows (second part; Bonferroni over the thresholds).

Several readers `(n, reader, *space)` count alike within an image, and images within a patient (`groups`): patients are
what is exchangeable. Probabilities may be a network's, or the share of a sampler's draws that have the voxel, which
uses how draws hang together (as CONSIGN does) through what a sampler knows of them. `Margins` grows masks by
millimetres instead.

References: as `cfx.core.risk`; Mossina, Dalmau, Andeol (2024), "Conformal semantic image segmentation"; Mossina,
Friedrich (2025), "Conformal prediction for image segmentation using morphological prediction sets", for margins.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from cfx.core.arrays import as_tensor
from cfx.core.disjoint import People, check_disjoint, people
from cfx.core.errors import InputError
from cfx.core.groups import numbered, sums
from cfx.core.risk import allowed_risk, check_alpha, risk_threshold, smaller_mean_p
from cfx.core.rows import Rows
from cfx.core.scores import dice

Loss = Callable[[Bool[Tensor, "n *space"], Bool[Tensor, "n *space"]], Float[Tensor, " n"]]
"""From masks and regions to a loss in [0, 1] of each image."""
Volumes = Shaped[Tensor, "..."] | NDArray[Any]
"""A number of every voxel of every image, `(n, *space)`."""
Regions = Shaped[Tensor, "..."] | NDArray[Any]
"""Where the region is, as one reader saw it, `(n, *space)`, or several, `(n, reader, *space)`."""

NAMED = ("false-negatives", "lesions", "dice")
_TRIED = 19  # thresholds of Dice
_GRID = 101  # thresholds of a function
_ON_AVERAGE = "new patients and calibration patients are exchangeable; the mean over both is promised"
_CONFIDENT = "patients are independent draws of one distribution; promised with probability 1 - delta over calibration"
_FAR = 1e6  # voxels between the images of a stack, in whose distances another image never counts


@dataclass(frozen=True)
class ControlledMasks(Rows):
    """Masks of controlled risk, one row an image.

    Attributes:
        masks: The masks, `(n, *space)`.
        volume: Voxels of each.
        row: Index of the image.
        loss: What is controlled.
        threshold: Lowest probability in the masks, or how many voxels they were grown by.
        level: 1 - the largest mean loss.
        calibrated: Patients (or images) that the threshold was made of.
        assumption: What the level rests on.
    """

    masks: Bool[Tensor, "n *space"]
    volume: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    loss: str
    threshold: float
    level: float
    calibrated: int
    assumption: str


@dataclass(frozen=True)
class Controlled:
    """A threshold, and what it was made of.

    Attributes:
        alpha: Largest mean loss.
        loss: What is controlled.
        most: Largest 1 - p of a voxel in the mask; infinite where there are too few rows, so that masks are full.
        rows: Patients (or images) that have the region.
        assumption: What the level rests on.
        ids: Subjects, where they were named.
    """

    alpha: float
    loss: str
    most: float
    rows: int
    assumption: str
    ids: tuple[str, ...] = field(default=(), repr=False)

    @property
    def threshold(self) -> float:
        """Lowest probability of a voxel in the mask."""
        return max(0.0, 1 - self.most)

    def masks(self, p: Volumes, *, ids: People = ()) -> ControlledMasks:
        """The masks of new images.

        Args:
            p: Probability of the region at every voxel, `(n, *space)`.
            ids: The subject of every image, or their cohort, which must not be among the calibration rows.

        Raises:
            InputError: numbers that are no probabilities, or subjects of the calibration rows.
        """
        found = _probability(p)
        if own := people(ids, len(found)):
            check_disjoint(own, [self.ids])
        inside = 1 - found.double() <= self.most
        return _masks(inside, self.loss, self.threshold, self.alpha, self.rows, self.assumption)


def _masks(
    inside: Bool[Tensor, "n *space"], loss: str, threshold: float, alpha: float, rows: int, assumption: str
) -> ControlledMasks:
    return ControlledMasks(
        masks=inside, volume=inside.flatten(1).sum(1), row=torch.arange(len(inside)), loss=loss, threshold=threshold,
        level=1 - alpha, calibrated=rows, assumption=assumption,
    )  # fmt: skip


@dataclass(frozen=True)
class RiskControl:
    """Risk control of segmentations.

    Attributes:
        alpha: Largest mean loss.
        loss: `false-negatives`, `lesions`, `dice` or a function (see the module).
        delta: Probability that a promise about Dice fails.
    """

    alpha: float = 0.1
    loss: str | Loss = "false-negatives"
    delta: float = 0.1

    def __post_init__(self) -> None:
        """Refuse what is no level or no loss."""
        check_alpha(self.alpha)
        check_alpha(self.delta, "delta")
        if not callable(self.loss) and self.loss not in NAMED:
            raise InputError(f"loss: expected one of {', '.join(NAMED)} or a function, got {self.loss!r}")

    @property
    def name(self) -> str:
        """What is controlled."""
        return self.loss if isinstance(self.loss, str) else getattr(self.loss, "__name__", "loss")

    def fit(
        self,
        p: Volumes,
        region: Regions,
        *,
        groups: Int[Tensor, " n"] | None = None,
        ids: People = (),
        apart_from: Sequence[People] = (),
    ) -> Controlled:
        """Make the threshold of calibration images.

        Args:
            p: Probability of the region at every voxel, `(n, *space)`.
            region: Where it is, `(n, *space)`, or as several readers saw it, `(n, reader, *space)`.
            groups: Patient of every image, whose images then count together.
            ids: The subject of every image, or their cohort.
            apart_from: Who must not be among them.

        Raises:
            InputError: numbers that are no probabilities, regions of other shapes, a function that rises as masks grow
                or is not in [0, 1], subjects in common, or no threshold that keeps the promise about Dice.
        """
        found, truth = _probability(p), _regions(region, p)
        known = people(ids, len(found))
        check_disjoint(known, apart_from)
        of = torch.arange(len(found)) if groups is None else numbered(groups, len(found), "groups")
        weight, n = _shares(truth, of)
        if self.loss == "dice":
            most = self._of_dice(found, truth, weight, n)
        elif callable(self.loss):
            most = self._of_function(self.loss, found, truth, weight, n)
        else:
            scores, each = (
                _voxels(found, truth, weight) if self.loss == "false-negatives" else _parts(found, truth, weight)
            )
            most = risk_threshold(scores, each, n, self.alpha)
        return Controlled(self.alpha, self.name, most, n, _CONFIDENT if self.loss == "dice" else _ON_AVERAGE, known)

    def _of_function(self, loss: Loss, p: Tensor, truth: Tensor, weight: Tensor, n: int) -> float:
        """Smallest 1 - threshold of a grid whose mean loss is small enough."""
        before = torch.full(truth.shape[:2], torch.inf, dtype=torch.float64)
        for most in torch.linspace(0, 1, _GRID, dtype=torch.float64).tolist():
            now = _losses(loss, 1 - p.double() <= most, truth)
            if bool((now > before + 1e-9).any()) or not bool(((now >= 0) & (now <= 1)).all()):
                raise InputError(
                    f"loss: expected losses in [0, 1] that never rise as masks grow, got {self.name} that does"
                )
            if float((now * weight).sum()) <= allowed_risk(n, self.alpha) * n + 1e-9:
                return float(most)
            before = now
        return torch.inf

    def _of_dice(self, p: Tensor, truth: Tensor, weight: Tensor, n: int) -> float:
        """1 - the threshold of the least mean loss among those that keep the promise."""
        grid = torch.linspace(0, 1, _TRIED + 2, dtype=torch.float64)[1:-1].tolist()
        means: list[float] = [
            float((_losses(_undice, 1 - p.double() <= most, truth) * weight).sum()) / max(n, 1) for most in grid
        ]
        best = int(np.argmin(means))
        if smaller_mean_p(means[best], n, self.alpha) > self.delta / _TRIED:
            raise InputError(
                f"alpha: no threshold keeps 1 - Dice at most {self.alpha:g} with confidence {1 - self.delta:g}; the "
                f"least mean of {n} patients is {means[best]:.3f}, at {1 - grid[best]:.2f}; give more patients"
            )
        return float(grid[best])


def _undice(masks: Bool[Tensor, "n *space"], truth: Bool[Tensor, "n *space"]) -> Float[Tensor, " n"]:
    found: Tensor = dice(masks.flatten(1), truth.flatten(1))
    return 1 - found.double()


def _losses(loss: Loss, masks: Bool[Tensor, "n *space"], truth: Bool[Tensor, "n r *space"]) -> Float[Tensor, "n r"]:
    """Losses to every reader."""
    every = masks[:, None].expand(truth.shape).flatten(0, 1)
    return loss(every, truth.flatten(0, 1)).double().view(truth.shape[:2])


def _probability(p: Volumes) -> Float[Tensor, "n *space"]:
    found = as_tensor(p, "p", "probabilities (n, *space)")
    if not found.is_floating_point() or found.ndim < 2 or not found.numel():
        raise InputError(f"p: expected probabilities (n, *space) of the region, got {found.dtype} {tuple(found.shape)}")
    low, high = (float(v) for v in found.aminmax())
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"p: expected probabilities in [0, 1], got [{low:.4g}, {high:.4g}]; of logits pass their sigmoid"
        )
    return found


def _regions(region: Regions, p: Volumes) -> Bool[Tensor, "n r *space"]:
    """Regions with an axis of readers."""
    found, shape = as_tensor(region, "region", "a mask of every image"), tuple(p.shape)
    if found.dtype != torch.bool:
        if not bool(((found == 0) | (found == 1)).all()):
            raise InputError(
                f"region: expected True and False, or 1 and 0, got values of {found.dtype}; take one label"
            )
        found = found.bool()
    found = found[:, None] if tuple(found.shape) == shape else found
    if found.shape[:1] + found.shape[2:] != shape or not found.shape[1]:
        raise InputError(f"region: expected {shape}, or with readers along axis 1, got {tuple(region.shape)}")
    return found


def _shares(truth: Bool[Tensor, "n r *space"], of: Int[Tensor, " n"]) -> tuple[Float[Tensor, "n r"], int]:
    """Weight of every reading that has the region, adding up to 1 in every patient with any; and how many these are."""
    some = truth.flatten(2).any(2).double().cpu()
    each = sums(some.sum(1), of)
    return some / each[of].clamp_min(1)[:, None], int((each > 0).sum())


def _voxels(p: Tensor, truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """1 - p and weight of every voxel of a region."""
    size = truth.flatten(2).sum(2).cpu()
    each = (weight / size.clamp_min(1)).view(*weight.shape, *[1] * (truth.ndim - 2)).to(p.device)
    return 1 - p[:, None].expand(truth.shape)[truth].double(), each.expand(truth.shape)[truth]


def _parts(p: Tensor, truth: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Least 1 - p and weight of every connected part of a region, corners included."""
    structure = np.zeros((3,) * truth.ndim, dtype=bool)
    structure[1, 1] = True  # parts of one reading only
    labels, count = ndimage.label(truth.cpu().numpy(), structure)
    at = torch.from_numpy(labels)[truth.cpu()].long() - 1
    scores = 1 - p[:, None].expand(truth.shape)[truth].double().cpu()
    reading = truth.cpu().nonzero()[:, :2]
    least = torch.full((count,), torch.inf, dtype=torch.float64).scatter_reduce_(0, at, scores, "amin")
    owner = torch.zeros(count, dtype=torch.long).scatter_(0, at, reading[:, 0] * truth.shape[1] + reading[:, 1])
    many = owner.bincount(minlength=weight.numel()).clamp_min(1)
    return least, (weight.flatten() / many)[owner]


@dataclass(frozen=True)
class Margins:
    """Masks grown by as many voxels (or mm) as calibration regions ask for.

    Attributes:
        alpha: Largest mean share of the region's voxels that is left out.
        spacing: Size of a voxel along each axis, by which distances are measured; 1 by default.
    """

    alpha: float = 0.1
    spacing: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no level."""
        check_alpha(self.alpha)

    def fit(
        self,
        mask: Bool[Tensor, "n *space"],
        region: Regions,
        *,
        groups: Int[Tensor, " n"] | None = None,
        ids: People = (),
        apart_from: Sequence[People] = (),
    ) -> "Grown":
        """Find how far masks must grow; arguments and errors as `RiskControl.fit`, `mask` what a network decided."""
        truth, known = _regions(region, mask), people(ids, len(mask))
        check_disjoint(known, apart_from)
        of = torch.arange(len(mask)) if groups is None else numbered(groups, len(mask), "groups")
        weight, n = _shares(truth, of)
        size = truth.flatten(2).sum(2).clamp_min(1)
        each = (weight / size).view(*weight.shape, *[1] * (truth.ndim - 2)).expand(truth.shape)[truth]
        away = self.distance(mask)[:, None].expand(truth.shape)[truth]
        return Grown(self, risk_threshold(away, each, n, self.alpha), n, known)

    def distance(self, mask: Bool[Tensor, "n *space"]) -> Float[Tensor, "n *space"]:
        """Distance of every voxel from the mask of its image, 0 inside; infinite where that is empty."""
        spacing = self.spacing or (1.0,) * (mask.ndim - 1)
        if len(spacing) != mask.ndim - 1:
            raise InputError(f"spacing: expected a number for each of {mask.ndim - 1} axes, got {spacing}")
        if not bool(mask.any()):
            return torch.full(mask.shape, torch.inf, dtype=torch.float64)
        found = ndimage.distance_transform_edt(~mask.cpu().numpy(), sampling=(_FAR * max(spacing), *spacing))
        away = torch.from_numpy(found)
        return away.masked_fill(away >= _FAR * max(spacing), torch.inf)


@dataclass(frozen=True)
class Grown:
    """How far masks grow, and what that was made of.

    Attributes:
        margins: The settings.
        radius: The distance; infinite where there are too few rows, or where empty masks are too often wrong.
        rows: Patients (or images) that have the region.
        ids: Subjects, where they were named.
    """

    margins: Margins
    radius: float
    rows: int
    ids: tuple[str, ...] = field(default=(), repr=False)

    def masks(self, mask: Bool[Tensor, "n *space"], *, ids: People = ()) -> ControlledMasks:
        """New masks, grown; errors as `Controlled.masks`."""
        if own := people(ids, len(mask)):
            check_disjoint(own, [self.ids])
        inside = self.margins.distance(mask) <= self.radius
        return _masks(inside, "false-negatives", self.radius, self.margins.alpha, self.rows, _ON_AVERAGE)

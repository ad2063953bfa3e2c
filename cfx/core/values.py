"""The value types every floor speaks in: `Cohort` in, `Counterfactuals` out.

Images are float32 tensors `(n, c, *space)` in [-1, 1]; `*space` is two or three axes. Both values are frozen,
validate themselves when built, and select rows with `value[rows]`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import IntEnum
from typing import Self

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cfx.core.errors import InputError

Rows = slice | Sequence[int] | Tensor


def check_images(x: Tensor, name: str = "x") -> None:
    """Refuse what is not a batch of images in [-1, 1].

    Raises:
        InputError: not floating point, not `(n, c, *space)` with 2 or 3 spatial axes, non-finite, or outside [-1, 1].
    """
    if not x.is_floating_point():
        raise InputError(f"{name}: expected a floating-point tensor in [-1, 1], got {x.dtype}")
    if x.ndim not in (4, 5):
        raise InputError(f"{name}: expected (n, c, h, w) or (n, c, d, h, w), got shape {tuple(x.shape)}")
    bad = (~torch.isfinite(x)).flatten(1).any(1)
    if bad.any():
        raise InputError(f"{name}: NaN or infinite pixels in rows {_some(bad)}; expected finite values in [-1, 1]")
    outside = (x.abs() > 1 + 1e-4).flatten(1).any(1)
    if outside.any():
        raise InputError(
            f"{name}: expected values in [-1, 1], got [{x.min():.4g}, {x.max():.4g}] (rows {_some(outside)})"
        )


def _some(rows: Tensor, most: int = 8) -> str:
    """The first few true rows of a boolean vector, as text."""
    found = rows.nonzero().flatten().tolist()
    return str(found[:most])[:-1] + (f", ... {len(found)} in all]" if len(found) > most else "]")


def _select(value: object, rows: Rows, n: int) -> object:
    """Rows of a field that has one entry a row (a tensor or a tuple of length n); other fields unchanged."""
    if isinstance(value, Tensor) and value.ndim and len(value) == n:
        return value[torch.as_tensor(rows) if isinstance(rows, Sequence) else rows]
    if isinstance(value, tuple) and len(value) == n:
        index = torch.arange(n)[torch.as_tensor(rows) if isinstance(rows, Sequence) else rows]
        return tuple(value[i] for i in index.tolist())
    if isinstance(value, Mapping):
        return {k: _select(v, rows, n) for k, v in value.items()}
    return value


@dataclass(frozen=True)
class Cohort:
    """Images with what is known about them.

    Attributes:
        x: Images `(n, c, *space)`, float32 in [-1, 1].
        y: Labels: `(n,)` int64 classes, or `(n, k)` 0/1 for multi-label; None if unlabelled.
        ids: One name a row.
        affine: Voxel-to-world matrices `(n, 4, 4)` in mm for images that have one, else None.
        spacing: Pixel spacing `(n, len(space))` in mm, None if unknown.
        covariates: Numeric columns `(n,)` by name.
        mask: Region of interest (a brain mask, say) `(n, 1, *space)`, or None.
        x_true: True counterfactual of every row (the same subject, the other class), for simulated cohorts only.
        lesion: Ground-truth lesion mask of `x`, `(n, 1, *space)`, or None.
        classes: Names of the classes, in label order.
    """

    x: Float[Tensor, "n c *space"]
    y: Int[Tensor, " n"] | Float[Tensor, "n k"] | None = None
    ids: tuple[str, ...] = ()
    affine: Float[Tensor, "n 4 4"] | None = None
    spacing: Float[Tensor, "n dims"] | None = None
    covariates: Mapping[str, Shaped[Tensor, " n"]] = field(default_factory=dict)
    mask: Bool[Tensor, "n 1 *space"] | None = None
    x_true: Float[Tensor, "n c *space"] | None = None
    lesion: Bool[Tensor, "n 1 *space"] | None = None
    classes: Sequence[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the images and that every per-row field has one entry a row."""
        check_images(self.x, "Cohort.x")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(str(i) for i in range(len(self.x))))
        per_row: dict[str, object] = {f.name: getattr(self, f.name) for f in fields(self)}
        per_row = {k: v for k, v in per_row.items() if isinstance(v, Tensor)} | {"ids": self.ids, **self.covariates}
        for name, value in per_row.items():
            if len(value) != len(self.x):  # type: ignore[arg-type]
                raise InputError(f"Cohort.{name}: expected {len(self.x)} rows as in x, got {len(value)}")  # type: ignore[arg-type]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.x)

    def __getitem__(self, rows: Rows) -> Self:
        """The cohort of these rows (a slice, a list of indices, or a boolean or integer tensor)."""
        n = len(self)
        keep = {f.name: _select(getattr(self, f.name), rows, n) for f in fields(self) if f.name != "classes"}
        return replace(self, **keep)  # type: ignore[arg-type]

    @property
    def space(self) -> tuple[int, ...]:
        """Spatial shape of the images."""
        return tuple(self.x.shape[2:])


class Verdict(IntEnum):
    """What became of one row.

    FLIPPED: the classifier reaches the asked margin for the target on the final image.
    ALREADY: it did so on the input; the image is returned unchanged.
    BUDGET: no strength within the budget reached the margin; the closest attempt is returned.
    UNSTABLE: the margin is reached but the decision does not survive re-noising (a sign of an adversarial edit).
    REFUSED: the row could not be worked on (its classifier output became non-finite); returned unchanged.
    """

    FLIPPED = 0
    ALREADY = 1
    BUDGET = 2
    UNSTABLE = 3
    REFUSED = 4


@dataclass(frozen=True)
class Counterfactuals:
    """Counterfactual images with their own verification, one row an input; no row is ever dropped.

    Attributes:
        x: Inputs `(n, c, *space)` in [-1, 1].
        x_cf: Counterfactuals, same shape; equal to `x` bit for bit where `mask` is False.
        target: Target class of each row.
        probs_before: Class probabilities of `x`, `(n, k)` (one logit gives k = 2 columns).
        probs_after: Class probabilities of the final `x_cf`.
        mask: Edited region `(n, 1, *space)`.
        margin: Margin (target logit minus best other, natural-log units) the row was asked to reach.
        margin_after: Margin of the final image.
        strength: Guidance strength used; 0 where nothing was changed.
        verdict: `Verdict` codes.
        row: Index of the row in the user's input, also its randomness counter.
        nfe_forward: Generator (U-Net) evaluations spent on the row, search included.
        nfe_backward: Back-propagations through the generator.
        nfe_classifier: Classifier forward evaluations.
        nfe_classifier_backward: Classifier gradients.
        depth: `typical` or `boundary`.
        seed: Seed of all randomness.
        seconds: Wall-clock seconds for all rows, summed over processes.
        oracle_probs_before: As `probs_before`, by an independent oracle, or None.
        oracle_probs_after: As `probs_after`, by an independent oracle, or None.
        smaller: Margin of the next smaller change the method tried and rejected: where it is below `margin` the result
            is a certified local minimum. NaN for rows, None for results, without one.
        outside_share: Share of the margin's change that the mask cut off; NaN or None where there is no mask.
        consent: How far the classifier agreed with the generator's class-conditional difference, 0 (it looks at
            something else) to 1; NaN or None where the method does not ask.
        method: Name of the method.
    """

    x: Float[Tensor, "n c *space"]
    x_cf: Float[Tensor, "n c *space"]
    target: Int[Tensor, " n"]
    probs_before: Float[Tensor, "n k"]
    probs_after: Float[Tensor, "n k"]
    mask: Bool[Tensor, "n 1 *space"]
    margin: Float[Tensor, " n"]
    margin_after: Float[Tensor, " n"]
    strength: Float[Tensor, " n"]
    verdict: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    nfe_forward: Int[Tensor, " n"]
    nfe_backward: Int[Tensor, " n"]
    nfe_classifier: Int[Tensor, " n"]
    nfe_classifier_backward: Int[Tensor, " n"]
    depth: str
    seed: int
    seconds: float
    oracle_probs_before: Float[Tensor, "n k2"] | None = None
    oracle_probs_after: Float[Tensor, "n k2"] | None = None
    smaller: Float[Tensor, " n"] | None = None
    outside_share: Float[Tensor, " n"] | None = None
    consent: Float[Tensor, " n"] | None = None
    method: str = "minimal"

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.x)

    def __getitem__(self, rows: Rows) -> Self:
        """The results of these rows."""
        n = len(self)
        keep = {f.name: _select(getattr(self, f.name), rows, n) for f in fields(self)}
        return replace(self, **keep)  # type: ignore[arg-type]

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Join results of the same run (same depth and seed), rows in the order given."""
        if not parts:
            raise InputError("parts: expected at least one result to join, got none")
        first = parts[0]
        joined: dict[str, object] = {}
        for f in fields(cls):
            values = [getattr(p, f.name) for p in parts]
            if isinstance(values[0], Tensor):
                joined[f.name] = torch.cat(values)
        joined["seconds"] = sum(p.seconds for p in parts)
        return replace(first, **joined)  # type: ignore[arg-type]

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdict of every row as a lower-case word."""
        return tuple(Verdict(int(v)).name.lower() for v in self.verdict)

    @property
    def flipped(self) -> Bool[Tensor, " n"]:
        """Rows whose final image the classifier gives to the target (largest probability), whatever the verdict."""
        return self.probs_after.argmax(1) == self.target

    @property
    def certified(self) -> Bool[Tensor, " n"]:
        """Rows whose next smaller change is on record as failing."""
        if self.smaller is None:
            return torch.zeros_like(self.flipped)
        return self.smaller < self.margin

    @property
    def validity(self) -> float:
        """Share of all rows whose final image reaches the margin asked for, verified by the classifier."""
        return float((self.margin_after >= self.margin - 1e-5).double().mean())

    @property
    def oracle_validity(self) -> float | None:
        """Share of all rows the oracle gives to the target after the edit; None without an oracle."""
        if self.oracle_probs_after is None:
            return None
        return float((self.oracle_probs_after.argmax(1) == self.target).double().mean())

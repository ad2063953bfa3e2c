"""What is asked of each image: read from what a user hands in, checked before an image is read, then batch by batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from cfx.core.arrays import as_tensor, whole_numbers
from cfx.core.cohort import Cohort, Source, check_images
from cfx.core.errors import InputError
from cfx.models.judge import Judge

Pixels = Float[Tensor, "n c *space"] | NDArray[Any]
"""Images as a tensor or an array."""
Target = int | np.integer | str | Sequence[int] | Sequence[str] | Int[Tensor, "..."] | NDArray[Any] | None
"""Class to reach, one for all or one a row, by number or by name."""
Counters = Int[Tensor, " n"] | Sequence[int] | NDArray[Any] | None
"""A number an image."""
Mask = Bool[Tensor, "n 1 *space"] | NDArray[Any] | None
"""Where something holds, an image."""


@dataclass(frozen=True)
class Batch:
    """Some images with what is asked of them, on the CPU.

    Attributes:
        cohort: The images, float32, with what is known about them.
        logits: What the classifier says of them.
        target: Class to reach.
        row: Their counters.
        allowed: Where each may change, or None for everywhere.
    """

    cohort: Cohort
    logits: Float[Tensor, "n k"]
    target: Int[Tensor, " n"]
    row: Int[Tensor, " n"]
    allowed: Bool[Tensor, "n 1 *space"] | None

    @property
    def x(self) -> Float[Tensor, "n c *space"]:
        """The images."""
        return self.cohort.x


@dataclass(frozen=True)
class Images:
    """The images to explain with what is asked of each; nothing is read before it is asked for.

    Attributes:
        source: Where they come from.
        target: Class to reach, one for all or one a row, or None.
        row: Counter of every image.
        allowed: Where each may change, or None for everywhere.
    """

    source: Source
    target: int | Int[Tensor, " n"] | None
    row: Int[Tensor, " n"]
    allowed: Bool[Tensor, "n 1 *space"] | None

    @classmethod
    def of(cls, x: object, target: object, row: object, edit: object, keep: object, names: Sequence[str] = ()) -> Self:
        """Read the arguments of `explain`, and check what can be checked without reading an image.

        Args:
            x: Images, or a source of them.
            target: Class to reach.
            row: Counter of every image; None for 0 .. n-1.
            edit: Where each may change.
            keep: Where it must not.
            names: Names of the classes where the images do not say them.

        Raises:
            InputError: images that are no images, or other than one target, counter or mask an image.
        """
        source = x if isinstance(x, Source) and not isinstance(x, Tensor) else _cohort(x, row)
        n = len(source)
        if n == 0:
            raise InputError("x: expected at least one image, got none")
        counters = torch.arange(n) if row is None else _counters(row)
        if counters.shape != (n,):
            raise InputError(f"row: expected one counter for each of {n} images, got shape {tuple(counters.shape)}")
        goal = _target(target, n, tuple(source.classes) or tuple(names))
        return cls(source, goal, counters, _allowed((n, 1, *source.shape[1:]), edit, keep))

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image."""
        return tuple(self.source.shape)

    def batch(self, rows: Sequence[int], judge: Judge) -> Batch:
        """Read some images and ask the classifier.

        Raises:
            InputError: a source that hands out no cohort, logits that are not finite, or a target outside the classes.
        """
        at = torch.as_tensor(rows)
        cohort = self.source[at]
        if not isinstance(cohort, Cohort):
            raise InputError(f"x: expected a source whose rows are a Cohort, got {type(cohort).__name__}")
        x = cohort.x.detach().to("cpu", torch.float32)
        logits = judge.answers(x)
        bad = at[(~torch.isfinite(logits)).any(1)].tolist()
        if bad:
            raise InputError(f"classifier: expected finite logits, got NaN or infinity for rows {bad[:8]}")
        allowed = None if self.allowed is None else self.allowed[at]
        return Batch(cohort.replace(x=x), logits, self.goal(at, logits), self.row[at], allowed)

    def goal(self, at: Int[Tensor, " m"], logits: Float[Tensor, "m k"]) -> Int[Tensor, " m"]:
        """One target class for each of some rows.

        Raises:
            InputError: a target outside the classes.
        """
        if self.target is None:
            return logits.topk(2, dim=1).indices[:, 1]
        goal = torch.full((len(at),), self.target) if isinstance(self.target, int) else self.target[at]
        if bool(((goal < 0) | (goal >= logits.shape[1])).any()):
            raise InputError(f"target: expected classes in 0 .. {logits.shape[1] - 1}, got {goal.unique().tolist()}")
        return goal


def _cohort(x: object, row: object) -> Cohort:
    """Images that are handed in themselves; their names are their counters."""
    if not isinstance(x, Tensor | np.ndarray):
        raise InputError(f"x: expected images as one tensor or array, or a Cohort, got {_kind(x)}")
    x = as_tensor(x, "x", "images as one tensor or array")
    check_images(x)
    names = () if row is None else tuple(str(i) for i in _counters(row).flatten().tolist())
    return Cohort(x.to("cpu", torch.float32), ids=names if len(names) == len(x) else ())


def _kind(x: object) -> str:
    """What was handed in instead of images, and the next step."""
    kind = type(x).__name__
    if isinstance(x, list | tuple):
        inside = ", ".join(dict.fromkeys(type(v).__name__ for v in x[:8]))
        pair = isinstance(x, tuple) and len(x) == 2
        return f"a {kind} of {inside}; {'pass Cohort(x, y)' if pair else 'torch.stack makes one tensor'}"
    if isinstance(x, str) or hasattr(x, "__fspath__"):
        return f"the path {str(x)!r}; cfx.load_cohort reads files"
    return f"{kind}; join its batches with torch.cat" if hasattr(x, "__iter__") else kind


def _counters(row: object) -> Tensor:
    return whole_numbers(as_tensor(row, "row", "one integer an image"), "row").cpu()


def _target(target: object, n: int, names: Sequence[str]) -> int | Tensor | None:
    """The class of every row as a number, or the one for all."""
    if target is None:
        return None
    many = isinstance(target, list | tuple) or (isinstance(target, np.ndarray) and target.dtype.kind in "UTO")
    if isinstance(target, str) or (many and any(isinstance(t, str) for t in target)):  # type: ignore[attr-defined]
        wanted = [target] if isinstance(target, str) else list(target)  # type: ignore[call-overload]
        odd = [t for t in wanted if t not in names]
        if odd:
            known = list(names) if names else "no names: pass a Cohort with classes=[...], or a number"
            raise InputError(f"target: expected a class among {known}, got {odd[0]!r}")
        found = [list(names).index(t) for t in wanted]
        target = found[0] if isinstance(target, str) else found
    classes = whole_numbers(as_tensor(target, "target", "one class, or one a row"), "target").cpu()
    if classes.ndim == 0:
        return int(classes)
    if classes.shape != (n,):
        raise InputError(f"target: expected one class or {n} classes, got shape {tuple(classes.shape)}")
    return classes


def _allowed(expected: tuple[int, ...], edit: object, keep: object) -> Tensor | None:
    """Where each image may change, or None for everywhere."""
    allowed = None
    for name, given in (("edit", edit), ("keep", keep)):
        if given is None:
            continue
        mask = as_tensor(given, name, f"a boolean mask {expected}")
        if mask.dtype != torch.bool or tuple(mask.shape) != expected:
            raise InputError(f"{name}: expected a boolean mask {expected}, got {mask.dtype} {tuple(mask.shape)}")
        part = mask.cpu() if name == "edit" else ~mask.cpu()
        allowed = part if allowed is None else allowed & part
    return allowed

"""Images with what is known about them, the value that every floor takes in, and where they come from.

Images are float32 tensors `(n, c, *space)` in [-1, 1]; `*space` is two or three axes. A `Source` says what it holds
without reading an image, and hands out the rows that are asked for as a `Cohort`; a `Cohort` is a source itself.

Rows of one subject are no independent evidence. Whose a row is, `subject_names` says for every room alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from cfx.core.arrays import as_tensor, taking, texts, whole_numbers
from cfx.core.axes import axis_names, check_axes
from cfx.core.errors import InputError
from cfx.core.rows import Column, Index, Rows, about, positions


def check_images(x: Tensor, name: str = "x") -> None:
    """Refuse what is not a batch of images in [-1, 1].

    Raises:
        InputError: not floating point, not `(n, c, *space)` with 2 or 3 spatial axes, non-finite, or outside [-1, 1].
    """
    if not x.is_floating_point():
        hint = "; of 0 .. 255 pass x / 127.5 - 1" if x.dtype == torch.uint8 else ""
        raise InputError(f"{name}: expected a floating-point tensor in [-1, 1], got {x.dtype}{hint}")
    if x.ndim not in (4, 5):
        hint = "; add the axis of one channel, x[:, None]" if x.ndim == 3 and len(x) > 4 else ""
        raise InputError(f"{name}: expected (n, c, h, w) or (n, c, d, h, w), got shape {tuple(x.shape)}{hint}")
    if not x.numel():
        return  # no image, or images that were left unread
    flat = x.detach().flatten(1)
    low, high = flat.amin(1), flat.amax(1)  # NaN comes through both
    bad = ~(torch.isfinite(low) & torch.isfinite(high))
    if bad.any():
        raise InputError(f"{name}: NaN or infinite pixels in rows {_some(bad)}; expected finite values in [-1, 1]")
    outside = (low < -1 - 1e-4) | (high > 1 + 1e-4)
    if outside.any():
        a, b = float(low.min()), float(high.max())
        raise InputError(
            f"{name}: expected values in [-1, 1], got [{a:.4g}, {b:.4g}] (rows {_some(outside)}); {_rescaling(a, b)}"
        )


def _rescaling(low: float, high: float) -> str:
    """How values in such a range become what is expected."""
    if low >= 0 and 1 < high <= 255:
        return "if these are 8-bit intensities, pass x / 127.5 - 1"
    return "rescale them by the range that the generator was trained with: 2 * (x - low) / (high - low) - 1"


def _some(rows: Tensor, most: int = 8) -> str:
    """The first few true rows of a boolean vector, as text."""
    found = rows.nonzero().flatten().tolist()
    return str(found[:most])[:-1] + (f", ... {len(found)} in all]" if len(found) > most else "]")


def _prepared(given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a cohort, arrays and lists as tensors."""
    found = dict(given)
    if "classes" in found:
        found["classes"] = _class_names(found["classes"])
    if "axes" in found:
        found["axes"] = texts(found["axes"], "Cohort.axes")
    for spec in Cohort.columns():
        value = found.get(spec.name)
        if spec.name not in found or (value is None and spec.optional):
            continue
        if isinstance(value, Mapping) and spec.mapping:
            found[spec.name] = {k: as_tensor(v, f"Cohort.{spec.name}.{k}", "numbers") for k, v in value.items()}
        elif spec.mapping:
            continue  # which is refused where all columns are checked
        elif spec.name == "y":
            found["y"] = _labels(value, found.get("classes", ()))
        elif spec.shapes:
            found[spec.name] = _column(value, spec)
        else:
            found[spec.name] = texts(value, f"Cohort.{spec.name}")
    return found


def _class_names(value: object) -> Sequence[str]:
    """Names of classes, each once."""
    names = texts(value, "Cohort.classes")
    if len(set(names)) != len(names):
        raise InputError(f"Cohort.classes: expected every name once, got {list(names)}")
    return names


def _column(value: object, spec: Column) -> Tensor:
    """One column, of the kind of numbers that it has."""
    name, kind = f"Cohort.{spec.name}", spec.shapes[0].kind
    found = as_tensor(value, name, f"a tensor or array, {spec.shapes[0]}")
    fits = any(shape.holds(found) for shape in spec.shapes)  # class numbers stay, whichever of them occur
    if kind == "Bool" and not fits and bool(((found == 0) | (found == 1)).all()):
        return found.bool()
    if spec.name == "x":
        return found.float() if found.is_floating_point() else found
    return found.float() if kind == "Float" and not (found.is_floating_point() or found.is_complex()) else found


def _labels(value: object, classes: Sequence[str]) -> Tensor:
    """Labels as numbers: one class an image, or 0/1 for each finding.

    Raises:
        InputError: numbers that are no classes, names that are not among the classes, labels beyond the names, or other
            than 0 and 1 of a finding.
    """
    named = [str(v) for v in value] if _are_texts(value) else []  # type: ignore[attr-defined]
    odd = sorted(set(named) - set(classes))
    if odd and not classes:
        raise InputError(
            f"Cohort.y: expected class numbers, got names {odd[:8]}; say which number each has: classes=[...]"
        )
    if odd:
        raise InputError(f"Cohort.y: expected names among classes {list(classes)}, got {odd[:8]}")
    y = as_tensor([list(classes).index(v) for v in named] if named else value, "Cohort.y", "class numbers")
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.ndim != 1:
        if bool(((y < 0) | (y > 1)).any()):
            raise InputError(
                f"Cohort.y: expected 0 or 1 for each finding, got values in {[float(v) for v in y.aminmax()]}"
            )
        return y if y.is_floating_point() else y.float()
    y = whole_numbers(y, "Cohort.y")
    if classes and len(y) and int(y.max()) >= len(classes):
        beyond = f"got {int(y.max())}; name every class, and number them from 0"
        raise InputError(f"Cohort.y: expected labels in 0 .. {len(classes) - 1}, places in {list(classes)}, {beyond}")
    return y


def _are_texts(value: object) -> bool:
    """Whether labels are names."""
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if isinstance(value, list | tuple):
        return bool(value) and all(isinstance(v, str) for v in value)
    return kind in ("U", "T") or (kind == "O" and all(isinstance(v, str) for v in value))  # type: ignore[attr-defined]


@taking(_prepared)
@dataclass(frozen=True)
class Cohort(Rows):
    """Images with what is known about them; what is a tensor below may be given as an array or a list.

    Attributes:
        x: Images `(n, c, *space)`, float32 in [-1, 1].
        y: Labels: `(n,)` or `(n, 1)` int64 classes (or their names, where `classes` numbers them), or `(n, k)` 0/1
            for multi-label; None if unlabelled.
        ids: One name a row; rows of equal names are of one subject (see `subjects`).
        affine: Voxel-to-world matrices `(n, 4, 4)` in mm for images that have one, else None.
        spacing: Pixel spacing `(n, len(space))` in mm, None if unknown.
        covariates: Numeric columns `(n,)` by name.
        mask: Region of interest (a brain mask, say) `(n, 1, *space)`, or None.
        x_true: True counterfactual of every row (the same subject, the other class), for simulated cohorts only.
        lesion: Ground-truth lesion mask of `x`, `(n, 1, *space)`, or None.
        readings: Masks of several readers, `(n, readers, *space)`, or None: of lesions, or class numbers with 0 the
            background. One that is empty is a reader who drew nothing.
        reading: Whether each of them outlined the lesion at all, here or in another slice, `(n, readers)`, or None.
        classes: Names of the classes, in label order.
        axes: Names of the spatial axes, by the direction in which their index grows (right, front, top for a volume in
            RAS order); by default what the affines say, else `(z,) y, x`: (planes,) rows and columns.
        intensity: The intensities `(n, 2)` of the original file that became -1 and 1, or None.
        file: Path of the original file, or None.
        sha256: SHA-256 of that file, 32 bytes, or None.
        categories: What the numbers of a covariate stand for, where they are codes: code k is text number k.
    """

    x: Float[Tensor, "n c *space"] = field(metadata=about(array="factual"))
    y: Int[Tensor, " n"] | Float[Tensor, "n k"] | None = field(default=None, metadata=about(array="label"))
    ids: tuple[str, ...] = field(default=(), metadata=about(array="sample"))
    affine: Float[Tensor, "n world=4 voxel=4"] | None = None
    spacing: Float[Tensor, "n dims"] | None = None
    covariates: Mapping[str, Shaped[Tensor, " n"]] = field(default_factory=dict)
    mask: Bool[Tensor, "n 1 *space"] | None = field(default=None, metadata=about(array="region"))
    x_true: Float[Tensor, "n c *space"] | None = field(default=None, metadata=about(array="truth"))
    lesion: Bool[Tensor, "n 1 *space"] | None = None
    readings: Bool[Tensor, "n reader *space"] | UInt8[Tensor, "n reader *space"] | None = None
    reading: Bool[Tensor, "n reader"] | None = None
    classes: Sequence[str] = field(default_factory=list)
    axes: Sequence[str] = field(default_factory=list)
    intensity: Float[Tensor, "n ends=2"] | None = None
    file: tuple[str, ...] | None = None
    sha256: UInt8[Tensor, "n byte=32"] | None = None
    categories: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the images and that every per-row field has one entry a row."""
        check_images(self.x, "Cohort.x")
        if not self.ids:
            object.__setattr__(self, "ids", tuple(str(i) for i in range(len(self.x))))
        super().__post_init__()
        # lists, as a header of JSON gives them back, so that parts from everywhere are alike
        object.__setattr__(self, "classes", list(self.classes))
        object.__setattr__(self, "axes", list(self.axes or axis_names(self.affine, len(self.space))))
        check_axes(self.axes, len(self.space), "Cohort.axes")

    @property
    def space(self) -> tuple[int, ...]:
        """Spatial shape of the images."""
        return tuple(self.x.shape[2:])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(c, *space)` of one image."""
        return tuple(self.x.shape[1:])


@runtime_checkable
class Source(Protocol):
    """Images that are read when they are asked for: `source[rows]` is a `Cohort`, whatever holds the rest.

    What a class needs to know before it reads an image are the attributes; they are cheap at any number of rows.
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(c, *space)` of one image."""

    @property
    def y(self) -> Tensor | None:
        """Labels of all rows, as in `Cohort`."""

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of all rows."""

    @property
    def covariates(self) -> Mapping[str, Tensor]:
        """Numeric columns of all rows by name."""

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in label order."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, rows: Index) -> Cohort:
        """These rows with their images."""


def as_source(images: object, name: str) -> Source:
    """Images a user gave: a tensor or array of them is a cohort, a source is left as it is.

    Args:
        images: What was given.
        name: Name of the argument, used in errors.

    Raises:
        InputError: neither, or images as `check_images` refuses them.
    """
    if isinstance(images, Source):
        return images
    if isinstance(images, Tensor | np.ndarray):
        return Cohort(images)  # type: ignore[arg-type]  # arrays become tensors
    raise InputError(
        f"{name}: expected images (n, c, *space), a tensor, an array or a Cohort, got {type(images).__name__}; "
        "cfx.load_cohort({...}) reads a folder"
    )


@dataclass(frozen=True)
class Part:
    """Some rows of a source, in an order of their own; nothing is read before it is asked for.

    Attributes:
        source: Where they are.
        rows: Which rows of it.
    """

    source: Source
    rows: Int[Tensor, " n"]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(c, *space)` of one image."""
        return self.source.shape

    @cached_property
    def y(self) -> Tensor | None:
        """Labels of these rows."""
        return None if self.source.y is None else self.source.y[self.rows]

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Names of these rows."""
        return tuple(self.source.ids[i] for i in self.rows.tolist())

    @cached_property
    def covariates(self) -> Mapping[str, Tensor]:
        """Numeric columns of these rows by name."""
        return {name: column[self.rows] for name, column in self.source.covariates.items()}

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """What the codes of covariates stand for."""
        return categories(self.source)

    @property
    def classes(self) -> Sequence[str]:
        """Names of the classes, in label order."""
        return self.source.classes

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.rows)

    def __getitem__(self, rows: Index) -> Cohort:
        """These of its rows with their images."""
        return self.source[self.rows[positions(rows, len(self))]]


def part(source: Source, rows: Index) -> Source:
    """Some rows of a source as a source: of a cohort in memory a cohort, else rows still to be read."""
    return source[rows] if isinstance(source, Cohort) else Part(source, positions(rows, len(source)))


def categories(source: Source) -> Mapping[str, Sequence[str]]:
    """What the codes of a source's covariates stand for; a source of the user's own need not say."""
    found: Mapping[str, Sequence[str]] = getattr(source, "categories", {})
    return found


def spread(n: int, most: int) -> Int[Tensor, " m"]:
    """Positions of at most so many of n rows, evenly spread, the first and the last among them."""
    return torch.linspace(0, n - 1, min(n, most)).long()


SUBJECT = "subject"
"""The covariate that says whose image a row is, where one subject has several."""


def subject_names(source: Source) -> tuple[str, ...]:
    """Whose image each row is: its `subject` among the covariates, or else its own name; equal names are one subject.

    Args:
        source: Images.

    Returns:
        One name a row; where the covariate is NaN the row's own.
    """
    column = source.covariates.get(SUBJECT)
    if column is None:
        return source.ids
    names = dict(enumerate(categories(source).get(SUBJECT, ())))
    known = zip(column.tolist(), source.ids, strict=True)
    return tuple(own if v != v else names.get(v, str(v)) for v, own in known)


def subjects(source: Source) -> Int[Tensor, " n"] | None:
    """Number of every row's subject in the order of their first rows; None where every row is a subject of its own."""
    names = subject_names(source)
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return None if len(number) == len(names) else torch.tensor([number[name] for name in names])

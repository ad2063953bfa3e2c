"""Labels: from names or numbers to integers, and the same integers for the same classes in every cohort.

A number of a class never follows from what happens to lie in a folder or a table: names are numbered by one list, the
configured one, or else by the alphabet; whole numbers stand for themselves; and where two cohorts are used together,
the second is numbered by the classes of the first (`numbered_by`).
"""

import unicodedata
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from pydantic import AfterValidator, BeforeValidator
from torch import Tensor

from cfx.core.cohort import Cohort, Source, categories
from cfx.core.errors import CfxWarning, InputError
from cfx.core.rows import Index, positions
from cfx.data.table import UNSURE, missing, number, some

_LARGEST = 2**31  # no network has so many classes
_FEW = 10  # rows to one that is no number, in a column of numbers


def _texts(names: object) -> object:
    """Names as YAML reads them: whole numbers become text, and what it takes for a truth value is asked for anew."""
    if not isinstance(names, (list, tuple)):
        return names
    if any(isinstance(name, bool) or name is None for name in names):
        raise ValueError(
            f"expected texts, got {list(names)}; YAML reads yes, no and null its own way: put them in quotes"
        )
    return tuple(str(name) if isinstance(name, int) else name for name in names)


def _distinct(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise ValueError(f"expected each class once, got {names}")
    return names


ClassNames = Annotated[tuple[str, ...], BeforeValidator(_texts), AfterValidator(_distinct)]
"""Names of classes in label order, each once."""


def encode(cells: Sequence[str], classes: Sequence[str], name: str) -> tuple[Int[Tensor, " n"], tuple[str, ...]]:
    """Class labels to integers.

    Names become their place in `classes`, or in alphabetical order where no classes are given. Whole numbers stand
    for themselves, so that a split which lacks a class keeps the numbering of the others.

    Args:
        cells: One label a row.
        classes: Names of the classes in label order, or empty.
        name: The column, for the error message.

    Returns:
        The labels, and the names of the classes (empty for whole numbers without names).

    Raises:
        InputError: a missing label (of `cfx.data.table.MISSING`, unless it is among the classes), one outside the
            classes, a negative one, or numbers that are not whole.

    Warns:
        CfxWarning: classes whose numbering is in doubt: numbers among names, names that look alike, or
            numbers that do not start at 0 or leave most out.
    """
    if classes and set(cells) <= set(classes):
        place = {text: k for k, text in enumerate(classes)}
        return torch.tensor([place[cell] for cell in cells], dtype=torch.long), tuple(classes)
    if gaps := [f"{i} ({cell!r})" for i, cell in enumerate(cells, start=1) if missing(cell) and cell not in classes]:
        raise InputError(
            f"{name}: no label in row {some(gaps)}; leave these rows out of the table, or list the text among "
            "`classes` if it is one"
        )
    values = {cell: number(cell) for cell in set(cells)}
    if names := sorted(cell for cell, value in values.items() if value is None):
        if classes:
            unknown = some(sorted(set(cells) - set(classes)))
            raise InputError(f"{name}: labels {unknown} are not among the classes {tuple(classes)}")
        _doubt_names(sorted(values), len(names), name)
        return encode(cells, sorted(values), name)
    y = _whole(torch.tensor([values[cell] for cell in cells], dtype=torch.float64), f"{name}: expected class names or")
    return _placed(y, classes, name), tuple(classes)


def labels_of(raw: npt.NDArray[Any], classes: Sequence[str], name: str) -> Int[Tensor, " n"] | Float[Tensor, "n k"]:
    """Labels of an array of numbers: classes `(n,)` of `(n,)` or `(n, 1)`, or 0/1 `(n, k)`.

    Numbers are places in `classes`, unless the names of these are numbers, all of them.

    Args:
        raw: The array.
        classes: Names of the classes in label order, or empty.
        name: What the array is, for the error message.

    Raises:
        InputError: another shape, no whole numbers, or labels without a name among the classes.

    Warns:
        CfxWarning: as `encode`.
    """
    if raw.ndim not in (1, 2) or 0 in raw.shape or raw.dtype.kind not in "biuf":
        raise InputError(f"{name}: expected numbers (n,), (n, 1) or (n, k), got {raw.dtype} {raw.shape}")
    values = torch.from_numpy(raw.astype(np.float64))
    if raw.ndim == 2 and raw.shape[1] > 1:
        return _several(values, classes, name)
    return _placed(_whole(values.flatten(), f"{name}: expected"), classes, name)


def _placed(y: Int[Tensor, " n"], classes: Sequence[str], name: str) -> Int[Tensor, " n"]:
    """Numbers as places in the classes, or where all of them are names of classes, as these."""
    texts = [str(k) for k in y.tolist()]
    if classes and set(texts) <= set(classes):
        return encode(texts, classes, name)[0]
    check_labels(y, classes, name)
    return y


def _whole(values: Float[Tensor, " n"], expected: str) -> Int[Tensor, " n"]:
    """Numbers as labels."""
    bad = ~torch.isfinite(values) | (values < 0) | (values != values.floor()) | (values > _LARGEST)
    if bad.any():
        rows = some((bad.nonzero().flatten() + 1).tolist())
        came = some(values[bad].unique().tolist())
        raise InputError(f"{expected} whole numbers from 0, got {came} in row {rows}")
    return values.long()


def _several(values: Float[Tensor, "n k"], classes: Sequence[str], name: str) -> Float[Tensor, "n k"]:
    """Several 0/1 labels a row."""
    if bool(((values != 0) & (values != 1)).any()):
        raise InputError(f"{name}: several labels a row must be 0 or 1, got {some(values.unique().tolist())}")
    if classes and len(classes) != values.shape[1]:
        raise InputError(f"{name}: {values.shape[1]} labels a row, but {len(classes)} classes {classes}")
    return values.float()


def check_numbers(cells: Sequence[str], name: str) -> None:
    """Refuse a column of whole numbers in which few cells are something else: a slip of the pen is no class.

    Args:
        cells: One label a row.
        name: The column, for the error message.

    Raises:
        InputError: that is so; the message names the rows.
    """
    values = {cell: number(cell) for cell in set(cells) if not missing(cell)}
    odd = [i for i, cell in enumerate(cells) if values.get(cell, 0.0) is None]
    slip = len(odd) == 1 < len(cells) - 1 and cells[odd[0]].isalpha() and cells[odd[0]].lower() not in UNSURE
    few = 0 < _FEW * len(odd) <= len(cells)
    others = [v for v in values.values() if v is not None]
    if (slip or few) and len(others) > 1 and all(v.is_integer() and v >= 0 for v in others):
        came = some(f"{cells[i]!r} in row {i + 1}" for i in odd)
        texts = ", ".join(sorted(values)[:8])
        raise InputError(
            f"{name}: expected whole numbers, as all other labels are, got {came}; correct these or leave the rows "
            f"out, or say `classes: [{texts}]` if it is a class"
        )


def check_labels(y: Int[Tensor, " n"], classes: Sequence[str], name: str) -> None:
    """Refuse labels that have no name among the classes; without names everything passes.

    Raises:
        InputError: a label that is not a place in `classes`.

    Warns:
        CfxWarning: there are no names, and several labels none of which is 0, or which leave out more numbers than they
            are.
    """
    if classes and len(y) and int(y.max()) >= len(classes):
        raise InputError(f"{name}: label {int(y.max())} is outside the {len(classes)} classes {tuple(classes)}")
    present = y.unique().tolist()
    if classes or len(present) < 2:
        return
    absent, starts = present[-1] + 1 - len(present), present[0] == 0
    if not starts or (absent > len(present) and len(y) >= 2 * len(present)):  # of few images some class may be absent
        first = [k for k in range(min(present[-1], 2 * len(present) + 8)) if k not in present]
        listed = some(first[:3]) + (f", ... {absent} in all" if absent > 3 else "")
        why = "no image has label 0, where numbers of classes start" if not starts else f"no image has label {listed}"
        warnings.warn(
            f"{name}: {why}; the labels are {some(present)}. If they are names, say "
            f"`classes: [{', '.join(f'{k!r}' for k in map(str, present[:8]))}]`",
            CfxWarning,
            stacklevel=2,
        )


def _doubt_names(texts: Sequence[str], names: int, name: str) -> None:
    """Say where names in alphabetical order are probably not what was meant."""
    same = {_alike(text) for text in texts}
    if names < len(texts):
        why = "hold numbers and texts"
    elif len(same) < len(texts):
        why = "look alike, some of them"
    elif unsure := [text for text in texts if _alike(text) in UNSURE]:
        why = f"hold {some(map(repr, unsure))}, which may say that there is no label"
    else:
        return
    warnings.warn(
        f"{name}: the classes {some(texts)} {why}; if they are right, say `classes: [{', '.join(texts[:8])}]`",
        CfxWarning,
        stacklevel=2,
    )


def _alike(text: str) -> str:
    """A text without what readers do not see: capitals, how an umlaut is coded, marks of no width, double spaces."""
    seen = (letter for letter in unicodedata.normalize("NFKC", text) if unicodedata.category(letter) != "Cf")
    return " ".join("".join(seen).casefold().split())


@dataclass(frozen=True)
class Renumbered:
    """A source with other numbers for its classes.

    Attributes:
        source: The images.
        y: The labels; None if unlabelled.
        classes: Names of the classes, in label order.
    """

    source: Source
    y: Int[Tensor, " n"] | None
    classes: Sequence[str]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape `(c, *space)` of one image."""
        return self.source.shape

    @property
    def ids(self) -> tuple[str, ...]:
        """Names of all rows."""
        return self.source.ids

    @property
    def covariates(self) -> Mapping[str, Tensor]:
        """Numeric columns of all rows by name."""
        return self.source.covariates

    @property
    def categories(self) -> Mapping[str, Sequence[str]]:
        """What the codes of covariates stand for."""
        return categories(self.source)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.source)

    def __getitem__(self, rows: Index) -> Cohort:
        """These rows with their images."""
        at = positions(rows, len(self))
        return self.source[at].replace(y=None if self.y is None else self.y[at], classes=self.classes)


def numbered_by(source: Source, classes: Sequence[str], name: str, of: str) -> Source:
    """A source whose labels are places in `classes`, by the names of its own classes.

    A source that names no class has numbers already, which stand for themselves; they take the names on. So does one
    without labels, unless it has names of its own that are not among these.

    Args:
        source: Images.
        classes: Names of the classes in label order; empty where numbers have no names.
        name: What the source is, for the error message.
        of: Whose classes these are.

    Raises:
        InputError: labels of a class that is not among these, or numbers beyond them.
    """
    y, own = source.y, tuple(source.classes)
    if not classes or own == tuple(classes) or (y is not None and y.ndim != 1):
        return source
    if y is None and not set(own) <= set(classes):
        return source
    if own and y is not None:
        check_labels(y, own, name)
        present = [own[k] for k in y.unique().tolist() if k >= 0]
        if unknown := [text for text in present if text not in classes]:
            raise InputError(
                f"{name}: labels {some(unknown)} are not among the classes {tuple(classes)} of {of}; name the same "
                "`classes` in both, or leave these images out"
            )
        place = torch.tensor([list(classes).index(text) if text in classes else -1 for text in own])
        y = torch.where(y < 0, y, place[y.clamp_min(0)])
    elif y is not None and len(y) and int(y.max()) >= len(classes):
        raise InputError(f"{name}: label {int(y.max())} is outside the {len(classes)} classes {tuple(classes)} of {of}")
    if isinstance(source, Cohort):
        return source.replace(y=y, classes=list(classes))
    return Renumbered(source, y, list(classes))


def check_named(sources: Mapping[str, Source], configs: Mapping[str, object]) -> None:
    """Refuse labels that are names, numbered by their alphabet, beside others that are numbers: which is which?

    Args:
        sources: Images by what they are called in error messages.
        configs: Where some of them come from: those that list `classes` say which number each name has, and so do those
            that cannot list any.

    Raises:
        InputError: that is so.
    """
    known = {name: source for name, source in sources.items() if source.y is not None and source.y.ndim == 1}
    numbers = [name for name, source in known.items() if not source.classes]
    names = [k for k, source in known.items() if source.classes and getattr(configs.get(k), "classes", True) == ()]
    if numbers and names:
        raise InputError(
            f"{names[0]}: expected labels that are numbers, as those of {numbers[0]}, got names "
            f"{tuple(known[names[0]].classes)}; say which number each has by `{names[0]}.classes`, or name the "
            "`classes` of both"
        )


def numbered_alike(sources: Mapping[str, Source], classes: Sequence[str] = (), of: str = "") -> dict[str, Source]:
    """Sources that give the same numbers to the same classes.

    Args:
        sources: Images by what they are called in error messages.
        classes: Names of the classes in label order, where something else decides them (a classifier, say); otherwise
            they are those of the source that has the classes of all others, the first if there are several.
        of: What decides them.

    Raises:
        InputError: labels that are not among the classes, or no source that has those of all others.
    """
    named = {name: tuple(s.classes) for name, s in sources.items() if s.classes}
    if not classes and named:
        every = set().union(*named.values())
        of = next((name for name, texts in named.items() if set(texts) == every), "")
        if not of:
            listed = "; ".join(f"{name} {some(texts)}" for name, texts in named.items())
            raise InputError(f"classes: expected one set of classes, got {listed}; name the same `classes` in each")
        classes = named[of]
    return {name: numbered_by(source, classes, name, of) for name, source in sources.items()}

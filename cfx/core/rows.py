"""`Rows`: the base of every value that has one entry a row, such as a cohort of images or the result of a method.

A subclass is a frozen dataclass. What is per row is read from its annotations; nowhere is a list of fields kept:

    Float[Tensor, "n c *space"]              a column: first axis `n`, the others named by their symbols
    Mapping[str, Float[Tensor, " n"]]        a column for every key
    tuple[str, ...]                          a text for every row
    anything else                            a plain value of the whole, such as a seed or the names of the classes

So a value can check itself, select, join, replace and store its rows without knowing what they mean.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from enum import IntEnum
from functools import cache
from inspect import cleandoc
from types import UnionType
from typing import Any, Self, Union, get_args, get_origin, get_type_hints

import torch
from torch import Tensor

from cfx.core.errors import InputError

Index = slice | Sequence[int] | Tensor
"""Which rows: a slice, positions, or a boolean or integer tensor."""
Values = Tensor | tuple[str, ...]
"""One column of a value: a tensor `(n, ...)`, or one text a row."""


@dataclass(frozen=True)
class Shape:
    """One shape a column may have.

    Attributes:
        kind: Kind of its numbers: `Float`, `Int`, `Bool`, or `Shaped` for any.
        axes: Symbols of the axes after `n`, such as `("c", "*space")`; `world=4` is an axis of length 4 with a name.
        dtypes: Names of the dtypes of that kind; None for any.
    """

    kind: str
    axes: tuple[str, ...]
    dtypes: tuple[str, ...] | None

    @classmethod
    def read(cls, annotation: Any) -> Self:  # noqa: ANN401
        """The shape that a jaxtyping annotation names."""
        dtypes = annotation.dtypes if isinstance(annotation.dtypes, tuple) else None
        return cls(annotation.__name__.partition("[")[0], tuple(annotation.dim_str.split()[1:]), dtypes)

    def holds(self, value: Tensor) -> bool:
        """Whether a tensor's numbers are of this kind."""
        return self.dtypes is None or str(value.dtype).removeprefix("torch.") in self.dtypes

    def fits(self, value: Tensor) -> bool:
        """Whether a tensor has these axes."""
        return _lengths(self, value) is not None

    def __str__(self) -> str:
        return f"{self.kind} ({', '.join(('n', *self.axes))})"


@dataclass(frozen=True)
class Column:
    """What a class says of one per-row field.

    Attributes:
        name: The field.
        array: What it is called where it is stored.
        shapes: Shapes it may have; none for texts.
        mapping: Whether it is a mapping of columns.
        optional: Whether None may stand in its place.
        codes: The enumeration whose numbers it holds, if any.
        meaning: Its line in the docstring of the class.
    """

    name: str
    array: str
    shapes: tuple[Shape, ...]
    mapping: bool
    optional: bool
    codes: type[IntEnum] | None
    meaning: str


def fixed_length(axis: str) -> int | None:
    """The length that an axis always has (`1`, `world=4`), or None."""
    length = axis.rpartition("=")[2]
    return int(length) if length.isdigit() else None


def about(*, array: str = "", codes: type[IntEnum] | None = None) -> dict[str, Any]:
    """What a field of a `Rows` class has to say beyond its annotation: `field(metadata=about(...))`.

    Args:
        array: What it is called where it is stored; its own name by default.
        codes: The enumeration whose numbers it holds.
    """
    return {"array": array, "codes": codes}


class Rows:
    """One entry a row; see the module. Frozen dataclasses derive from it.

    Raises:
        InputError: when built: a column of another dtype, of another shape, of another number of rows than the others,
            or with a code that its enumeration lacks.
    """

    def __init_subclass__(cls, **more: Any) -> None:  # noqa: ANN401
        """Keep the short `repr`, which a dataclass would replace by one of all numbers."""
        super().__init_subclass__(**more)
        cls.__repr__ = Rows.__repr__  # type: ignore[method-assign]

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {', '.join([f'{len(self)} rows', *self._traits()])}>"

    def _traits(self) -> Iterator[str]:
        """What is worth saying of all rows: images and their shape, how often each code occurs, the plain values."""
        images = {name: v for name, spec, v in self._present() if any("*space" in s.axes for s in spec.shapes)}
        if images:
            yield f"{', '.join(images)} of {tuple(next(v.shape[1:] for v in images.values() if isinstance(v, Tensor)))}"
        for _, spec, value in self._present():
            if isinstance(value, Tensor) and spec.codes is not None:
                counts = {code.name.lower(): int((value == int(code)).sum()) for code in spec.codes}
                yield from (f"{n} {code}" for code, n in counts.items() if n)
        yield from (f"{name} {value!r:.80}" for name, value in self.plain().items() if value)

    def __post_init__(self) -> None:
        """Check every column against its annotation, and the columns against each other."""
        sizes: dict[str, tuple[int, ...]] = {}
        for name, spec, value in self._present():
            what = f"{type(self).__name__}.{name}"
            if spec.shapes:
                _check_tensor(what, spec, value, sizes)
            elif not isinstance(value, tuple) or not all(isinstance(text, str) for text in value):
                raise InputError(f"{what}: expected one text a row, got {type(value).__name__}")
            elif sizes.setdefault("n", (len(value),)) != (len(value),):
                raise InputError(f"{what}: expected {sizes['n'][0]} rows, got {len(value)}")

    @classmethod
    def columns(cls) -> tuple[Column, ...]:
        """What the class says of its per-row fields, in their order."""
        return _columns(cls)  # type: ignore[arg-type]

    @classmethod
    def blank(cls, n: int, sizes: Mapping[str, int | tuple[int, ...]], **values: Any) -> Self:  # noqa: ANN401
        """A value of `n` rows in which nothing is known yet: NaN, 0, False and empty texts.

        Args:
            n: Number of rows; may be 0.
            sizes: Length of every axis by its symbol (`{"c": 1, "space": (64, 64)}`). An optional column with an axis
                that is not named stays None.
            values: Fields to set, plain ones and columns; every plain field without a default must be among them.

        Raises:
            InputError: an axis of a needed column is not named.
        """
        known = {name.lstrip("*"): length for name, length in sizes.items()}
        made: dict[str, Any] = {}
        for spec in cls.columns():
            if spec.name in values or spec.mapping:
                continue
            if not spec.shapes:
                made[spec.name] = ("",) * n
                continue
            shape = spec.shapes[0]
            absent = [axis for axis in shape.axes if fixed_length(axis) is None and axis.lstrip("*") not in known]
            if absent and not spec.optional:
                raise InputError(
                    f"sizes: expected the length of axis {absent[0]!r} of {spec.name}, got {sorted(known)}"
                )
            made[spec.name] = None if absent else _nothing(n, shape, known)
        return cls(**made | values)

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Join values of the same run, rows in the order given.

        Raises:
            InputError: no parts, parts with other columns, or parts whose plain values differ.
        """
        if not parts:
            raise InputError("parts: expected at least one value to join, got none")
        first, *others = parts
        for other in others:
            odd = sorted(k for k, v in first.plain().items() if other.plain()[k] != v)
            odd += sorted(first.parts().keys() ^ other.parts().keys())
            if odd:
                raise InputError(f"parts: expected values of one run, got ones that differ in {odd}")
        if not others:
            return first
        every = [part.parts() for part in parts]
        return cls.of({name: _join([part[name] for part in every]) for name in every[0]}, first.plain())

    def __len__(self) -> int:
        """Number of rows."""
        return next((len(value) for _, _, value in self._present()), 0)

    def __getitem__(self, rows: Index) -> Self:
        """The value of these rows."""
        at = self._at(rows)
        return self.of({name: _take(value, at) for name, value in self.parts().items()}, self.plain())

    def put(self, rows: Index, part: Self) -> Self:
        """This value with these rows as in `part`.

        Raises:
            InputError: `part` has other columns or plain values, or another number of rows, or a row is named twice.
        """
        at, mine, theirs = self._at(rows), self.parts(), part.parts()
        if len(at.unique()) != len(at):
            raise InputError(f"rows: expected each row once, got {at.tolist()}")
        odd = sorted(mine.keys() ^ theirs.keys()) + [k for k, v in self.plain().items() if part.plain()[k] != v]
        if len(part) != len(at) or odd:
            raise InputError(f"part: expected {len(at)} rows of the same run, got {len(part)} that differ in {odd}")
        return self.of({name: _placed(value, at, theirs[name]) for name, value in mine.items()}, self.plain())

    def parts(self) -> dict[str, Values]:
        """Every column by name; a mapping's as `field.key`; those that are None are left out."""
        return {name: value for name, _, value in self._present()}

    def plain(self) -> dict[str, Any]:
        """The fields that are not per row."""
        per_row = {spec.name for spec in self.columns()}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in per_row}  # type: ignore[arg-type]

    @classmethod
    def of(cls, parts: Mapping[str, Values], plain: Mapping[str, Any]) -> Self:
        """The value whose `parts()` and `plain()` these are."""
        made: dict[str, Any] = dict(plain)
        for spec in cls.columns():
            if spec.mapping:
                inside = {name.partition(".")[2]: v for name, v in parts.items() if name.partition(".")[0] == spec.name}
                made[spec.name] = inside if inside or not spec.optional else None
            elif spec.name in parts:
                made[spec.name] = parts[spec.name]
        return cls(**made)

    def replace(self, **values: Any) -> Self:  # noqa: ANN401
        """This value with some fields changed."""
        return replace(self, **values)  # type: ignore[type-var]

    def _present(self) -> Iterator[tuple[str, Column, Values]]:
        for spec in self.columns():
            value = getattr(self, spec.name)
            if value is None and not spec.optional:
                raise InputError(f"{type(self).__name__}.{spec.name}: expected a value, got None")
            if spec.mapping and value is not None:
                if not isinstance(value, Mapping):
                    kind = type(value).__name__
                    raise InputError(f"{type(self).__name__}.{spec.name}: expected a mapping of columns, got {kind}")
                yield from ((f"{spec.name}.{key}", spec, inner) for key, inner in value.items())
            elif value is not None:
                yield spec.name, spec, value

    def _at(self, rows: Index) -> Tensor:
        """Positions of these rows."""
        return positions(rows, len(self))


def positions(rows: Index, n: int) -> Tensor:
    """Positions of some rows among n, as `(m,)` int64 on the CPU.

    Raises:
        InputError: no slice of positive step, list or vector of positions, or flags; or positions beyond the last row.
    """
    every = torch.arange(n)
    try:
        if isinstance(rows, slice):
            return every[rows]
        at = torch.as_tensor(rows, dtype=_kind(rows)).cpu()
        if at.ndim != 1:
            raise IndexError(f"{at.ndim} axes")
        return every[at]
    except (IndexError, TypeError, ValueError) as error:
        raise InputError(f"rows: expected a slice, positions or flags among {n} rows, got {rows}: {error}") from error


def _kind(rows: Sequence[int] | Tensor) -> torch.dtype | None:
    """Nothing, as a list or as a tensor, is no positions."""
    return torch.long if len(rows) == 0 else None


@cache
def _columns(cls: Any) -> tuple[Column, ...]:  # noqa: ANN401
    said, hints = _meanings(cls.__doc__ or ""), get_type_hints(cls)
    found = []
    for f in fields(cls):
        hint = hints[f.name]
        options = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
        mapping = any(_is_mapping(option) for option in options)
        inner = [get_args(option)[1] for option in options if get_args(option)] if mapping else options
        shapes = tuple(Shape.read(o) for o in inner if _per_row(o))
        if shapes or tuple[str, ...] in options:
            more = f.metadata
            spec = (shapes, mapping, type(None) in options, more.get("codes"), said.get(f.name, ""))
            found.append(Column(f.name, more.get("array") or f.name, *spec))
    return tuple(found)


def _is_mapping(option: object) -> bool:
    origin = get_origin(option)
    return isinstance(origin, type) and issubclass(origin, Mapping)


def _per_row(option: object) -> bool:
    """Whether an annotation is that of a tensor with one entry a row."""
    return getattr(option, "dim_str", "").split()[:1] == ["n"]


def _meanings(doc: str) -> dict[str, str]:
    """The entries of a docstring's `Attributes:`, each on one line."""
    found: dict[str, str] = {}
    name = ""
    for line in cleandoc(doc).partition("Attributes:\n")[2].splitlines():
        if line and not line.startswith(" "):
            break
        if line.startswith("    ") and not line.startswith("     "):
            name, _, text = line.strip().partition(": ")
            found[name] = text
        elif line.strip():
            found[name] += f" {line.strip()}"
    return found


def _check_tensor(what: str, spec: Column, value: Values, sizes: dict[str, tuple[int, ...]]) -> None:
    """Refuse what none of the column's shapes fits; remember the lengths of its axes."""
    if not isinstance(value, Tensor):
        raise InputError(f"{what}: expected a tensor, {' or '.join(map(str, spec.shapes))}, got {type(value).__name__}")
    fits = [found for shape in spec.shapes if shape.holds(value) and (found := _lengths(shape, value)) is not None]
    agree = [found for found in fits if all(sizes.get(axis, length) == length for axis, length in found.items())]
    if not agree:
        wanted, came = " or ".join(map(str, spec.shapes)), f"{value.dtype} {tuple(value.shape)}".removeprefix("torch.")
        known = ", ".join(f"{axis} = {'x'.join(map(str, length))}" for axis, length in sizes.items())
        raise InputError(f"{what}: expected {wanted}{' with ' if known else ''}{known}, got {came}")
    sizes.update(agree[0])
    if spec.codes is not None:
        codes = {int(code) for code in spec.codes}
        odd = sorted(set(value.unique().tolist()) - codes)
        if odd:
            raise InputError(f"{what}: expected codes of {spec.codes.__name__}, {sorted(codes)}; got {odd}")


def _lengths(shape: Shape, value: Tensor) -> dict[str, tuple[int, ...]] | None:
    """The length of every named axis, or None where the tensor does not have these axes."""
    rest, found = list(value.shape), dict[str, tuple[int, ...]]()
    axes = ("n", *shape.axes)
    for i, axis in enumerate(axes):
        if axis.startswith("*"):
            many = len(rest) - (len(axes) - i - 1)
            if many < 1:
                return None
            length, rest = tuple(rest[:many]), rest[many:]
        elif not rest:
            return None
        else:
            length, rest = (rest[0],), rest[1:]
        fixed = fixed_length(axis)
        if fixed is not None and length != (fixed,):
            return None
        if fixed is None and found.setdefault(axis, length) != length:
            return None
    return None if rest else found


def _nothing(n: int, shape: Shape, sizes: Mapping[str, int | tuple[int, ...]]) -> Tensor:
    """An unknown column."""
    lengths: list[int] = []
    for axis in shape.axes:
        fixed = fixed_length(axis)
        length = sizes[axis.lstrip("*")] if fixed is None else fixed
        lengths += [length] if isinstance(length, int) else length
    dtype = {"Bool": torch.bool, "Int": torch.int64, "UInt8": torch.uint8}.get(shape.kind)
    return torch.full((n, *lengths), torch.nan) if dtype is None else torch.zeros(n, *lengths, dtype=dtype)


def _take(value: Values, at: Tensor) -> Values:
    return value[at.to(value.device)] if isinstance(value, Tensor) else tuple(value[i] for i in at.tolist())


def _join(values: Sequence[Values]) -> Values:
    if isinstance(values[0], Tensor):
        return torch.cat([v for v in values if isinstance(v, Tensor)])
    return tuple(text for some in values for text in some if isinstance(text, str))


def _placed(value: Values, at: Tensor, new: Values) -> Values:
    if isinstance(value, Tensor) and isinstance(new, Tensor):
        return value.index_copy(0, at.to(value.device), new.to(value))
    texts: list[Any] = list(value)
    for i, text in zip(at.tolist(), new, strict=True):
        texts[i] = text
    return tuple(texts)

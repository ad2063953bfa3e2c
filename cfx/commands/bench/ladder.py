"""The sets of images of a bench of detectors: in-distribution ones and shifts by name, with what is known of each."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, Self

import torch
from pydantic import Field, model_validator

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import permutation
from cfx.data import BrainConfig, BrainReadersConfig, DataConfig, load_cohort
from cfx.data.foreign import brought, foreign, inverted, matched, turned
from cfx.data.ladder import Kind, Rung, lesioned, rungs
from cfx.runtime.config import Frozen, UserPath

INSIDE = "in-distribution"
"""Name of the set that all others are told from."""
_ORDER = 912  # stream
_MADE: dict[str, Callable[[Cohort, int], Cohort]] = {
    "rotated": lambda cohort, seed: turned(cohort),
    "inverted": lambda cohort, seed: inverted(cohort),
    **{
        name: lambda cohort, seed, name=name: foreign(name, len(cohort), cohort.shape, seed)  # type: ignore[misc]
        for name in ("textures", "faces", "digits", "retina", "noise", "constant")
    },
}


class Ladder(Frozen):
    """Rungs of the ladder of simulated subjects (`cfx.data.ladder`)."""

    rungs: tuple[str, ...] = ()
    """Names of the rungs; all by default."""
    lesions: UserPath | None = None
    """Masks of real lesions in MNI space, for one more rung, `ms-lesions`: an `.npz` of packed bits with `packed`,
    `shape` and `affine`."""


class Other(Frozen):
    """Images that are not like the in-distribution ones, or should be taken for such."""

    kind: Kind
    """What a detector should do with them: leave `tolerated` ones alone, find those `beyond`, `near` and `far`."""
    data: DataConfig | None = None
    """Where they are; they are cut and resized to the grid of the in-distribution images by one rule for all sets."""
    made: Literal["rotated", "inverted", "textures", "faces", "digits", "retina", "noise", "constant"] | None = None
    """Or how they are made: the in-distribution images themselves, changed, or a set that comes with cfx."""
    matched: bool = False
    """Whether they get the histograms of in-distribution images."""
    development: bool = False
    """Whether choices were made on them; summaries leave them out."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.data is None) == (self.made is None):
            raise ValueError("data, made: expected one of them, got both or neither")
        return self


@dataclass(frozen=True)
class Shift:
    """A set of images by name.

    Attributes:
        name: What its columns are called.
        kind: What a detector should do with it; None for the in-distribution images.
        strength: What was done, and how much, in words.
        development: Whether choices were made on it.
        make: Its images.
    """

    name: str
    kind: Kind | None
    strength: str
    development: bool
    make: Callable[[], Cohort]


def shifts_of(
    data: DataConfig, inside: Cohort, ladder: Ladder | None, others: dict[str, Other], seed: int
) -> tuple[Shift, ...]:
    """All sets, the in-distribution one first; images of the others are made when they are asked for.

    Args:
        data: Where the in-distribution images come from.
        inside: These images.
        ladder: Rungs, for simulated subjects.
        others: Sets by name.
        seed: Seed of what is drawn.

    Raises:
        InputError: a ladder of other images than simulated ones, rungs that do not exist, or two sets of one name.
    """
    found = [Shift(INSIDE, None, "", False, lambda: inside)]
    if ladder is not None:
        found += list(_climbed(data, len(inside), ladder))
    found += [
        Shift(name, other.kind, _words(other), other.development, partial(_other, name, other, inside, seed))
        for name, other in others.items()
    ]
    names = [shift.name for shift in found]
    if double := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"shifts: expected names other than those of the rungs and {INSIDE!r}, got {double} twice")
    return tuple(found)


def _climbed(data: DataConfig, n: int, ladder: Ladder) -> Iterator[Shift]:
    """The rungs, of the same subjects as the in-distribution images."""
    if not isinstance(data, BrainConfig):
        raise InputError(f"ladder: expected simulated subjects, data: {{kind: brain}}, got kind {data.kind}")
    base = data.model_copy(update={"n": n})
    some = list(rungs(ladder.rungs, data.dims))
    if ladder.lesions is not None:
        words = "lesions of real patients, as dark as water"
        some.append(Rung("ms-lesions", "near", words, partial(lesioned, ladder.lesions)))
    for rung in some:
        yield Shift(rung.name, rung.kind, rung.strength, rung.development, partial(rung.make, base))


def _words(other: Other) -> str:
    what = other.made or (f"{other.data.kind} {getattr(other.data, 'path', '')}".strip() if other.data else "")
    return f"{what}, histogram matched" if other.matched else what


def _other(name: str, other: Other, inside: Cohort, seed: int) -> Cohort:
    """A set of as many images as there are in-distribution ones, or fewer if it has no more."""
    if other.made is not None:
        found = _MADE[other.made](inside, seed)
    else:
        assert other.data is not None
        found = drawn(other.data, len(inside), seed)
        found = Cohort(brought(found.x, inside.shape), ids=tuple(f"{name}-{i}" for i in found.ids))
    return found.replace(x=matched(found.x, inside.x), x_true=None) if other.matched else found


def drawn(config: DataConfig, most: int | None, seed: int) -> Cohort:
    """Images in a random order, so that any number of the first stand for all; simulated subjects in their own.

    Args:
        config: Where they are.
        most: Take this many of the first; None takes all.
        seed: Seed of the order.
    """
    cohort = load_cohort(config)
    if isinstance(config, BrainConfig | BrainReadersConfig):
        return cohort[:most]
    return cohort[permutation(len(cohort), seed=seed, stream=_ORDER)[:most]]


def units(ids: dict[str, tuple[str, ...]]) -> dict[str, torch.Tensor]:
    """Number of the subject of every row of every set: rows of one name, wherever they are, are of one subject."""
    number: dict[str, int] = {}
    return {
        name: torch.tensor([number.setdefault(subject, len(number)) for subject in rows]) for name, rows in ids.items()
    }


class Shifts(Frozen):
    """What is in distribution, and what is beside it."""

    data: DataConfig
    """In-distribution images that nothing was fitted to, calibrated on or trained on."""
    reference: DataConfig
    """In-distribution images to fit to and calibrate on, of other subjects; none of them in the networks' training."""
    reference_rows: int | None = Field(default=None, ge=2)
    """Take this many of the reference images only, drawn at random."""
    calibration: float = Field(default=0.5, gt=0, lt=1)
    """Share of the subjects of `reference` that p-values are made of."""
    ladder: Ladder | None = None
    """Rungs of simulated subjects, where `data` is such: `{}` for all."""
    shifts: dict[str, Other] = Field(default_factory=dict)
    """Other sets of images, by name."""
    rows: int | None = Field(default=None, ge=1)
    """Take this many images of every set only, drawn at random (of simulated subjects the first)."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        odd = [name for name in self.shifts if not name.replace("-", "").replace("_", "").isalnum()]
        if odd:
            raise ValueError(f"shifts: expected names of letters, digits, - and _, got {odd}")
        if self.ladder is None and not self.shifts:
            raise ValueError("ladder, shifts: expected at least one of them, got neither")
        return self

"""The ladder: sets of images from what a detector must tolerate to what it must find, each made of the same subjects.

Each rung changes one thing of the subjects of a base cohort (`BrainConfig`: what is in distribution), so that row i of
every rung is the same person, down to the noise:

    tolerated   one factor of everybody between two quantiles of its own distribution, .05 to .20 (`low`) or .80 to .95
                (`high`): unusual together, but no image by itself is one that the cohort does not have
    beyond      one factor outside: at s standard deviations, where the cohort ends at 2; or what no factor of it does
    near        a brain with something wrong: a lesion of an unseen kind, another slice, an object, upside down; or
                another organ with the intensities of a brain
    far         no such image at all

With F the distribution of a factor and z the value of a subject, `tolerated` puts F^-1(a + (b - a) F(z)) in its place,
with F measured on many subjects of the same class; so it stays a draw from the distribution, given that it lies in the
band. `beyond` puts s in its place, or s times its sign where the factor has no direction.

Three rungs are for development (`bias-4`, `dark-lesion`, `bright-lesion`): what a detector has to choose is chosen on
these and on in-distribution images alone, and summaries leave them out.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.data import shifts, template
from cfx.data.brain import CLASSES, BrainConfig, Population
from cfx.data.foreign import foreign, inverted, matched, turned
from cfx.data.planted_lesions import ROUND, Marks, discs, drawn, masks_at
from cfx.data.subjects import Factor, Factors

Kind = Literal["tolerated", "beyond", "near", "far"]
"""What a detector should do with such images: leave `tolerated` alone, find the others."""

BANDS: Mapping[str, tuple[float, float]] = {"low": (0.05, 0.20), "high": (0.80, 0.95)}
"""Quantiles between which `tolerated` rungs put a factor."""
SIDES: Mapping[str, tuple[float, float]] = {"below": (-36.0, -24.0), "above": (44.0, 56.0)}
"""Slice levels in mm of the rungs of wrong slices; the cohort has those of `cfx.data.template.LEVELS`."""
_WITHIN: tuple[Factor, ...] = ("gamma", "bias", "blur", "noise", "size", "ventricles", "level", "severity")
_FACTORS: Mapping[str, tuple[Factor, float]] = {
    "gamma-up": ("gamma", 1), "gamma-down": ("gamma", -1), "bias": ("bias", 0), "blur": ("blur", 1),
    "noise": ("noise", 1), "shear": ("shear", 0), "trapezoid": ("trapezoid", 0),
}  # fmt: skip
_DEVIATIONS = (3, 4, 6)
_SHIFTS: Mapping[str, tuple[str, float, str]] = {
    "contrast": ("gamma", 1.0, "intensities to the power 1.5 or 1 / 1.5"),
    "grain": ("noise", 0.5, "white noise of .05 everywhere, air included"),
    "smoothing": ("blur", 1.0, "a Gaussian of one pixel"),
    "resolution": ("resolution", 1.0, "half the pixels along every axis, interpolated back"),
    "motion": ("motion", 1.0, "turns of 2 degrees and shifts of 2 % of the field between parts of k-space"),
}
_OBJECTS = ("tag", "implant", "ruler")
_SETS: Mapping[str, str] = {
    "textures": "brick, grass and gravel",
    "faces": "faces",
    "digits": "written digits",
    "noise": "uniform pixels",
    "constant": "one value everywhere",
}
_MANY = 4096  # subjects on which the distribution of a factor is measured


@dataclass(frozen=True)
class Rung:
    """One rung.

    Attributes:
        name: What it is called.
        kind: What a detector should do with it.
        strength: What was done, and how much, in words.
        make: Its images, of the subjects of an in-distribution cohort; `lesion` is what was planted where that is a
            matter of place, else None.
        development: Whether choices may be made on it.
        dims: Spatial axes that it is defined for.
    """

    name: str
    kind: Kind
    strength: str
    make: Callable[[BrainConfig], Cohort]
    development: bool = False
    dims: tuple[int, ...] = (2, 3)


def rendered(
    config: BrainConfig,
    change: Callable[[Population, Factors], Factors] = lambda people, f: f,
    levels: tuple[float, float] = template.LEVELS,
) -> Cohort:
    """The subjects of a configuration with their factors changed: images, labels, brain masks.

    Args:
        config: Who.
        change: Their factors to others.
        levels: Slice levels that can be rendered.
    """
    people = Population(config, levels)
    f = people.factors(torch.arange(config.start, config.start + config.n))
    image = people.render(change(people, f))
    ids = tuple(f"brain-{config.seed}-{i}" for i in f.index.tolist())
    return Cohort(x=image.x, y=people.labels(f.index), ids=ids, mask=image.brain, classes=CLASSES)


def between(name: Factor, low: float, high: float, people: Population, f: Factors) -> Factors:
    """One factor of everybody between two quantiles of its distribution in subjects of the same class."""
    many = torch.arange(_MANY)
    sample, mine = people.drawn(many), f.column(name)
    y, of = people.labels(many), people.labels(f.index)
    found = mine.clone()
    for k in (0, 1):
        found[of == k] = _banded(mine[of == k], sample.column(name)[y == k], low, high)
    return f.having(name, found)


def _banded(z: Float[Tensor, "n k"], sample: Float[Tensor, "m k"], low: float, high: float) -> Float[Tensor, "n k"]:
    """F^-1(low + (high - low) F(z)), F of each column of a sample."""
    ordered = sample.sort(0).values
    u = (ordered[None] < z[:, None]).float().mean(1)
    place = (low + (high - low) * u) * (len(sample) - 1)
    below = place.floor().long()
    return torch.lerp(ordered.gather(0, below), ordered.gather(0, below + 1), place - below)


def outside(name: Factor, s: float, direction: float, people: Population, f: Factors) -> Factors:
    """One factor of everybody at s standard deviations: upwards, downwards, or (direction 0) on its own side."""
    z = f.column(name)
    return f.having(name, s * (torch.full_like(z, direction) if direction else torch.where(z < 0, -1.0, 1.0)))


def carrying(kind: str, amount: float, people: Population, f: Factors) -> Factors:
    """An object in every image, or the planted outline."""
    return replace(f, planted={**f.planted, kind: torch.full_like(f.severity, amount)})


def _shifted(name: str, strength: float, config: BrainConfig) -> Cohort:
    return shifts.apply(shifts.Shift(name, strength), rendered(config), config.seed)


def _at(ends: tuple[float, float], config: BrainConfig) -> Cohort:
    """Slices of another height: the lowest level of the cohort becomes the lowest of these."""

    def elsewhere(people: Population, f: Factors) -> Factors:
        low, high = template.LEVELS
        return replace(f, level=ends[0] + (ends[1] - ends[0]) * (f.level - low) / (high - low))

    return rendered(config, elsewhere, ends)


def _marked(marks: Marks, config: BrainConfig) -> Cohort:
    people = Population(config)
    f = people.factors(torch.arange(config.start, config.start + config.n))
    return drawn(rendered(config), discs(marks, people, f), marks.value)


def _upside_down(config: BrainConfig) -> Cohort:
    cohort = rendered(config)
    return cohort.replace(x=cohort.x.flip(2 if config.dims == 2 else 4), mask=None)


def _quarter(config: BrainConfig) -> Cohort:
    return turned(rendered(config))


def _negative(config: BrainConfig) -> Cohort:
    return inverted(rendered(config))


def _organ(config: BrainConfig) -> Cohort:
    cohort = rendered(config)
    return Cohort(x=matched(foreign("retina", config.n, cohort.shape, config.seed).x, cohort.x))


def _foreign(name: str, config: BrainConfig) -> Cohort:
    return foreign(name, config.n, (1, *[config.size] * config.dims), config.seed)


def lesioned(path: Path, config: BrainConfig) -> Cohort:
    """Subjects with the lesions of real patients, as dark as water: black holes of a T1 image.

    Args:
        path: Masks in MNI space, as `cfx.data.planted_lesions.masks_at` reads them.
        config: Who.

    Raises:
        InputError: no such file, or one without masks.
    """
    people = Population(config)
    f = people.factors(torch.arange(config.start, config.start + config.n))
    return drawn(rendered(config), masks_at(path, people, f), value=-0.76)


def _tolerated() -> Iterator[Rung]:
    for name in _WITHIN:
        for side, (low, high) in BANDS.items():
            words = f"{name} between its quantiles {low:g} and {high:g}"
            make = partial(rendered, change=partial(between, name, low, high))
            yield Rung(f"{name}-{side}", "tolerated", words, make, dims=(2,) if name == "level" else (2, 3))


def _beyond() -> Iterator[Rung]:
    for name, (factor, direction) in _FACTORS.items():
        for s in _DEVIATIONS:
            words = f"{factor} at {s} standard deviations; the cohort ends at 2"
            make = partial(rendered, change=partial(outside, factor, float(s), float(direction)))
            yield Rung(f"{name}-{s}", "beyond", words, make, development=(name, s) == ("bias", 4))
    outline = partial(rendered, change=partial(carrying, "shape", 1.0))
    yield Rung("outline", "beyond", "an outline that no shape mode makes", outline)
    for name, (shift, strength, words) in _SHIFTS.items():
        yield Rung(name, "beyond", words, partial(_shifted, shift, strength))


def _near() -> Iterator[Rung]:
    for name, marks in ROUND.items():
        own = name in ("dark", "bright")
        yield Rung(f"{name}-lesion", "near", marks.words, partial(_marked, marks), development=own)
    for side, (a, b) in SIDES.items():
        yield Rung(f"slice-{side}", "near", f"slices at {a:g} to {b:g} mm", partial(_at, (a, b)), dims=(2,))
    for name in _OBJECTS:
        make = partial(rendered, change=partial(carrying, name, 1.0))
        yield Rung(name, "near", f"a {name} as a planted confounder", make)
    yield Rung("upside-down", "near", "front and back (volumes: top and bottom) swapped", _upside_down)
    yield Rung("quarter-turn", "near", "turned by 90 degrees", _quarter)
    yield Rung("other-organ", "near", "a retina with the histogram of a brain", _organ, dims=(2,))


def _far() -> Iterator[Rung]:
    yield Rung("negative", "far", "bright and dark swapped", _negative)
    for name, words in _SETS.items():
        dims = (2, 3) if name in ("noise", "constant") else (2,)
        yield Rung("white-noise" if name == "noise" else name, "far", words, partial(_foreign, name), dims=dims)


RUNGS: Mapping[str, Rung] = {rung.name: rung for part in (_tolerated, _beyond, _near, _far) for rung in part()}
"""Every rung by its name, from what is tolerated to what is far."""


def rungs(names: tuple[str, ...] = (), dims: int = 2) -> tuple[Rung, ...]:
    """The rungs of these names in the order of the ladder, or all that there are in so many dimensions.

    Raises:
        InputError: a name that is no rung's, or one of other dimensions.
    """
    here = {name: rung for name, rung in RUNGS.items() if dims in rung.dims}
    if odd := sorted(set(names) - here.keys()):
        raise InputError(f"ladder.rungs: expected names among {list(here)}, got {odd}")
    return tuple(rung for name, rung in here.items() if not names or name in names)

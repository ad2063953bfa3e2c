"""Who the simulated subjects are: every factor of them, drawn, moved, as in the other class; and their labels.

A subject is (seed, index). Every random quantity of a subject comes from counter-based noise, so the same subject can
be drawn again with any factor changed and everything else the same.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from torch import Tensor

from cfx.core.random import normal, uniform
from cfx.data import labels, template

SIGNED = ("shape", "scanner")  # planted as -strength or +strength; the others are absent or present
SHAPE_MODES = ("size", "length", "trapezoid", "shear", "ventricles")

_LONGEST = 0.9  # most that the modes size and length may add, in standard deviations
_SCANNER = {"bias": slice(0, 3), "gamma": slice(3, 4), "blur": slice(4, 5), "noise": slice(5, 6)}


class Confounder(BaseModel):
    """A planted confounder: among the subjects that can have it, present in a row (c = 1) with P(c = y) = q."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["shape", "scanner", "tag", "implant", "ruler"]
    """`shape`: global brain shape; `scanner`: contrast and shading of a site; `tag`: letter in a corner; `implant`:
    bright disc; `ruler`: ticks at the edge."""
    strength: float = Field(default=1.0, ge=0)
    """1 is plainly visible; 0 removes it."""
    q: float = Field(default=0.5, ge=0, le=1)
    """Probability that the confounder equals the label; 0.5 is no confounding, 1 a perfect shortcut."""
    share: float = Field(default=1.0, ge=0, le=1)
    """Share of the subjects that can have it at all; the others are free of it (amplitude 0)."""


class Readers(BaseModel):
    """Readers who each give a label and outline the lesions, and do not agree."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    count: int = Field(ge=1)
    """Number of readers."""
    error: float = Field(default=0.1, ge=0, le=0.5)
    """Probability that a reader's label is wrong, in every subject and independently of the others."""
    spread: float = Field(default=1.0, ge=0)
    """Standard deviation in mm of where a reader draws the edge of the lesions, outwards or inwards; normal, one draw a
    reader and subject."""


Factor = Literal[
    "severity", "level", "size", "length", "trapezoid", "shear", "ventricles", "bias", "gamma", "blur", "noise"
]
"""A factor of the images that is a number."""


class BrainConfig(BaseModel):
    """Which simulated subjects to render, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Literal["brain"] = "brain"
    n: int = Field(default=256, ge=1)
    """Number of subjects."""
    seed: int = Field(default=0, ge=0)
    """Seed of the population."""
    start: int = Field(default=0, ge=0)
    """Index of the first subject: disjoint ranges of one seed are disjoint subjects."""
    size: int = Field(default=64, ge=16, le=256)
    """Pixels along an edge of the 204.8 mm field."""
    dims: Literal[2, 3] = 2
    """2: axial slices; 3: volumes."""
    confounders: tuple[Confounder, ...] = ()
    """Planted confounders, each kind at most once."""
    label: Literal["disease", "shape", "scanner", "tag", "implant", "ruler"] = "disease"
    """The factor that is the class: disease, or the presence of a planted confounder. The true counterfactual changes
    this factor alone."""
    overlap: float = Field(default=0.0, ge=0, le=1)
    """Share of the subjects whose severity is drawn from where the classes overlap; without planted confounders no
    classifier of the disease errs in less than a quarter of it."""
    label_noise: float = Field(default=0.0, ge=0, le=0.5)
    """Share of the labels that are flipped; the image and its true counterfactual remain those of the true class."""
    readers: Readers | None = None
    """Readers besides the label."""
    moved: Mapping[Factor, float] = Field(default_factory=dict)
    """An exact shift of the distribution: factors of every subject moved by so much from where they were drawn, nothing
    else changed. `severity` in its own units (not below 0), `level` in mm (within its range), and in standard
    deviations `size`, `length`, `trapezoid`, `shear`, `ventricles` of the brain and `bias`, `gamma`, `blur`, `noise` of
    the scanner."""
    lazy: bool = False
    """Render a subject when it is asked for, instead of all at once (`cfx train`, `cfx explain`)."""

    @field_validator("confounders")
    @classmethod
    def _distinct(cls, value: tuple[Confounder, ...]) -> tuple[Confounder, ...]:
        kinds = [c.kind for c in value]
        if len(set(kinds)) != len(kinds):
            raise ValueError(f"expected each kind at most once, got {kinds}")
        return value

    @model_validator(mode="after")
    def _labelled(self) -> Self:
        """A factor that is the label must be planted, and be one thing or the other in every subject."""
        planted: dict[str, Confounder] = {c.kind: c for c in self.confounders}
        if self.label != "disease" and self.label not in planted:
            raise ValueError(f"label: expected disease or one of the confounders {sorted(planted)}, got {self.label!r}")
        if self.label in SIGNED and planted[self.label].share < 1:
            raise ValueError(f"label: {self.label} as the class expects its share to be 1")
        return self


@dataclass(frozen=True)
class Factors:
    """What makes up `n` images; replace any field and render again.

    Attributes:
        index: Subject indices, the counters of their randomness.
        severity: Disease severity; 0 is none.
        level: Axial slice level in mm (ignored in 3D).
        shape: Amplitudes of `SHAPE_MODES`, standard normal.
        scanner: Bias field (3), gamma, blur and noise amplitudes, standard normal.
        planted: Amplitude of each planted confounder by kind: 0 absent; `shape` and `scanner` are -strength or
            +strength.
    """

    index: Int[Tensor, " n"]
    severity: Float[Tensor, " n"]
    level: Float[Tensor, " n"]
    shape: Float[Tensor, "n modes"]
    scanner: Float[Tensor, "n 6"]
    planted: Mapping[str, Float[Tensor, " n"]]

    def __getitem__(self, rows: slice) -> "Factors":
        """The factors of these rows."""
        each = {k: v[rows] for k, v in vars(self).items() if isinstance(v, Tensor)}
        return Factors(planted={k: v[rows] for k, v in self.planted.items()}, **each)

    def column(self, name: Factor) -> Float[Tensor, "n k"]:
        """The values of one factor; only the bias field has more than one."""
        if name in ("severity", "level"):
            return self.severity[:, None] if name == "severity" else self.level[:, None]
        return self.scanner[:, _SCANNER[name]] if name in _SCANNER else self.shape[:, [SHAPE_MODES.index(name)]]

    def having(self, name: Factor, values: Float[Tensor, "n k"]) -> "Factors":
        """The same subjects with these values of one factor; none leaves the field of view."""
        if name == "severity":
            return replace(self, severity=values[:, 0])
        if name == "level":
            return replace(self, level=values[:, 0])
        whole = (self.scanner if name in _SCANNER else self.shape).clone()
        whole[:, _SCANNER[name] if name in _SCANNER else [SHAPE_MODES.index(name)]] = values
        return replace(self, scanner=whole) if name in _SCANNER else replace(self, shape=_inside(whole))


@dataclass(frozen=True)
class Subjects:
    """Subjects of one seed."""

    config: BrainConfig

    def labels(self, index: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
        """Class of each subject, 0 or 1 with equal probability."""
        return (self._uniform((1,), index, 0)[:, 0] < 0.5).long()

    def severity(self, index: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """Severity that each subject has in class `y`; a subject has one in either class."""
        u, mix = self._uniform((2,), index, 1), self._uniform((1,), index, 9)[:, 0]
        return labels.draw_severity(u, mix, y, self.config.overlap)

    def factors(self, index: Int[Tensor, " n"]) -> Factors:
        """All factors of these subjects, confounders planted with their q, and moved."""
        return self.moved(self.drawn(index))

    def drawn(self, index: Int[Tensor, " n"]) -> Factors:
        """All factors of these subjects before any is moved."""
        y = self.labels(index)
        low, high = template.LEVELS
        u = self._uniform((1 + len(self.config.confounders),), index, 2)
        can = self._uniform((len(self.config.confounders),), index, 8)
        planted: dict[str, Tensor] = {}
        for k, c in enumerate(self.config.confounders):
            present = torch.where(u[:, 1 + k] < c.q, y, 1 - y).float()
            amplitude = c.strength * (2 * present - 1 if c.kind in SIGNED else present)
            planted[c.kind] = amplitude * (can[:, k] < c.share)
        return Factors(
            index=index,
            severity=self.severity(index, y),
            level=low + (high - low) * u[:, 0],
            shape=_inside(self._normal((len(SHAPE_MODES),), index, 3).clamp(-2.0, 2.0)),
            scanner=self._normal((6,), index, 4).clamp(-2.0, 2.0),
            planted=planted,
        )

    def twins(self, factors: Factors) -> Factors:
        """The same subjects with the factor that is the label, and nothing else, as in the other class."""
        kind = self.config.label
        if kind == "disease":
            y = self.labels(factors.index)
            severity = self.severity(factors.index, 1 - y) + self.config.moved.get("severity", 0.0)
            return replace(factors, severity=severity.clamp_min(0))
        now = factors.planted[kind]
        strength = next(c.strength for c in self.config.confounders if c.kind == kind)
        return replace(factors, planted={**factors.planted, kind: -now if kind in SIGNED else strength - now})

    def moved(self, f: Factors) -> Factors:
        """These factors moved as the configuration says."""
        by = self.config.moved
        shape, scanner = f.shape.clone(), f.scanner.clone()
        for name in by.keys() & set(SHAPE_MODES):
            shape[:, SHAPE_MODES.index(name)] += by[name]
        for name in by.keys() & _SCANNER.keys():
            scanner[:, _SCANNER[name]] += by[name]
        severity = (f.severity + by.get("severity", 0.0)).clamp_min(0)
        level = (f.level + by.get("level", 0.0)).clamp(*template.LEVELS)
        return replace(f, severity=severity, level=level, shape=shape, scanner=scanner)

    def probability(self, index: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
        """P(true class = 1) given all factors of a subject, before labels are flipped; see `cfx.data.labels`."""
        f = self.drawn(index)
        if self.config.label != "disease":
            return (f.planted[self.config.label] > 0).float()
        return labels.posterior(*(self._weight(f, k) for k in (0, 1)))

    def _weight(self, f: Factors, k: int) -> Float[Tensor, " n"]:
        """w_k: density of these factors in class k, as far as it depends on the class."""
        w = labels.severity_density(f.severity, k, self.config.overlap)
        for c in self.config.confounders:
            if c.strength:
                signed = c.kind in SIGNED
                w = w * labels.planted_probability(f.planted[c.kind], k, q=c.q, share=c.share, signed=signed)
        return w

    def reported(self, index: Int[Tensor, " n"], y: Int[Tensor, " n"]) -> tuple[Int[Tensor, " n"], dict[str, Tensor]]:
        """The labels given to subjects of true class `y`, and what else is known of them by name.

        That is nothing for subjects whose label is certain; else `p_true` = P(label = 1) given all factors, with label
        noise `y_true`, and the labels of the readers, `reader_0` first.
        """
        noise, readers = self.config.label_noise, self.config.readers
        if not (self.config.overlap or noise or readers):
            return y, {}
        known = {"p_true": labels.of_flipped(self.probability(index), noise)} | ({"y_true": y} if noise else {})
        if readers is not None:
            each = labels.flipped(y[:, None], self._uniform((readers.count,), index, 13), readers.error)
            known |= {f"reader_{k}": label for k, label in enumerate(each.unbind(1))}
        return labels.flipped(y, self._uniform((1,), index, 12)[:, 0], noise), known

    def _normal(self, shape: Sequence[int], index: Tensor, stream: int) -> Tensor:
        return normal(shape, seed=self.config.seed, row=index, stream=stream)

    def _uniform(self, shape: Sequence[int], index: Tensor, stream: int) -> Tensor:
        return uniform(shape, seed=self.config.seed, row=index, stream=stream)


def _inside(shape: Float[Tensor, "n modes"]) -> Float[Tensor, "n modes"]:
    """Shorten the few brains whose size and length together would leave the field of view."""
    size, length = (SHAPE_MODES.index(k) for k in ("size", "length"))
    out = shape.clone()
    out[:, length] = torch.maximum(shape[:, length], -_LONGEST - shape[:, size])
    return out

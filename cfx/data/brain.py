"""The embedded cohort: simulated brain MRI whose true counterfactual, lesion and confounder are known.

A subject is (seed, index). Every random quantity of a subject comes from counter-based noise, so the same subject can
be rendered again with any factor changed and everything else, down to the noise, the same. Two classes: `healthy` and
`diseased` (enlarged ventricles, widened sulci, periventricular white-matter lesions). The true counterfactual of an
image is the same subject at the severity it would have in the other class. Classes may overlap in severity, labels may
be wrong, and several readers may disagree: `cfx.data.labels` has the exact probabilities.

Rendering order: template at the slice level -> sulcal widening and lesions -> one warp by
exp(v_disease) o exp(v_anatomy) -> contrast, bias field, blur, noise -> burned-in objects (tag, implant, ruler).
The idea of planted bias on a template with stationary velocity fields follows SimBA (Stanley et al. 2023).
"""

from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cfx.core import geometry
from cfx.core.axes import RAS
from cfx.core.broadcast import each
from cfx.core.cohort import Cohort
from cfx.data import confounders, template
from cfx.data.labels import DISEASED_SEVERITY, HEALTHY_SEVERITY
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.subjects import SHAPE_MODES, SIGNED, BrainConfig, Confounder, Factors, Readers, Subjects

__all__ = [
    "CLASSES",
    "DISEASED_SEVERITY",
    "HEALTHY_SEVERITY",
    "SHAPE_MODES",
    "SIGNED",
    "BrainConfig",
    "Confounder",
    "Factors",
    "Part",
    "Population",
    "Readers",
    "Rendered",
    "load_brain",
    "open_brain",
]

CLASSES = ["healthy", "diseased"]
Part = Literal["ventricles", "lesions"]
"""The parts of the disease: wide ventricles, or lesions with wide sulci."""

_ENLARGEMENT = 5.0  # mm by which the ventricle wall moves at severity 1
_MODE = 0.8  # mm by which it moves at one standard deviation of the shape mode `ventricles`
_REACH = 10.0  # mm over which that displacement fades
_SCALES = ((45.0, 2.4), (20.0, 1.2))  # anatomy: (mm between control points, mm standard deviation)
_LESIONS = 5
_EDGE = 0.9  # mm over which the logit of a lesion's soft edge changes by one
_SITE = 2.0  # standard deviations by which the planted scanner moves contrast and shading
_CHUNK = 128  # subjects rendered at a time


@dataclass(frozen=True)
class Rendered:
    """Images `x` in [-1, 1] with their ground truth: masks of `lesion` and `brain`, the lesion as readers draw it."""

    x: Float[Tensor, "n 1 *space"]
    lesion: Bool[Tensor, "n 1 *space"]
    brain: Bool[Tensor, "n 1 *space"]
    readings: Bool[Tensor, "n reader *space"]


@dataclass(frozen=True)
class Population(Subjects):
    """Subjects of one seed, drawn and rendered on one grid.

    Attributes:
        config: Who they are.
        levels: Lowest and highest slice level in mm that can be rendered in 2D.
    """

    levels: tuple[float, float] = template.LEVELS

    def render(self, factors: Factors) -> Rendered:
        """Images of these factors; a few thousand 64 x 64 slices take seconds on one core."""
        parts = [self._render(factors[i : i + _CHUNK]) for i in range(0, len(factors.index), _CHUNK)]
        return Rendered(*(torch.cat([getattr(p, k) for p in parts]) for k in ("x", "lesion", "brain", "readings")))

    def deformation(self, factors: Factors, maps: Tensor | None = None) -> Float[Tensor, "n dims *space"]:
        """Displacement in pixels from the image to the template: exp(v_disease) o exp(v_anatomy)."""
        maps = self.grid.at(factors.level) if maps is None else maps
        disease = geometry.exponential(self._disease_velocity(factors, maps))
        return geometry.compose(disease, geometry.exponential(self._anatomy_velocity(factors)))

    def partly(self, f: Factors, other: Factors, part: Part) -> Factors:
        """These subjects with one part of the disease, and nothing else, as in others of the same people.

        Severity moves the ventricles and makes lesions and sulci. The shape mode of the ventricles moves them alone,
        and can take back what severity does to them.
        """
        moved = (other.severity - f.severity) * (_ENLARGEMENT / _MODE)
        shape, k = f.shape.clone(), SHAPE_MODES.index("ventricles")
        shape[:, k] += moved if part == "ventricles" else -moved
        return replace(f, severity=f.severity if part == "ventricles" else other.severity, shape=shape)

    @property
    def grid(self) -> template.Template:
        """The template on the grid of the images."""
        return template.template(self.config.size, self.config.dims, self.levels)

    def _disease_velocity(self, f: Factors, maps: Tensor) -> Tensor:
        """Pull-back velocity that widens the ventricles: towards them, strongest at their wall."""
        spacing = self.grid.spacing
        distance = maps[:, 3:4]
        inward = -geometry.gradient(distance) / spacing
        taper = torch.where(distance > 0, torch.exp(-((distance / _REACH) ** 2)), (1 + distance / 6).clamp(0, 1))
        amount = _ENLARGEMENT * f.severity + _MODE * f.shape[:, SHAPE_MODES.index("ventricles")]
        v = inward * taper * each(amount, maps)
        return geometry.smooth(v, 2.5 / spacing) / spacing

    def _anatomy_velocity(self, f: Factors) -> Tensor:
        """Shape modes plus random control points at several scales, in pixels."""
        grid = self.grid
        space = tuple(grid.maps.shape[2:])
        v = confounders.shape_velocity(f.shape, f.planted.get("shape"), space, grid.spacing)
        for k, (scale, deviation) in enumerate(_SCALES):
            points = [int(template.FIELD_OF_VIEW / scale) + 2] * len(space)
            knots = self._normal((len(space), *points), f.index, 10 + k) * deviation
            mode = "bilinear" if len(space) == 2 else "trilinear"
            field = F.interpolate(knots, size=space, mode=mode, align_corners=True)
            v = v + geometry.smooth(field, 0.35 * scale / grid.spacing) * (1.5 / grid.spacing)
        return v

    def _render(self, f: Factors) -> Rendered:
        maps = self.grid.at(f.level)
        lesions = self._lesions(f, maps)
        u = self.deformation(f, maps)
        tissue = _tissue(maps, each(f.severity, maps), lesions, self.grid.spacing)
        flat = torch.cat([tissue, lesions, maps[:, :1]], 1)
        image, lesion, t1 = geometry.warp(flat, u, padding="zeros").split(1, dim=1)
        brain = t1 > 0.15
        image = self._scan(image, brain, f)
        image = confounders.burn_in(image, f.planted, self.grid.spacing)
        return Rendered(2 * image.clamp(0, 1) - 1, lesion > 0.5, brain, self._readings(lesion, f))

    def _readings(self, lesion: Float[Tensor, "n 1 *space"], f: Factors) -> Bool[Tensor, "n reader *space"]:
        """The soft lesion cut where every reader sees its edge, b mm further out: at the logit -b / `_EDGE`."""
        readers = self.config.readers
        if readers is None:
            return lesion.new_zeros(len(lesion), 0, *lesion.shape[2:]).bool()
        outwards = readers.spread * self._normal((readers.count,), f.index, 14)
        return lesion > torch.sigmoid(-outwards / _EDGE).view(*outwards.shape, *[1] * (lesion.ndim - 2))

    def _lesions(self, f: Factors, maps: Tensor) -> Float[Tensor, "n 1 *space"]:
        """Soft lesion map in template space: candidates grow one after another as severity rises."""
        space, spacing = maps.shape[2:], self.grid.spacing
        u = self._uniform((4 + len(space), _LESIONS), f.index, 5)
        weight = maps[:, 4].flatten(1).double().cumsum(1) + 1e-9
        place = torch.searchsorted(weight, u[:, 0].double() * weight[:, -1:]).clamp(max=weight.shape[1] - 1)
        centre = torch.stack(torch.unravel_index(place, space), 1) + u[:, 4:] - 0.5
        onset = 0.15 + 0.55 * (torch.arange(_LESIONS) + u[:, 1]) / _LESIONS
        radius = (2.8 + 3.2 * u[:, 2]) * ((f.severity[:, None] - onset) / 0.3).clamp(0, 1).sqrt()
        p = geometry.identity(tuple(space), maps)
        wobble = geometry.smooth(self._normal((1, *space), f.index, 6), 4.0 / spacing)
        wobble = wobble / each(wobble.flatten(1).std(1), maps)
        out = torch.zeros_like(maps[:, :1])
        for k in range(_LESIONS):  # a few candidates, each for the whole batch
            r = each(radius[:, k], maps)
            offset = p - each(centre[:, :, k], p)
            distance = offset.square().sum(1, keepdim=True).sqrt() * spacing + 0.8 * wobble
            out = torch.maximum(out, torch.sigmoid((r - distance) / _EDGE) * (r > 0))
        return out * maps[:, 2:3]

    def _scan(self, image: Tensor, brain: Tensor, f: Factors) -> Tensor:
        """Scanner: gamma, smooth multiplicative bias, blur, noise inside the brain."""
        space, spacing = image.shape[2:], self.grid.spacing
        bias, (gamma, blur, noise) = f.scanner[:, :3], f.scanner[:, 3:].unbind(1)
        site = f.planted.get("scanner")
        if site is not None:
            gamma, bias = gamma + _SITE * site, bias + _SITE * site[:, None]
        p = geometry.identity(tuple(space), image) / (torch.tensor(space).view(1, -1, *[1] * len(space)) - 1) * 2 - 1
        waves = torch.zeros_like(image)
        for k in range(len(space)):
            waves = waves + each(bias[:, k], image) * torch.sin(1.6 * p[:, k : k + 1] + 0.5 * k)
        image = image.clamp_min(0) ** each(torch.exp(0.08 * gamma), image) * torch.exp(0.04 * waves)
        soft = geometry.smooth(image, 2.2 / spacing)
        image = torch.lerp(image, soft, each(torch.sigmoid(blur - 1.0), image) * 0.6)
        grain = self._normal((1, *space), f.index, 7) * each(0.012 * torch.exp(0.3 * noise), image)
        return image + grain * brain


def _tissue(maps: Tensor, severity: Tensor, lesions: Tensor, spacing: float) -> Tensor:
    """T1 contrast in [0, 1] of the template with sulci widened and lesions dark on white matter."""
    t1, gm, wm, distance, _ = maps.split(1, dim=1)
    image: Tensor = ((t1 - 0.12) / 0.8 + 0.05 * (wm - gm)).clamp(0, 1) * 0.95
    fluid = ((t1 > 0.05) * (1 - gm - wm)).clamp(0, 1) * (distance > 12)
    widened = (1.6 * geometry.smooth(fluid, 2.2 / spacing)).clamp(0, 0.7) * (t1 > 0.05) * severity.clamp(max=1.3) * 0.3
    image = image * (1 - widened) + 0.12 * widened
    return image * (1 - lesions) + 0.34 * lesions


def load_brain(config: BrainConfig) -> Cohort:
    """All subjects rendered, in memory; see `open_brain`."""
    return open_brain(config).load()


def open_brain(config: BrainConfig) -> LazyCohort:
    """A cohort with all its ground truth, each subject rendered when asked for.

    Images rendered on their own and together differ by one rounding (1e-6); every row by itself is the same each time.

    Returns:
        A source of `x`, `x_true` (the subject with the label's factor as in the other class), `lesion`, brain `mask`,
        affines, and covariates `severity`, `severity_true`, `level`, one column a shape mode and one a planted
        confounder (`planted_<kind>`). With overlap, label noise or readers also `p_true`, the exact P(y = 1) given the
        subject's factors; with label noise `y_true`; with readers one column each (`reader_<k>`) and `readings`.
    """
    people = Population(config)
    index = torch.arange(config.start, config.start + config.n)
    f = people.factors(index)
    other = people.twins(f)
    truth = people.labels(index) if config.label == "disease" else (f.planted[config.label] > 0).long()
    y, known = people.reported(index, truth)
    columns = {"severity": f.severity, "severity_true": other.severity, "level": f.level}
    columns |= {f"shape_{name}": f.shape[:, k] for k, name in enumerate(SHAPE_MODES)}
    columns |= {f"planted_{name}": value for name, value in f.planted.items()}
    columns |= known

    def read(rows: slice) -> Columns:
        image, twin = people.render(f[rows]), people.render(other[rows])
        affines = torch.stack([template.affine(config.size, config.dims, float(z)) for z in f.level[rows]])
        spacing = torch.full((len(affines), config.dims), template.FIELD_OF_VIEW / config.size)
        found = {"x": image.x, "affine": affines, "spacing": spacing, "mask": image.brain, "lesion": image.lesion}
        return found | {"x_true": twin.x} | ({} if config.readers is None else {"readings": image.readings})

    return LazyCohort(
        read,
        ids=tuple(f"brain-{config.seed}-{i}" for i in index.tolist()),
        y=y,
        covariates=columns,
        classes=CLASSES if config.label == "disease" else [f"no {config.label}", config.label],
        axes=("back", "right") if config.dims == 2 else RAS,
    )

"""Shifts of the distribution: what another scanner, protocol or patient does to an image, each with a strength.

With v = (x + 1) / 2 in [0, 1] (air is 0), s the strength, p a voxel and e the draws of a row:

    bias        v B / mean(B),  B = exp(s / 4 b(p)), b a random sum of low cosines of unit variance
    gamma       v^exp(+- 0.4 s), the sign at random
    noise       x + s / 10 e
    blur        x * Gaussian of s voxels
    resolution  x averaged to 1 / (1 + s) of the voxels along every axis, and interpolated back
    motion      the k-space of the moving object: a segment of its lines for each pose (Shaw et al. 2019, "MRI k-space
                motion artefact augmentation"); turns of 2 s degrees, shifts of s / 50 of the field, standard deviations
    crop        air beyond a field of view that is s / 10 shorter at every side
    flip        left for right in a share s of the rows
    lesion      a disc of air or of the brightest value about a random place in the mask (or else where there is no
                air), of radius s / 16 of the field

Strength 0 is the image itself, bit for bit; 1 is plainly visible. Draws depend on the seed and on the name of the row,
so that it changes in the same way whatever stands beside it, and its true counterfactual with it. `BrainConfig.moved`
has the exact shifts of the simulation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional

from cfx.core import geometry
from cfx.core.broadcast import each
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform

Images = Float[Tensor, "n c *space"]
_COSINES = 3  # cosines of a bias field along an axis, the constant one among them
_SEGMENTS = 5  # of k-space; the middle one is the object at rest


@dataclass(frozen=True)
class Draws:
    """The random numbers of the rows of a cohort.

    Attributes:
        seed: Key of them all.
        row: Counter of every row, made of its name.
        stream: The shift that draws.
    """

    seed: int
    row: Int[Tensor, " n"]
    stream: int

    def normal(self, *shape: int) -> Float[Tensor, "n ..."]:
        """Standard normals."""
        return normal(shape, seed=self.seed, row=self.row, stream=self.stream)

    def uniform(self, *shape: int) -> Float[Tensor, "n ..."]:
        """Uniforms in [0, 1)."""
        return uniform(shape, seed=self.seed, row=self.row, stream=self.stream)


@dataclass(frozen=True)
class Shift:
    """A shift by its name.

    Attributes:
        name: One of `SHIFTS`.
        strength: 0 is none.

    Raises:
        InputError: another name, a negative strength, or one above 1 for `flip`.
    """

    name: str
    strength: float

    def __post_init__(self) -> None:
        """Check name and strength."""
        if self.name not in SHIFTS:
            raise InputError(f"name: expected one of {sorted(SHIFTS)}, got {self.name!r}")
        most = 1.0 if self.name == "flip" else math.inf
        if not 0 <= self.strength <= most or self.strength == math.inf:
            raise InputError(f"strength: expected a number in [0, {most:g}] for {self.name}, got {self.strength}")


def apply(shift: Shift, cohort: Cohort, seed: int = 0) -> Cohort:
    """The cohort under a shift: images and true counterfactuals alike, masks where they move; the rest as it was.

    Args:
        shift: Which, and how strong.
        cohort: Images, on any device.
        seed: Seed of the draws.
    """
    if not shift.strength:
        return cohort
    draws = Draws(seed, _counters(cohort.ids).to(cohort.x.device), list(SHIFTS).index(shift.name))
    return SHIFTS[shift.name](cohort, shift.strength, draws)


def _counters(ids: Sequence[str]) -> Int[Tensor, " n"]:
    """A number below 2^62 for every name."""
    return torch.tensor([int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "little") >> 2 for name in ids])


def _images(change: Callable[[Images, float, Draws], Images]) -> Callable[[Cohort, float, Draws], Cohort]:
    """A change of intensities, as one of a cohort."""

    def changed(cohort: Cohort, s: float, draws: Draws) -> Cohort:
        return _everywhere(cohort, lambda x: change(x, s, draws).clamp(-1, 1), lambda mask: mask)

    return changed


def _everywhere(cohort: Cohort, image: Callable[[Tensor], Tensor], mask: Callable[[Tensor], Tensor]) -> Cohort:
    """The cohort with its images and its masks changed."""
    how = {"x": image, "x_true": image, "mask": mask, "lesion": mask, "readings": mask}
    return cohort.replace(**{k: f(v) for k, f in how.items() if (v := getattr(cohort, k)) is not None})


def _lit(x: Images) -> Images:
    """Intensities in [0, 1]."""
    return (x + 1) / 2


def bias(x: Images, s: float, draws: Draws) -> Images:
    """Smooth shading by a factor of mean 1."""
    return 2 * _lit(x) * bias_field(tuple(x.shape[2:]), s, draws) - 1


def bias_field(space: tuple[int, ...], s: float, draws: Draws) -> Float[Tensor, "n 1 *space"]:
    """The factor B / mean(B)."""
    basis = _cosines(space).to(draws.row.device)
    b = torch.einsum("nk,k...->n...", draws.normal(len(basis)), basis)[:, None]
    field = torch.exp(s / 4 * b / each(b.flatten(1).std(1), b))
    return field / each(field.flatten(1).mean(1), field)


def _cosines(space: tuple[int, ...]) -> Float[Tensor, "k *space"]:
    """Products of low cosines along the axes, all but the constant one, each over its squared order."""
    d, low = len(space), torch.arange(_COSINES)
    order = torch.cartesian_prod(*[low] * d)[1:]
    out = (1 / order.square().sum(1)).view(-1, *[1] * d)
    for axis, n in enumerate(space):
        wave = torch.cos(math.pi * low[:, None] * (torch.arange(n) + 0.5) / n)
        out = out * wave[order[:, axis]].view(-1, *[n if k == axis else 1 for k in range(d)])
    return out


def gamma(x: Images, s: float, draws: Draws) -> Images:
    """Contrast: middle intensities brighter or darker, air and the brightest value kept."""
    power = torch.exp(0.4 * s * (2 * (draws.uniform() < 0.5).float() - 1))
    return 2 * torch.pow(_lit(x).clamp(0, 1), each(power, x)) - 1


def noise(x: Images, s: float, draws: Draws) -> Images:
    """White noise of standard deviation s / 10, in the units of x."""
    return x + s / 10 * draws.normal(*x.shape[1:])


def blur(x: Images, s: float, draws: Draws) -> Images:
    """A Gaussian of s voxels."""
    return geometry.smooth(x, s)


def resolution(x: Images, s: float, draws: Draws) -> Images:
    """Fewer voxels along every axis, and linear interpolation back."""
    space = tuple(x.shape[2:])
    coarse = functional.interpolate(x, size=[max(1, round(n / (1 + s))) for n in space], mode="area")
    mode = "bilinear" if len(space) == 2 else "trilinear"
    fine: Tensor = functional.interpolate(coarse, size=space, mode=mode, align_corners=False)
    return fine


def motion(x: Images, s: float, draws: Draws) -> Images:
    """Segments of k-space, along the first axis, of the object in one pose each; the middle one is at rest."""
    n, dims = x.shape[2], x.ndim - 2
    e, axes = draws.normal(_SEGMENTS, dims + dims * (dims - 1) // 2), list(range(2, x.ndim))
    place = torch.fft.fftshift(torch.arange(n, device=x.device)) * _SEGMENTS // n
    k_space = torch.fft.fftn(_lit(x), dim=axes)
    for segment in range(_SEGMENTS):
        if segment != _SEGMENTS // 2:
            moved = torch.fft.fftn(_posed(_lit(x), s * e[:, segment].to(x)), dim=axes)
            k_space = torch.where(each(place == segment, moved[0, 0]), moved, k_space)
    magnitude: Tensor = torch.fft.ifftn(k_space, dim=axes).abs()
    return 2 * magnitude - 1


def _posed(v: Images, e: Float[Tensor, "n k"]) -> Images:
    """Images turned and shifted about their middle by standard normals e: first the shifts, then the turns."""
    space, dims = tuple(v.shape[2:]), v.ndim - 2
    middle = (torch.tensor(space).to(v) - 1) / 2
    shift = e[:, :dims] * torch.tensor(space).to(v) / 50
    turn = torch.eye(dims).to(v).expand(len(v), dims, dims)
    for angle, (a, b) in zip(e[:, dims:].unbind(1), ((0, 1), (0, 2), (1, 2)), strict=False):
        turn = turn @ _turn(math.radians(2) * angle, a, b, dims)
    p = geometry.identity(space, v) - middle.view(1, -1, *[1] * dims)
    u = torch.einsum("nij,j...->ni...", turn, p[0]) - p + shift.view(-1, dims, *[1] * dims)
    return geometry.warp(v, u, padding="zeros")


def _turn(angle: Float[Tensor, " n"], a: int, b: int, dims: int) -> Float[Tensor, "n d d"]:
    """Rotations in the plane of axes a and b."""
    out = torch.eye(dims).to(angle).repeat(len(angle), 1, 1)
    out[:, a, a] = out[:, b, b] = angle.cos()
    out[:, a, b], out[:, b, a] = -angle.sin(), angle.sin()
    return out


def crop(cohort: Cohort, s: float, draws: Draws) -> Cohort:
    """Air outside a smaller field of view, and masks that end there; the grid stays, at least one voxel is left."""
    inside = torch.ones(cohort.space, dtype=torch.bool, device=cohort.x.device)
    for axis, n in enumerate(cohort.space):
        margin = min(round(s / 10 * n), (n - 1) // 2)
        inside = inside & _between(n, margin, axis, inside)
    return _everywhere(cohort, lambda x: torch.where(inside, x, -1.0), lambda mask: mask & inside)


def _between(n: int, margin: int, axis: int, like: Bool[Tensor, "*space"]) -> Bool[Tensor, "*space1"]:
    """Places of an axis at least a margin away from both its ends."""
    place = torch.arange(n, device=like.device)
    return ((place >= margin) & (place < n - margin)).view([-1 if k == axis else 1 for k in range(like.ndim)])


def flip(cohort: Cohort, s: float, draws: Draws) -> Cohort:
    """Left for right in the rows whose uniform is below s; the affine does not say so.

    Left to right runs the axis that the affine of the first row says, or else the last.
    """
    known = cohort.affine is not None and len(cohort)
    axis = 2 + int(cohort.affine[0, 0, : len(cohort.space)].abs().argmax()) if known else -1  # type: ignore[index]
    chosen = draws.uniform() < s

    def mirrored(v: Tensor) -> Tensor:
        return torch.where(each(chosen, v), v.flip(axis), v)

    return _everywhere(cohort, mirrored, mirrored)


def lesion(cohort: Cohort, s: float, draws: Draws) -> Cohort:
    """A disc, or a ball, that belongs to no class."""
    space = cohort.space
    allowed = (cohort.x > -0.9).any(1, keepdim=True) if cohort.mask is None else cohort.mask
    u = draws.uniform(2)
    distance = (geometry.identity(space, u) - _place(allowed, u[:, 0])).square().sum(1, keepdim=True).sqrt()
    ink = (s / 16 * min(space) + 0.5 - distance).clamp(0, 1) * allowed
    value = each(2 * (u[:, 1] < 0.5).to(cohort.x) - 1, cohort.x)
    return _everywhere(cohort, lambda x: torch.where(ink > 0, torch.lerp(x, value, ink.to(x)), x), lambda m: m)


def _place(allowed: Bool[Tensor, "n 1 *space"], u: Float[Tensor, " n"]) -> Float[Tensor, "n d *one"]:
    """The voxel at the part u of those allowed; the first voxel of all where none is."""
    rank = allowed.flatten(1).cumsum(1)
    index = (rank > (u * rank[:, -1]).floor().long()[:, None]).int().argmax(1)
    place = torch.stack(torch.unravel_index(index, allowed.shape[2:]), 1).to(u)
    return place.view(*place.shape, *[1] * (allowed.ndim - 2))


SHIFTS: Mapping[str, Callable[[Cohort, float, Draws], Cohort]] = {
    "bias": _images(bias),
    "gamma": _images(gamma),
    "noise": _images(noise),
    "blur": _images(blur),
    "resolution": _images(resolution),
    "motion": _images(motion),
    "crop": crop,
    "flip": flip,
    "lesion": lesion,
}
"""Every shift by its name."""

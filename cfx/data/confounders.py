"""Planted confounders of the simulated cohort: global brain shape, and objects burned into the image.

All sizes are in mm, so that the same object is drawn at any resolution, in 2D and 3D (where the objects lie in the
plane of the middle axial slices).
"""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core import geometry
from cfx.core.broadcast import each

# Relative displacement of one standard deviation: size, length, trapezoid, shear.
_MODE_SIZE = (0.03, 0.035, 0.05, 0.04)
_PLANTED_SIZE = 0.10  # of the planted shape: narrow in the middle and broad at the ends, or the reverse


def shape_velocity(
    modes: Float[Tensor, "n modes"], planted: Float[Tensor, " n"] | None, space: tuple[int, ...], spacing: float
) -> Float[Tensor, "n dims *space"]:
    """Velocity in pixels of smooth global shape modes, plus the planted shape.

    The modes (of the pull-back map): isotropic size, length against width, a trapezoid (front against back), shear.
    The planted shape is an outline harmonic of its own, not in the span of the modes.
    """
    p = geometry.identity(space, modes) - (torch.tensor(space).view(1, -1, *[1] * len(space)) - 1) / 2
    along, across = (p[:, 0:1], p[:, 1:2]) if len(space) == 2 else (-p[:, 1:2], p[:, 0:1])
    radius = 85.0 / spacing
    s = along / radius
    zero = torch.zeros_like(s)
    fields = [(along, across), (along, -0.8 * across), (zero, across * s), (zero, 0.6 * along)]
    v = torch.zeros(len(modes), len(space), *space)
    for k, (a, b) in enumerate(fields):
        v = v + _MODE_SIZE[k] * each(modes[:, k], v) * _stack(a, b, p, with_height=k == 0)
    if planted is not None:
        barrel = 1 - 3.5 * s.square().clamp(max=1)
        v = v + _PLANTED_SIZE * each(planted, v) * _stack(zero, across * barrel, p)
    return v


def _stack(along: Tensor, across: Tensor, p: Tensor, *, with_height: bool = False) -> Tensor:
    """A vector field from its antero-posterior and lateral parts, in the array order of 2D or 3D images."""
    if p.shape[1] == 2:
        return torch.cat([along, across], 1)
    return torch.cat([across, -along, p[:, 2:3] if with_height else torch.zeros_like(along)], 1)


def burn_in(image: Float[Tensor, "n 1 *space"], planted: Mapping[str, Tensor], spacing: float) -> Tensor:
    """Draw the planted objects on images in [0, 1]; amplitude 0 leaves an image bit for bit unchanged."""
    for kind, draw in (("tag", _tag), ("implant", _implant), ("ruler", _ruler)):
        if kind in planted:
            ink, value = draw(image, spacing)
            amount = each(planted[kind], image).clamp(0, 1) * ink
            image = torch.where(amount > 0, image * (1 - amount) + amount * value, image)
    return image


def _millimetres(image: Tensor, spacing: float) -> tuple[Tensor, Tensor, Tensor]:
    """In-plane coordinates from the top left corner in mm (down, right), and the height window of 3D."""
    p = (geometry.identity(tuple(image.shape[2:]), image) + 0.5) * spacing
    if p.shape[1] == 2:
        return p[:, 0:1], p[:, 1:2], torch.ones_like(p[:, 0:1])
    height = p[:, 2:3] - p[:, 2:3].mean()
    extent = image.shape[3] * spacing
    return extent - p[:, 1:2], p[:, 0:1], (height.abs() < 15).to(image)


def _box(down: Tensor, right: Tensor, top: float, left: float, tall: float, wide: float) -> Tensor:
    return ((down >= top) & (down < top + tall) & (right >= left) & (right < left + wide)).float()


def _tag(image: Tensor, spacing: float) -> tuple[Tensor, float]:
    """A bright letter L in the upper left corner, as technicians leave one."""
    down, right, window = _millimetres(image, spacing)
    letter = _box(down, right, 8.0, 8.0, 22.0, 6.5) + _box(down, right, 23.5, 8.0, 6.5, 18.0)
    return letter.clamp(max=1) * window, 0.95


def _implant(image: Tensor, spacing: float) -> tuple[Tensor, float]:
    """A bright round object over the right parietal cortex, like a valve or electrode cap."""
    down, right, window = _millimetres(image, spacing)
    distance = ((down - 128).square() + (right - 158).square()).sqrt()
    return torch.sigmoid((8.0 - distance) / 0.8) * (distance < 14) * window, 1.0


def _ruler(image: Tensor, spacing: float) -> tuple[Tensor, float]:
    """Ticks every 20 mm along the right edge, the fifth one longer."""
    down, right, window = _millimetres(image, spacing)
    edge = image.shape[2] * spacing
    ticks = torch.zeros_like(down)
    for k in range(1, 10):
        length = 16.0 if k == 5 else 9.0
        ticks = ticks + _box(down, right, 20.0 * k - 1.7, edge - 3.3 - length, 3.4, length)
    return ticks.clamp(max=1) * window, 0.9

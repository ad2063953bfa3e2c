"""Images that are no brains and no clothes: textures, faces, digits, another organ, noise, constants.

Pictures come from packages that cfx needs anyway (scikit-image, and scikit-learn by way of nilearn): no download. Two
sets that are resampled in different ways are told apart by their blur alone (Heng et al. 2024, "Out-of-distribution
detection with a single unconditional diffusion model", table 7: .85 becomes .94). So every set takes one way: squares
of twice the pixels of the grid, or of the picture where it has fewer, then `core.resize.resized`.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import uniform
from cfx.core.resize import resized

Squares = Float[Tensor, "n 1 side side"]
_STREAM = 910


def foreign(name: str, n: int, shape: tuple[int, ...], seed: int = 0) -> Cohort:
    """A set of images of this name, on the grid of others; names of the rows are `<name>-<number>`.

    Args:
        name: One of `FOREIGN`.
        n: Number of images.
        shape: Shape `(c, *space)` of one image; each channel is the same.
        seed: Seed of what is drawn.

    Raises:
        InputError: another name, or pictures for volumes.
    """
    if name not in FOREIGN:
        raise InputError(f"name: expected one of {sorted(FOREIGN)}, got {name!r}")
    u = uniform((4,), seed=seed, row=torch.arange(n), stream=_STREAM)
    x = FOREIGN[name](u, shape[1:])
    return Cohort(x=brought(x, shape), ids=tuple(f"{name}-{i}" for i in range(n)))


def brought(x: Float[Tensor, "n c *space"], shape: tuple[int, ...]) -> Float[Tensor, "n c2 *space2"]:
    """Images in [-1, 1] on the grid of others: cut square where those are, resized by one rule, channels alike.

    Args:
        x: Images.
        shape: Shape `(c, *space)` that they get.

    Raises:
        InputError: images of another number of axes.
    """
    if x.ndim != len(shape) + 1:
        raise InputError(f"shift: expected images of {len(shape) - 1} axes, got {tuple(x.shape[1:])}")
    if len(set(shape[1:])) == 1:
        side = min(x.shape[2:])
        for axis, length in enumerate(x.shape[2:], start=2):
            x = x.narrow(axis, (length - side) // 2, side)
    x = resized(x, shape[1:])
    return (x if x.shape[1] == shape[0] else x.mean(1, keepdim=True).expand(-1, *shape)).clamp(-1, 1).contiguous()


def _flat(space: tuple[int, ...]) -> int:
    """Pixels along an edge of the squares to draw.

    Raises:
        InputError: volumes.
    """
    if len(space) != 2:
        raise InputError(f"name: expected `noise` or `constant` for volumes, got pictures for {space}")
    return 2 * max(space)


@lru_cache(maxsize=16)
def _picture(name: str) -> Float[Tensor, "h w"]:
    """A picture of scikit-image in [0, 1], grey (the green channel of a coloured one)."""
    from skimage import data

    found: np.ndarray = getattr(data, name)()
    return torch.from_numpy(found[..., 1] if found.ndim == 3 else found).float() / 255


def textures(u: Float[Tensor, "n 4"], space: tuple[int, ...]) -> Squares:
    """Pieces of brick, grass and gravel."""
    side = _flat(space)
    every = torch.stack([_picture(name) for name in ("brick", "grass", "gravel")])
    side = min(side, every.shape[1])
    which = (3 * u[:, 0]).long()
    top, left = ((u[:, k] * (every.shape[1] - side + 1)).long() for k in (1, 2))
    rows, columns = (start[:, None] + torch.arange(side) for start in (top, left))
    return 2 * every[which[:, None, None], rows[:, :, None], columns[:, None, :]][:, None] - 1


def retina(u: Float[Tensor, "n 4"], space: tuple[int, ...]) -> Squares:
    """An eye from inside, round on black as a brain is, turned and zoomed."""
    side = _flat(space)
    angle, zoom = 2 * torch.pi * u[:, 0], 0.95 + 0.25 * u[:, 1]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(-1, 2, 2)
    theta = torch.cat([zoom[:, None, None] * turn, 0.1 * (u[:, 2:, None] - 0.5)], 2)
    grid = functional.affine_grid(theta, [len(u), 1, side, side], align_corners=False)
    eye = resized(_picture("retina")[None, None], side).expand(len(u), 1, side, side)
    return 2 * functional.grid_sample(eye, grid, align_corners=False) - 1


def faces(u: Float[Tensor, "n 4"], space: tuple[int, ...]) -> Squares:
    """Faces, 25 x 25 pixels (the hundred of scikit-image's part of LFW)."""
    from skimage import data

    _flat(space)
    found = torch.from_numpy(data.lfw_subset()[:100]).float()
    return 2 * found[(100 * u[:, 0]).long()][:, None] - 1


def digits(u: Float[Tensor, "n 4"], space: tuple[int, ...]) -> Squares:
    """Written digits, 8 x 8 pixels (scikit-learn's)."""
    from sklearn.datasets import load_digits

    _flat(space)
    found = torch.from_numpy(load_digits().images).float() / 8 - 1
    return found[(len(found) * u[:, 0]).long()][:, None]


def noise(u: Float[Tensor, "n 4"], space: tuple[int, ...]) -> Float[Tensor, "n 1 *space2"]:
    """Independent uniform pixels."""
    rows = (2**30 * u[:, 0]).long()
    return 2 * uniform((1, *(2 * k for k in space)), seed=1, row=rows, stream=_STREAM) - 1


def constant(u: Float[Tensor, "n 4"], space: tuple[int, ...]) -> Float[Tensor, "n 1 *space"]:
    """One value everywhere, another one in every image."""
    return (2 * u[:, 0] - 1).view(-1, *[1] * (1 + len(space))).expand(-1, 1, *space)


FOREIGN: Mapping[str, Callable[[Float[Tensor, "n 4"], tuple[int, ...]], Tensor]] = {
    "textures": textures,
    "retina": retina,
    "faces": faces,
    "digits": digits,
    "noise": noise,
    "constant": constant,
}
"""Every set by its name."""


def matched(x: Float[Tensor, "n c *space"], like: Float[Tensor, "m c *space2"]) -> Float[Tensor, "n c *space"]:
    """Images with the intensities of others: image i gets the histogram of image i modulo m."""
    from skimage.exposure import match_histograms

    pairs = ((image.numpy(), like[i % len(like)].numpy()) for i, image in enumerate(x))
    return torch.stack([torch.from_numpy(match_histograms(a, b)).to(x) for a, b in pairs]).clamp(-1, 1)


def turned(cohort: Cohort) -> Cohort:
    """The same images a quarter turn round, in the plane of the last two axes; nothing is interpolated."""
    return cohort.replace(x=cohort.x.rot90(1, (-2, -1)), mask=None, lesion=None, x_true=None, readings=None)


def inverted(cohort: Cohort) -> Cohort:
    """The same images with bright and dark swapped."""
    return cohort.replace(x=-cohort.x, x_true=None)

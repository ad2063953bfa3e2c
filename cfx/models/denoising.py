"""Does a generator know these images? What it cannot denoise it does not know, whatever it draws.

Images x are noised to x_t = alpha x + sigma eps at a few noise levels sigma, and the error of the one-step estimate is
compared with what needs no network. The best linear estimate from x_t of one value of mean m and variance v is

    m + alpha v / (alpha^2 v + sigma^2) (x_t - alpha m)         of squared error  v sigma^2 / (alpha^2 v + sigma^2)

once with m and v of all values together (a constant image is all it knows), once, where there are enough other images
of the kind, with those of each pixel (their mean image is). A network that has learnt such images beats both at every
level, as a rule by a factor of two to ten. One that is untrained, trained for a moment, that mirrors its input, or
knows another organ, fails somewhere: little noise asks for details, much noise for the anatomy.

A checkpoint of cfx also says what the errors were on held-out images of its own (`ERROR` among its figures). They are
compared at the levels that a grainier or a blurred image hardly touches. A latent generator is asked about codes, and
its autoencoder, which has to give the image back, is asked too.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.broadcast import rms
from cfx.core.denoiser import Generative, Latent
from cfx.core.random import normal
from cfx.core.schedule import Schedule

LEVELS = (0.1, 0.3, 0.6, 0.9)
"""Noise levels sigma at which a generator is asked."""
ERROR = "denoising_error"
"""Name of the errors among a generator's figures, mean squares without a label, each with its level: `key`."""
_STREAM = (1 << 22) + 1
_ENOUGH = 16  # images from which the mean and variance of each pixel are taken
_LENIENT = 1.2  # times the error with those, which are themselves estimates
_MOSTLY = 0.75  # share of the images that have to be denoised worse than trivially
_COARSE, _BEYOND = 0.5, 5.0  # level from which the card is compared, and times its error that are too much
_VOXELS = 1 << 20  # that are denoised together


def key(level: float) -> str:
    """Name of the error at a level among a generator's figures."""
    return f"{ERROR}_{level:g}"


@dataclass(frozen=True)
class Denoising:
    """How a generator denoises some images, at each of the `LEVELS` in order.

    Attributes:
        error: Mean squared error.
        constant: That of the best linear estimate around a constant image.
        pixel: The same around the mean image; infinite where that is not known.
        worse: Share of the images that the generator denoises worse than the better of these.
        values: Number of values that each mean square is of, which decides how sure it is.
        restored: For a latent generator the error of its autoencoder over the variance of the images; else 0.
    """

    error: tuple[float, ...]
    constant: tuple[float, ...]
    pixel: tuple[float, ...]
    worse: tuple[float, ...]
    values: int
    restored: float = 0.0

    @property
    def ratios(self) -> tuple[float, ...]:
        """Error over that of the better linear estimate: below 1 for a generator that knows such images."""
        return tuple(e / min(c, p) for e, c, p in zip(self.error, self.constant, self.pixel, strict=True))

    def beyond(self, card: Mapping[str, float]) -> float:
        """The largest error over that on the held-out images of its card; 0 where the card does not say."""
        own = [(e, card.get(key(level))) for level, e in zip(LEVELS, self.error, strict=True) if level > _COARSE]
        return max((e / c for e, c in own if c), default=0.0)

    def doubt(self, card: Mapping[str, float]) -> str | None:
        """What to say of a generator that does not know these images; None if nothing.

        Args:
            card: The figures of its checkpoint; empty where it has none.
        """
        if not self.restored <= 1:
            return f"{_UNKNOWN}: its autoencoder returns something else, error {self.restored:.2g} of their variance"
        most = 1 + 3 * math.sqrt(2 / self.values)  # three standard errors of a mean square
        rows = zip(self.ratios, LEVELS, self.error, self.constant, self.pixel, self.worse, strict=True)
        bad = [row[:3] for row in rows if not row[2] <= most * min(row[3], _LENIENT * row[4]) and row[5] >= _MOSTLY]
        if bad:
            ratio, level, error = max(bad)
            return (
                f"{_UNKNOWN}: at noise level {level:g} its squared error is {error:.2g}, {ratio:.3g} times that of the "
                "best linear estimate of single pixels; was it trained long enough, and on such images?"
            )
        if (beyond := self.beyond(card)) > _BEYOND:
            return f"{_UNKNOWN}: it denoises them {beyond:.2g} times worse than the held-out images of its card"
        return None


_UNKNOWN = "does not know these images"


def level_time(schedule: Schedule, level: float) -> int:
    """The first time at which the noise has this level; the last if none has."""
    sigma = schedule.sigma(torch.arange(1, schedule.T + 1), torch.zeros(schedule.T, 1)).flatten()
    return min(int((sigma < level).sum()) + 1, schedule.T)


@torch.no_grad()
def denoising_errors(
    generator: Generative, z: Float[Tensor, "n c *space"], label: Int[Tensor, " n"] | None = None, *, level: float
) -> Float[Tensor, " n"]:
    """Mean squared error of the estimate of each image, or code, at one noise level; the noise is always the same.

    Args:
        generator: Asked where `z` is.
        z: Images; for a latent generator, codes.
        label: Class of each; None for none.
        level: Noise level sigma.
    """
    t, found = level_time(generator.schedule, level), []
    for at in torch.arange(len(z)).split(max(1, _VOXELS // z[0].numel())):
        own = None if label is None else label[at].to(z.device)
        q = generator(_noised(generator, z[at], at, t), t, own)
        found.append(rms(q.mean - z[at]).square())
    return torch.cat(found)


def _noised(generator: Generative, z: Tensor, row: Tensor, t: int) -> Tensor:
    eps = normal(tuple(z.shape[1:]), seed=0, row=row, stream=_STREAM).to(z)
    return generator.schedule.noised(z, t, eps)


def trivial_errors(
    generator: Generative,
    z: Float[Tensor, "n c *space"],
    m: Float[Tensor, "#c *_"],
    v: Float[Tensor, "#c *_"],
    *,
    level: float,
) -> Float[Tensor, " n"]:
    """`denoising_errors` of the best linear estimate of single values, from the same noise.

    Args:
        generator: Whose schedule it is.
        z: Images or codes.
        m: Mean of every value, or of all of a channel.
        v: Variance, likewise.
        level: Noise level sigma.
    """
    t = level_time(generator.schedule, level)
    alpha, sigma = generator.schedule.alpha(t, z), generator.schedule.sigma(t, z)
    x_t = _noised(generator, z, torch.arange(len(z)), t)
    return rms(m + alpha * v / (alpha**2 * v + sigma**2) * (x_t - alpha * m) - z).square()


def denoising(
    generator: Generative,
    x: Float[Tensor, "n c *space"],
    others: Float[Tensor, "m c *space"] | None = None,
    device: torch.device | None = None,
) -> Denoising:
    """How a generator, at rest, denoises some images: one evaluation an image and level.

    Args:
        generator: The generator.
        x: A few images.
        others: Others that should be like them, for the mean image; None for none.
        device: Where it works; by default where the images are.
    """
    place = device or x.device
    z = codes(generator, x.to(place))
    own = torch.stack([denoising_errors(generator, z, level=level) for level in LEVELS])
    axes = [0, *range(2, z.ndim)]
    constant = _trivial(generator, z, z.mean(axes, keepdim=True)[0], z.var(axes, keepdim=True)[0])
    pixel = torch.full_like(constant, torch.inf)
    if others is not None and len(others) >= _ENOUGH:
        beside = codes(generator, others.to(place))
        pixel = _trivial(generator, z, beside.mean(0), beside.var(0))
    better = torch.where((constant.mean(1) <= pixel.mean(1))[:, None], constant, pixel)
    means = [tuple(v.double().mean(1).tolist()) for v in (own, constant, pixel, ~(own <= better))]
    return Denoising(means[0], means[1], means[2], means[3], z.numel(), _restored(generator, x.to(place), z))


def _trivial(generator: Generative, z: Tensor, m: Tensor, v: Tensor) -> Float[Tensor, "levels n"]:
    """`trivial_errors` at every level."""
    return torch.stack([trivial_errors(generator, z, m, v, level=level) for level in LEVELS])


@torch.no_grad()
def codes(generator: Generative, x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n z *coarse"]:
    """What a generator noises: the images, or for a latent one their codes."""
    if not isinstance(generator, Latent):
        return x
    return torch.cat([generator.encode(v) for v in x.split(max(1, _VOXELS // x[0].numel()))])


@torch.no_grad()
def _restored(generator: Generative, x: Tensor, z: Tensor) -> float:
    """Squared error of a latent generator's autoencoder over the variance of the images; 0 without one."""
    if not isinstance(generator, Latent):
        return 0.0
    back = torch.cat([generator.decode(v) for v in z.split(max(1, _VOXELS // x[0].numel()))])
    return float((back - x).square().mean() / x.var().clamp_min(1e-12))

"""Errors of one-step denoising at a few noise levels, in one batch, each judged against its place and its complexity.

An image x becomes x_k = alpha_k x + sigma_k eps_k at K levels and is denoised once: q_k = E[x | x_k]. At some levels
eps_k is one draw, the same for every image: what a generator knows it restores. At the others, `clean`, it is 0: the
image alone is taken for a noised one, and what is taken away from it the generator does not expect there; noise would
hide what is small. But edges are harder than plains, and some places harder than others, so that the errors of a busy
image that it knows exceed those of a plain one that it does not. They are compared with what is usual at their place
and for the picture there:

    l_k(p) = log of (S (q_k - x))^2, smoothed once more by up to a pixel
    r(p)   = (log S |grad q_k|^2, S q_k, (S q_k)^2) for all k
    z(p)   = mean over k and all S of (l_k - m_k - (r - m_r)' b_k) / s_k

with S a Gaussian of one of the `widths` (the grain of errors averages out, what is of one sign in one place does not,
unless it is smaller than S), means m and deviations s at every pixel, and b the least-squares slope over all pixels, of
the images it is fitted to (whose own z leave themselves out of m and s). z is the map. The vector v of an image has
seven entries: the means of the largest 0.1, 1, 10 and 100 % of z, and log mean |x(p) - x(p + j)|^2 for j = 1, 2 and 4
pixels, its complexity, for which no network is asked. With v standardised, d^2 its squared Mahalanobis distance
(shrunk) and u the mean of its first four entries, the score is d^2 / 7 + max(u, 0)^2: two-sided, as a shift can make
errors smaller (blur does), and one-sided, as most make them larger, which a two-sided distance alone is slow to see.

Cost: K generator evaluations an image, in parallel.

References: Mahmood, Oliva, Styner (2021), "Multiscale score matching for out-of-distribution detection", for several
levels at once and images without noise; Serra et al. (2020), "Input complexity and out-of-distribution detection with
likelihood-based generative models", for what complexity explains. The correction of each pixel is ours.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core import geometry
from cfx.core.errors import InputError
from cfx.core.resize import resized
from cfx.ood.detector import Ask, Learn, Scored
from cfx.ood.standard import Density
from cfx.ood.walks import draws, every, generator_of, in_groups, noised, signal

SHARES = (0.001, 0.01, 0.1, 1.0)
_NOISE = 0xD0  # stream
_DISTANCES = (1, 2, 4)  # pixels between which differences are taken
_FLOOR = 0.3  # of the mean deviation of all pixels, below which none is taken
_EDGE = 1e-4  # |grad|^2 that counts as none, in images of [-1, 1]
_AGAIN = 1.0  # pixels, at most, by which squared errors are smoothed, so that a change of sign is no small error
_EXACT = 1e-7  # squared error that counts as none
_RIDGE = 1e-3  # of the mean square of the regressors


@dataclass(frozen=True)
class Denoising:
    """Settings of the detector.

    Attributes:
        levels: Noise levels sigma in (0, 1), ascending, at which images are noised.
        clean: The same, at which they are not.
        widths: Deviations, in pixels, of the Gaussians S.

    Raises:
        InputError: no level at all, levels outside (0, 1) or not ascending, or no width, or one that is not positive.
    """

    name: ClassVar[str] = "denoising"
    needs: ClassVar[tuple[str, ...]] = ("generator",)
    levels: tuple[float, ...] = (0.2, 0.4, 0.75)
    clean: tuple[float, ...] = (0.1, 0.2)
    widths: tuple[float, ...] = (0.7, 1.5)

    def __post_init__(self) -> None:
        """Check the settings."""
        for name, levels in (("levels", self.levels), ("clean", self.clean)):
            if any(not a < b for a, b in pairwise((0.0, *levels, 1.0))):
                raise InputError(f"{name}: expected noise levels in (0, 1), ascending, got {levels}")
        if not self.levels and not self.clean:
            raise InputError("levels, clean: expected at least one noise level, got none")
        if not self.widths or not all(width > 0 for width in self.widths):
            raise InputError(f"widths: expected positive numbers of pixels, got {self.widths}")

    def fit(self, learn: Learn) -> "DenoisingScorer":
        """What is usual at each place, and the density of what is made of it.

        Raises:
            InputError: errors that are not finite or the same for every image, or images that are equally complex.
        """
        maps = learn.collect(lambda ask: self.maps(ask, learn.seed))
        usual = tuple(Usual.of(of_width) for of_width in maps.unbind(1))
        parts = maps.split(learn.batch_size)
        z = torch.cat([_mean([u.within(m) for u, m in zip(usual, p.unbind(1), strict=True)]) for p in parts])
        v = torch.cat([tails(z), complexity(learn.cohort.x)], 1)
        return DenoisingScorer(self, learn.seed, usual, Density.of(v, "errors and complexity"))

    def maps(self, ask: Ask, seed: int) -> Float[Tensor, "b width map k *grid"]:
        """Of every image, on the grid the generator works on: l, and the three parts of r, at every width and level."""
        x, schedule = signal(ask), generator_of(ask).schedule
        times = [schedule.time_of(level) for level in (*self.levels, *self.clean)]

        def at(which: list[int]) -> Float[Tensor, "k b width map *grid"]:
            own = [times[i] for i in which]
            eps = draws(x, which, seed, _NOISE)
            eps[[i >= len(self.levels) for i in which]] = 0
            x_t = noised(schedule, x[None], own, eps).flatten(0, 1)
            t = torch.tensor(own, device=x.device).repeat_interleave(len(x))
            q = ask.posterior(x_t, t, every(ask, len(which))).mean
            again = x.repeat(len(which), *[1] * (x.ndim - 1))
            found = torch.stack([maps_of(q, again, width) for width in self.widths], 1)
            return found.view(len(which), len(x), *found.shape[1:])

        return in_groups(ask, len(times), at).movedim(0, 3)


def maps_of(q: Float[Tensor, "m c *grid"], x: Float[Tensor, "m c *grid"], width: float) -> Float[Tensor, "m map *grid"]:
    """The maps l and r of one-step estimates q of images x at one width."""
    error = geometry.smooth(geometry.smooth(q - x, width).square().mean(1, keepdim=True), min(width, _AGAIN))
    edges = torch.stack([g.square() for g in torch.gradient(q, dim=list(range(2, q.ndim)))]).sum(0)
    picture = torch.cat([edges.mean(1, keepdim=True), q.mean(1, keepdim=True)], 1)
    edges, value = geometry.smooth(picture, width).split(1, dim=1)
    return torch.cat([error.clamp_min(_EXACT).log(), (edges + _EDGE).log(), value, value.square()], 1)


def _mean(maps: list[Tensor]) -> Float[Tensor, "n 1 *grid"]:
    """Mean of maps."""
    return torch.stack(maps).mean(0)


@dataclass(frozen=True)
class DenoisingOnce(Denoising):
    """The same with one level, noised, and one evaluation."""

    name: ClassVar[str] = "denoising-once"
    levels: tuple[float, ...] = (0.2,)
    clean: tuple[float, ...] = ()


@dataclass(frozen=True)
class Usual:
    """What errors are usual at each place, given the picture there.

    Attributes:
        mean: Mean of all maps of `Denoising.maps` of one width.
        slope: Slopes b, of every regressor (rows) for every level (columns).
        square: Sum of squares of the corrected errors about their mean.
        count: Number of images.
    """

    mean: Float[Tensor, "map k *grid"]
    slope: Float[Tensor, "r k"]
    square: Float[Tensor, "k *grid"]
    count: int

    @classmethod
    def of(cls, maps: Float[Tensor, "n map k *grid"]) -> "Usual":
        """Of the maps of images."""
        mean, k = maps.mean(0), maps.shape[2]
        y, r = _lines((maps - mean)[:, :1]), _lines((maps - mean)[:, 1:])
        gram = (r.T @ r).double() / len(r)
        ridge = _RIDGE * gram.diagonal().mean().clamp_min(1e-12) * torch.eye(len(gram)).to(gram)
        slope = torch.linalg.solve(gram + ridge, (r.T @ y).double() / len(r)).to(y)
        rest = (y - r @ slope).view(len(maps), -1, k).square().sum(0).T
        return cls(mean, slope, rest.reshape(k, *maps.shape[3:]), len(maps))

    @property
    def deviation(self) -> Float[Tensor, "k *grid"]:
        """Deviation of the corrected errors at every pixel."""
        return (self.square / max(self.count - 1, 1)).sqrt()

    @property
    def least(self) -> float:
        """The least deviation that is believed."""
        return max(_FLOOR * float(self.deviation.mean()), 1e-6)

    def corrected(self, maps: Float[Tensor, "n map k *grid"]) -> Float[Tensor, "n k *grid"]:
        """The errors less what is usual at their place for the picture there."""
        centred = maps - self.mean
        return centred[:, 0] - torch.einsum("nr...,rk->nk...", centred[:, 1:].flatten(1, 2), self.slope)

    def of_others(self, maps: Float[Tensor, "n map k *grid"]) -> Float[Tensor, "n 1 *grid"]:
        """Maps z of images that it was not made of."""
        return (self.corrected(maps) / self.deviation.clamp_min(self.least)).mean(1, keepdim=True)

    def within(self, maps: Float[Tensor, "n map k *grid"]) -> Float[Tensor, "n 1 *grid"]:
        """Maps z of images that it was made of, each left out of the mean and deviation it is compared with."""
        d, n = self.corrected(maps), self.count
        others = (self.square - d.square() * n / (n - 1)).clamp_min(0) / max(n - 2, 1)
        return (d * n / (n - 1) / others.sqrt().clamp_min(self.least)).mean(1, keepdim=True)


def _lines(maps: Float[Tensor, "n map k *grid"]) -> Float[Tensor, "pixel column"]:
    """One line a pixel of an image, one column a map and level."""
    return maps.flatten(1, 2).flatten(2).transpose(1, 2).flatten(0, 1)


def tails(z: Float[Tensor, "n 1 *grid"]) -> Float[Tensor, "n share"]:
    """Means of the largest `SHARES` of each map."""
    falling = z.flatten(1).sort(dim=1, descending=True).values
    counts = [max(1, round(share * falling.shape[1])) for share in SHARES]
    return torch.stack([falling[:, :m].mean(1) for m in counts], 1)


def complexity(x: Float[Tensor, "n c *space"]) -> Float[Tensor, "n distance"]:
    """Logarithms of the mean squared difference of pixels at each of a few distances along the axes."""
    found = []
    for j in _DISTANCES:
        axes = [axis for axis in range(2, x.ndim) if x.shape[axis] > j]
        square = [(x.narrow(a, j, x.shape[a] - j) - x.narrow(a, 0, x.shape[a] - j)).square().flatten(1) for a in axes]
        total = torch.stack([s.mean(1) for s in square]).mean(0) if square else x.new_zeros(len(x))
        found.append(total.clamp_min(1e-8).log())
    return torch.stack(found, 1)


@dataclass(frozen=True)
class DenoisingScorer:
    """The detector, fitted.

    Attributes:
        settings: The detector.
        seed: Seed of its noise.
        usual: What is usual at each place, for each width.
        density: Density of the vectors.
    """

    settings: Denoising
    seed: int
    usual: tuple[Usual, ...]
    density: Density

    def __call__(self, ask: Ask) -> Scored:
        """Score a batch: K generator evaluations an image."""
        maps = self.settings.maps(ask, self.seed).cpu()
        z = _mean([usual.of_others(m) for usual, m in zip(self.usual, maps.unbind(1), strict=True)])
        v = torch.cat([tails(z), complexity(ask.x.cpu())], 1)
        two_sided = self.density.distance2(v) / v.shape[1]
        one_sided = self.density.standard(v)[:, : len(SHARES)].mean(1)
        score = two_sided + one_sided.clamp_min(0).square()
        return Scored(score, resized(z, ask.x.shape[2:]), {"two_sided": two_sided, "one_sided": one_sided})

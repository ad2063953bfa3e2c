"""Inference on effects that share seeds, images and donors.

A reliance test measures an effect e[k, i] for every trained network k and test image i, some of them with a donor that
several images share. Such values are not independent: all those of one network move together, all those of one image
too. Treating them as K N independent numbers, or the networks as fixed, rejects a true null far too often (type I
error up to 0.7 in simulation; `docs/bench/reliance.md`). Here networks, images and donors are all random samples:

    V = V_seed + V_rows(mean over networks) - V_rows(interaction) / K,    V_rows = V_image + V_donor - V_image,donor

with V_seed = s_seed^2 / K from the networks' means, V_g the variance of a mean that clusters g explain (by leaving out
one cluster after another), and the interaction what is left of e without the means of its network and its image: both
first terms count it. Without donors this is s_seed^2 / K + s_image^2 / N - s_e^2 / (K N). Where a subject has several
images, subjects stand in the place of images.

References: Cameron, Gelbach and Miller (2011), "Robust inference with multiway clustering"; Satterthwaite (1946);
Schuirmann (1987) for the two one-sided tests of equivalence.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.groups import numbered
from cfx.core.random import uniform

MOST_EXACT = 12
"""Up to this many values all their sign flips are counted; above, they are drawn."""


@dataclass(frozen=True)
class Effect:
    """A mean over crossed random samples.

    Attributes:
        value: The mean.
        error: Its standard error.
        df: Satterthwaite degrees of freedom.
        alpha: Level of the interval and the tests.
    """

    value: float
    error: float
    df: float
    alpha: float = 0.05

    @property
    def low(self) -> float:
        """Lower end of the 1 - alpha interval."""
        return self.value - self._t(1 - self.alpha / 2) * self.error

    @property
    def high(self) -> float:
        """Upper end of the 1 - alpha interval."""
        return self.value + self._t(1 - self.alpha / 2) * self.error

    @property
    def p_value(self) -> float:
        """Two-sided p of the hypothesis that the mean is 0; 1 where every value is exactly 0."""
        if self.error == 0:
            return float(self.value == 0)
        return float(2 * stats.t.sf(abs(self.value) / self.error, self.df))

    def p_equivalence(self, margin: float) -> float:
        """The larger p of the two one-sided tests; below alpha, the mean lies within (-margin, margin).

        Raises:
            InputError: a margin that is not positive.
        """
        if not margin > 0:
            raise InputError(f"margin: expected a number > 0, got {margin}")
        if self.error == 0:
            return float(abs(self.value) >= margin)
        return float(stats.t.sf((margin - abs(self.value)) / self.error, self.df))

    def _t(self, level: float) -> float:
        return float(stats.t.ppf(level, self.df))


def crossed_effect(
    e: Float[Tensor, "k n"],
    *,
    donors: Sequence[tuple[Float[Tensor, "k n"], Int[Tensor, " n"]]] = (),
    groups: Int[Tensor, " _"] | None = None,
    alpha: float = 0.05,
) -> Effect:
    """Mean of e over networks and images, both random, and over donors where some are shared.

    With one network the effect is that network's, and only images and donors are random.

    Args:
        e: Effect of every network (row) on every image (column).
        donors: Parts that add up to e (a difference of two arms has two), each with the donor it used: a donor's
            values in all parts move together. None where there are no donors.
        groups: Subject of every image, whose values move together; None where every image is of another.
        alpha: Level of the interval.

    Raises:
        InputError: no network or fewer than two subjects, other shapes, parts that do not add up, or non-finite values.
    """
    subject = torch.arange(e.shape[-1]) if groups is None else numbered(groups, e.shape[-1])
    _check(e, donors, subject)
    k, n = len(e), int(subject.max()) + 1
    parts = torch.stack([part for part, _ in donors] or [e]).double()  # (part, network, image)
    donor = torch.stack([d for _, d in donors]) if donors else None
    inner = parts - parts.mean(1, keepdim=True) - parts.mean(2, keepdim=True) + parts.mean((1, 2), keepdim=True)
    each, spreads = _rows_variance(torch.cat([parts.mean(1)[None], inner.movedim(1, 0)]), donor, subject)
    v_rows, spread = float(each[0]), float(spreads[0])
    value = float(e.double().mean())
    if k == 1:
        return Effect(value, v_rows**0.5, v_rows**2 / spread if spread > 0 else n - 1.0, alpha)
    v_seed = float(e.double().mean(1).var()) / k
    shared = float(each[1:].sum()) / (k * (k - 1))
    variance = max(v_seed + v_rows - shared, v_seed, v_rows)  # neither alone can exceed the truth
    spread += v_seed**2 / (k - 1)
    df = variance**2 / spread if spread > 0 else float(min(k, n) - 1)
    return Effect(value, variance**0.5, df, alpha)


def _rows_variance(
    parts: Float[Tensor, "b p n"], donor: Int[Tensor, "p n"] | None, subject: Int[Tensor, " n"]
) -> tuple[Float[Tensor, " b"], Float[Tensor, " b"]]:
    """Variance of the mean over images, some of which share subjects or donors, and the sum of V_g^2 / (G - 1)."""
    psi = (parts - parts.mean(2, keepdim=True)) / parts.shape[2]
    image = subject.expand(psi.shape[1:])
    v_image, n = _clustered(psi, image)
    if donor is None:
        return v_image, v_image**2 / (n - 1)
    v_donor, d = _clustered(psi, donor)
    v_both, _ = _clustered(psi, donor * parts.shape[2] + image)
    variance = torch.stack([v_image + v_donor - v_both, v_image, v_donor]).amax(0)
    return variance, v_image**2 / (n - 1) + v_donor**2 / max(d - 1, 1)


def _check(e: Tensor, donors: Sequence[tuple[Tensor, Tensor]], subject: Tensor) -> None:
    if e.ndim != 2 or not len(e) or e.shape[1] < 2 or not bool((subject != subject[0]).any()):
        raise InputError(f"e: expected (networks, images) of at least two subjects, got shape {tuple(e.shape)}")
    if not bool(torch.isfinite(e).all()):
        raise InputError("e: expected finite effects, got NaN or infinite values")
    for part, donor in donors:
        if part.shape != e.shape or donor.shape != e.shape[1:]:
            raise InputError(
                f"donors: expected parts {tuple(e.shape)} with one donor an image, "
                f"got {tuple(part.shape)} and {tuple(donor.shape)}"
            )
    if donors:
        total = torch.stack([part.double() for part, _ in donors]).sum(0)
        if not torch.allclose(total, e.double(), rtol=1e-4, atol=1e-4):
            raise InputError(f"donors: expected parts that add up to e, off by {float((total - e).abs().max()):.3g}")


def _clustered(psi: Float[Tensor, "b p n"], way: Int[Tensor, "p n"]) -> tuple[Float[Tensor, " b"], int]:
    """Jackknife variance of the sum over parts when clusters are left out in turn, and the number of clusters.

    With clusters of equal size this is G / (G - 1) times the sum of their squared sums.
    """
    _, place = way.flatten().unique(return_inverse=True)
    groups, (parts, n) = int(place.max()) + 1, way.shape
    key = (place.view(parts, n) + groups * torch.arange(parts)[:, None]).flatten()  # a cluster within one part
    share = torch.bincount(key, minlength=groups * parts).double() / n
    left = (1 - share[key]).clamp_min(1 / n)
    sums = torch.zeros(len(psi), groups, dtype=psi.dtype).index_add_(1, place, psi.flatten(1) / left)
    return sums.square().sum(1) * (groups - 1) / groups, groups


def sign_flip(values: Float[Tensor, " n"], *, draws: int = 9999, seed: int = 0) -> float:
    """Two-sided p that values are symmetric about 0, by flipping their signs; (1 + b) / (1 + m), exact for few values.

    Args:
        values: Independent values, one an image or one a network.
        draws: Random flips where there are more than `MOST_EXACT` values.
        seed: Seed of the flips.

    Raises:
        InputError: no values.
    """
    n = len(values)
    if not n:
        raise InputError("values: expected at least one value, got none")
    values = values.double()
    if n <= MOST_EXACT:
        bits = torch.arange(2**n)[:, None] >> torch.arange(n) & 1
    else:
        bits = (uniform((n,), seed=seed, row=torch.arange(draws), stream=2) < 0.5).long()
    means = ((2 * bits - 1).double() @ values).abs()
    hits = int((means >= values.sum().abs() * (1 - 1e-12)).sum())
    return hits / 2**n if n <= MOST_EXACT else (1 + hits) / (1 + draws)

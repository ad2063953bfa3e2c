"""CCDM: a categorical diffusion model of masks.

A voxel's class is drawn anew, not blurred. With K classes, abar_t = alpha_t^2 of the schedule, s = t - 1 and
a_t = abar_t / abar_s,

    q(x_t | y) = abar_t [x_t = y] + (1 - abar_t) / K,
    q(x_s | x_t, y) = (a_t [x_s = x_t] + (1 - a_t) / K) (abar_s [x_s = y] + (1 - abar_s) / K) / q(x_t | y).

The network says p(y | x_t, image) of every voxel; a step follows p(x_s | x_t) = sum_y q(x_s | x_t, y) p(y | x_t), and

    loss = E_t KL(q(x_s | x_t, y) | p(x_s | x_t)), mean over voxels, t uniform in 1 .. T,

which at t = 1 is the cross-entropy. The last step takes the likeliest class.

References: Zbinden, Doorenbos, Pissas, Huber, Sznitman, Marquez-Neila (2023), "Stochastic segmentation with conditional
categorical diffusion models", arXiv 2303.08888; Hoogeboom, Nielsen, Jaini, Forre, Welling (2021), arXiv 2102.05379, and
Austin et al. (2021), arXiv 2107.03006, for the process.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cfx.core.random import uniform
from cfx.core.schedule import Schedule
from cfx.models.samplers.conditioned import NOISE, PATCH_UNET, TIME, Trunk, one_hot, state_channels, state_of
from cfx.models.samplers.sampler import Code, Draw, MaskSampler, one_reader

COSINE: Mapping[str, Any] = MappingProxyType({"num_train_timesteps": 250, "beta_schedule": "squaredcos_cap_v2"})
"""The published schedule."""

_LEAST = 1e-12  # probability below which a logarithm has no gradient


class Categorical(MaskSampler):
    """See the page."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        classes: int = 2,
        network: Mapping[str, Any] = PATCH_UNET,
        schedule: Mapping[str, Any] = COSINE,
    ) -> None:
        """Build the network.

        Args:
            spatial_dims: 2 or 3.
            in_channels: Channels of the image.
            classes: Labels a voxel may have, background included.
            network: Registry name of a denoiser (`name`) and its own keywords.
            schedule: A diffusers scheduler configuration; a draw takes as many steps as it has.

        Raises:
            InputError: classes, network or schedule are none.
        """
        super().__init__(classes)
        self.schedule = Schedule.from_diffusers(schedule)
        self.nfe = self.schedule.T
        self.trunk = Trunk(spatial_dims, in_channels + state_channels(classes), classes, network)
        self.multiple = self.trunk.multiple

    def forward(
        self, x: Float[Tensor, "b c *space"], readings: UInt8[Tensor, "b r *space"], draw: Draw
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor]]:
        """The divergence at a random time, of the mask of one reader; nats a voxel."""
        y = one_hot(one_reader(readings, draw), self.classes)
        u = uniform((), seed=draw.seed, row=draw.slot, stream=TIME)
        t = 1 + (u * self.schedule.T).long()
        kept = self._kept(t, y)
        x_t = self._drawn(blurred(y, kept), draw.seed, draw.slot, NOISE)
        before = self._kept(t - 1, y)
        q, p = (posterior(some, one_hot(x_t, self.classes), before, kept) for some in (y, self._guess(x, x_t, t)))
        kl = torch.special.xlogy(q, q) - q * p.clamp_min(_LEAST).log()
        return kl.sum(1).flatten(1).mean(1), {}

    def encode(self, x: Float[Tensor, "b c *space"]) -> Code:
        """The image itself: the network sees it anew at every step."""
        return (x,)

    def draw(self, code: Code, *, seed: int, row: Int[Tensor, " b"]) -> UInt8[Tensor, "b *space"]:
        """T steps from evenly drawn classes; the last one is certain."""
        (x,) = code
        T = self.schedule.T
        x_t = self._drawn(x.new_full((len(x), self.classes, *x.shape[2:]), 1 / self.classes), seed, row, T)
        for t in range(T, 1, -1):
            kept, before = (self.schedule.alpha(s, x).square() for s in (t, t - 1))
            guess = self._guess(x, x_t, torch.full_like(row, t))
            x_t = self._drawn(posterior(guess, one_hot(x_t, self.classes), before, kept), seed, row, t - 1)
        return self._guess(x, x_t, torch.ones_like(row)).argmax(1).to(torch.uint8)

    def _kept(self, t: Tensor, like: Tensor) -> Tensor:
        """abar_t of every row."""
        return self.schedule.alpha(t, like).square()

    def _guess(self, x: Tensor, x_t: Tensor, t: Tensor) -> Float[Tensor, "b k *space"]:
        """p(y | x_t, image)."""
        shown = torch.cat([x, state_of(x_t, self.classes)], 1)
        guess: Tensor = self.trunk(shown, t - 1).float().softmax(1)
        return guess

    def _drawn(self, p: Tensor, seed: int, row: Tensor, stream: int) -> UInt8[Tensor, "b *space"]:
        """A class for every voxel."""
        u = uniform(p.shape[2:], seed=seed, row=row, stream=stream)[:, None]
        classes: Tensor = (p.cumsum(1)[:, :-1] <= u).sum(1)
        return classes.to(torch.uint8)


def blurred(y: Float[Tensor, "b k *space"], kept: Float[Tensor, "..."]) -> Float[Tensor, "b k *space"]:
    """q(x_t | y) of one-hot classes y, kept with probability abar_t and else drawn anew."""
    return kept * y + (1 - kept) / y.shape[1]


def posterior(
    p: Float[Tensor, "b k *space"],
    x_t: Float[Tensor, "b k *space"],
    before: Float[Tensor, "..."],
    kept: Float[Tensor, "..."],
) -> Float[Tensor, "b k *space"]:
    """p(x_s | x_t) = sum_y q(x_s | x_t, y) p(y) for any s < t.

    Args:
        p: p(y): one-hot where the class is known.
        x_t: One-hot classes at t.
        before: abar_s.
        kept: abar_t.
    """
    share = p / blurred(x_t, kept)  # q(x_t | y) is symmetric in its arguments
    mixed: Tensor = before * share + (1 - before) / p.shape[1] * share.sum(1, keepdim=True)
    return blurred(x_t, kept / before) * mixed

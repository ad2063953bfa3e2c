"""DDPM segmentation: a denoising diffusion model of masks, shown the image at every step.

The state x_t = alpha_t y + sigma_t eps of a mask y (-1 and 1) stands beside the image x in the network's input, and

    loss = E |eps - eps_theta(x, x_t, t)|^2,  t uniform in 1 .. T.

A mask is drawn by ancestral sampling from x_T ~ N(0, 1) in T steps, with the one-step estimate of the mask clipped to
[-1, 1], and cut at 0 (for several classes, the greatest channel). Trained on one mask an image it is the ensemble of
Wolleb et al.; on a random reader's mask a row, the "probabilistic" variant of Rahman et al. The variance of a step is
that of the posterior; the published programs learn it.

References: Wolleb, Sandkuehler, Bieder, Valmaggia, Cattin (2022), "Diffusion models for implicit image segmentation
ensembles", arXiv 2112.03145; Ho, Jain, Abbeel (2020); Rahman, Valanarasu, Hacihaliloglu, Patel (2023), arXiv
2304.04745.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cfx.core.denoiser import Denoiser, Posterior
from cfx.core.random import normal, uniform
from cfx.core.schedule import Schedule
from cfx.core.solvers import Ancestral, Past, sample
from cfx.models.samplers.conditioned import (
    NOISE,
    PATCH_UNET,
    TIME,
    Beside,
    Trunk,
    mask_of,
    state_channels,
    state_of,
)
from cfx.models.samplers.sampler import Code, Draw, MaskSampler, one_reader

LINEAR: Mapping[str, Any] = MappingProxyType({"num_train_timesteps": 1000, "beta_schedule": "linear"})
"""The published schedule."""


@dataclass(frozen=True)
class Noised:
    """A mask at a random time.

    Attributes:
        mask: The mask as a state, -1 and 1.
        eps: Noise.
        t: Time of every row, 1 .. T.
        x_t: What the two make.
    """

    mask: Float[Tensor, "b k *space"]
    eps: Float[Tensor, "b k *space"]
    t: Int[Tensor, " b"]
    x_t: Float[Tensor, "b k *space"]


class Ddpm(MaskSampler):
    """See the page."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        classes: int = 2,
        network: Mapping[str, Any] = PATCH_UNET,
        schedule: Mapping[str, Any] = LINEAR,
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
        self.schedule = Schedule.from_diffusers({**schedule, "prediction_type": "epsilon"})
        self.nfe = self.schedule.T
        states = state_channels(classes)
        self.trunk = Trunk(spatial_dims, in_channels + states, states, network)
        self.multiple = self.trunk.multiple

    def noised(self, readings: UInt8[Tensor, "b r *space"], draw: Draw) -> Noised:
        """The mask of one reader at a random time."""
        mask = state_of(one_reader(readings, draw), self.classes)
        u = uniform((), seed=draw.seed, row=draw.slot, stream=TIME)
        t = 1 + (u * self.schedule.T).long()
        eps = normal(mask.shape[1:], seed=draw.seed, row=draw.slot, stream=NOISE)
        return Noised(mask, eps, t, self.schedule.noised(mask, t, eps))

    def forward(
        self, x: Float[Tensor, "b c *space"], readings: UInt8[Tensor, "b r *space"], draw: Draw
    ) -> tuple[Float[Tensor, " b"], Mapping[str, Tensor]]:
        """Mean squared error of the predicted noise."""
        at = self.noised(readings, draw)
        eps = self.trunk(torch.cat([x, at.x_t], 1), at.t - 1)
        return (eps - at.eps).square().flatten(1).mean(1), {}

    def encode(self, x: Float[Tensor, "b c *space"]) -> Code:
        """The image itself: the network sees it anew at every step."""
        return (x,)

    def draw(self, code: Code, *, seed: int, row: Int[Tensor, " b"]) -> UInt8[Tensor, "b *space"]:
        """T ancestral steps."""
        (x,) = code
        T = self.schedule.T
        shape = state_channels(self.classes), *x.shape[2:]
        start = normal(shape, seed=seed, row=row, stream=T)  # the steps take the streams below
        end = sample(_Clipped(Ancestral(seed, row)), self.given(x, seed, row), start, range(T, -1, -1))
        return mask_of(end)

    def given(self, x: Float[Tensor, "b c *space"], seed: int, row: Int[Tensor, " b"]) -> Denoiser:
        """The denoiser of masks of these images; a method derived from this one may draw more for each row."""
        return Denoiser(Beside(self.trunk, x), self.schedule)


@dataclass(frozen=True)
class _Clipped:
    """A solver that knows that masks lie in [-1, 1].

    Attributes:
        solver: How it steps.
    """

    solver: Ancestral

    def __call__(self, schedule: Schedule, q: Posterior, t: int, s: int, past: Past | None = None) -> Tensor:
        """x_s."""
        return self.solver(schedule, replace(q, mean=q.mean.clamp(-1, 1)), t, s, past)

"""EDICT: exact inversion by two coupled trajectories, each of which takes its noise estimate from the other.

cfx inverts by noise maps; this is what `inversion.py` measures beside them. A step uses only operations that can be
undone one by one (an affine coupling and an averaging), so the inverse is exact up to rounding, which averaging
amplifies: the pair is carried in double precision. Nothing is random.

Reference: Wallace, Gokul, Naik (2023), "EDICT: exact diffusion inversion via coupled transformations".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.core.abduction import MeanFn
from cfx.core.denoiser import Generative
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule, check_grid


@dataclass(frozen=True)
class CoupledState:
    """The pair of states at times[0] that an image was inverted to.

    Attributes:
        schedule: Noise schedule of the generator.
        times: Grid tau > ... > 0.
        pair: Both states, `(2, b, c, *space)` float64.
        mix: Weight p of the averaging, in (0, 1].
        dtype: Precision in which the network is called and images are returned.
    """

    schedule: Schedule
    times: tuple[int, ...]
    pair: Float[Tensor, "2 b c *space"]
    mix: float
    dtype: torch.dtype


@dataclass(frozen=True)
class _Step:
    """One DDIM step t -> s as z_s = scale z_t + shift eps."""

    schedule: Schedule
    t: int
    s: int
    dtype: torch.dtype

    @property
    def scale(self) -> float:
        return math.sqrt(self.schedule.alpha_squared(self.s) / self.schedule.alpha_squared(self.t))

    def push(self, z: Tensor, other: Tensor, mean_fn: MeanFn) -> Tensor:
        """Return scale z + shift eps(other)."""
        a_t, a_s = self.schedule.alpha_squared(self.t), self.schedule.alpha_squared(self.s)
        mean = mean_fn(other.to(self.dtype), self.t, self.s).double()
        eps = (other - math.sqrt(a_t) * mean) / math.sqrt(1 - a_t)
        return self.scale * z + (math.sqrt(1 - a_s) - self.scale * math.sqrt(1 - a_t)) * eps

    def pull(self, z: Tensor, other: Tensor, mean_fn: MeanFn) -> Tensor:
        """What `push` with the same other maps to z."""
        return (z - self.push(torch.zeros_like(z), other, mean_fn)) / self.scale


def edict_invert(
    denoiser: Generative, x: Float[Tensor, "b c *space"], times: Sequence[int], mean_fn: MeanFn, *, mix: float = 0.93
) -> CoupledState:
    """Invert images, two network evaluations a step, without gradient.

    Args:
        denoiser: Generator, whose schedule counts.
        x: Images.
        times: Grid tau > ... > 0; alpha_tau must not be 0.
        mean_fn: Its estimate of the clean image, `cfx.core.abduction.mean_of(denoiser, label)`.
        mix: Weight p of the averaging that keeps the two trajectories together; 1 couples without averaging. Inversion
            multiplies their difference by p^-2 a step, so beyond some 50 steps p has to be nearer 1.

    Raises:
        InputError: a grid that does not decrease to 0 or begins at zero SNR, mix outside (0, 1], or what the denoiser
            refuses.
    """
    schedule, grid = denoiser.schedule, check_grid(times, denoiser.schedule.T)
    if not 0 < mix <= 1:
        raise InputError(f"mix: expected a weight in (0, 1], got {mix}")
    if schedule.alpha_squared(grid[0]) == 0:
        raise InputError(f"times: expected to begin below the zero-SNR time {schedule.T}, got {grid[0]}")
    a = b = x.double()
    with torch.no_grad():
        for s, t in pairwise(grid[::-1]):
            step = _Step(schedule, t, s, x.dtype)
            b = (b - (1 - mix) * a) / mix
            a = (a - (1 - mix) * b) / mix
            b = step.pull(b, a, mean_fn)
            a = step.pull(a, b, mean_fn)
    return CoupledState(schedule, tuple(grid), torch.stack([a, b]), mix, x.dtype)


def edict_replay(state: CoupledState, mean_fn: MeanFn) -> Float[Tensor, "b c *space"]:
    """Sample from an inverted state; the same `mean_fn` as in `edict_invert` returns the images themselves.

    `mean_fn` is called twice a step, once for each trajectory.
    """
    a, b = state.pair[0], state.pair[1]
    for t, s in pairwise(state.times):
        step = _Step(state.schedule, t, s, state.dtype)
        a = step.push(a, b, mean_fn)
        b = step.push(b, a, mean_fn)
        a = state.mix * a + (1 - state.mix) * b
        b = state.mix * b + (1 - state.mix) * a
    return a.to(state.dtype)

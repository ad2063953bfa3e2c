"""Abduction by noise maps: which noise made this image? Replaying it with the same generator returns the image exactly.

Every x_t of a grid is drawn from q(x_t | x_0) with a noise of its own; the residual of each reverse step,
r = x_s - E[x_s | x_t, x0_hat], is kept. Replay adds the residuals to whatever mean it is given: to the generator's own
and the image comes back, to a guided one and the image changes while its details, which live in the residuals, stay.

Reference: Huberman-Spiegelglas, Kulikov, Michaeli (2024), "An edit friendly DDPM noise space". Unlike there, residuals
are kept unscaled, so the last step, whose variance is 0, has one too.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.denoiser import Generative
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.rows import Index
from cfx.core.schedule import Schedule, check_grid
from cfx.core.solvers import ancestral_mean

MeanFn = Callable[[Tensor, int, int], Tensor]
"""`mean_fn(x_t, t, s)`: the estimate of the clean image at t, guided or not, for the step t -> s."""


@dataclass(frozen=True)
class NoiseMaps:
    """The noise that made a batch of images.

    Attributes:
        schedule: Noise schedule of the generator.
        times: tau = times[0] > ... > times[-1] = 0.
        x_tau: State at tau, `(b, c, *space)`.
        x0_tau: The generator's estimate of the clean image there.
        residuals: One map a step, `(steps, b, c, *space)`.
    """

    schedule: Schedule
    times: tuple[int, ...]
    x_tau: Float[Tensor, "b c *space"]
    x0_tau: Float[Tensor, "b c *space"]
    residuals: Float[Tensor, "steps b c *space"]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.x_tau)

    def __getitem__(self, rows: Index) -> "NoiseMaps":
        """The maps of these rows."""
        index = torch.as_tensor(rows) if isinstance(rows, Sequence) else rows
        return replace(self, x_tau=self.x_tau[index], x0_tau=self.x0_tau[index], residuals=self.residuals[:, index])


def mean_of(denoiser: Generative, label: Int[Tensor, " b"] | None = None) -> MeanFn:
    """The generator's own estimate as a `MeanFn`: replaying with it is the null edit."""
    return lambda x_t, t, s: denoiser(x_t, t, label).mean


def abduct(
    denoiser: Generative,
    x: Float[Tensor, "b c *space"],
    times: Sequence[int],
    *,
    seed: int,
    row: Int[Tensor, " b"],
    label: Int[Tensor, " b"] | None = None,
) -> NoiseMaps:
    """Noise maps of images, one network evaluation a step, without gradient.

    Args:
        denoiser: Generator.
        x: Images.
        times: Grid tau > ... > 0, for example `schedule.times(n, start=tau)`.
        seed: Seed of the noise.
        row: Counter of every row; its noise at time t is its stream t, whatever the batch.
        label: Class of every row under which to explain it, or None.

    Raises:
        InputError: a grid that does not decrease to 0, another number of counters than rows, or what the denoiser
            refuses.
    """
    grid = check_grid(times, denoiser.schedule.T)
    if len(row) != len(x):
        raise InputError(f"row: expected one counter for each of {len(x)} rows, got {len(row)}")
    with torch.no_grad():
        x_tau = here = _noised(denoiser.schedule, x, grid[0], seed, row)
        residuals = x.new_empty((len(grid) - 1, *x.shape))
        for i, (t, s) in enumerate(pairwise(grid)):
            x0 = denoiser(here, t, label).mean
            if i == 0:
                x0_tau = x0
            mean = ancestral_mean(denoiser.schedule, x0, here, t, s)
            residuals[i] = _noised(denoiser.schedule, x, s, seed, row) - mean
            # the state as replay will round it, not as drawn: rounding errors then never add up over the steps
            here = mean + residuals[i]
    return NoiseMaps(denoiser.schedule, tuple(grid), x_tau, x0_tau, residuals)


def _noised(schedule: Schedule, x: Tensor, t: int, seed: int, row: Tensor) -> Tensor:
    """A draw of x_t given x."""
    if t == 0:
        return x
    noise = normal(x.shape[1:], seed=seed, row=row.to(x.device), stream=t).to(x)
    return schedule.noised(x, t, noise)


def replay(maps: NoiseMaps, mean_fn: MeanFn) -> Float[Tensor, "b c *space"]:
    """Run the abducted noise through a generator again.

    Args:
        maps: Noise maps.
        mean_fn: Estimate of the clean image at every step; `mean_of(denoiser, label)` as in `abduct` returns the images
            themselves, to within one rounding of the last step.

    Returns:
        Images `(b, c, *space)`.
    """
    x = maps.x_tau
    for (t, s), residual in zip(pairwise(maps.times), maps.residuals, strict=True):
        x = ancestral_mean(maps.schedule, mean_fn(x, t, s), x, t, s) + residual
    return x

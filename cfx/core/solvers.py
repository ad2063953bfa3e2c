"""Steps from time t to time s of the reverse diffusion, and of its inversion (the same call with s > t).

A solver is a function of the posterior at t and of both times; nothing is remembered between calls.

| solver | order | evaluations a step | use |
|---|---|---|---|
| `ddim_step` | 1 | 1 | deterministic sampling and inversion |
| `dpmpp_step` | 2 | 1 | deterministic sampling in few (10 to 25) steps; smooth inversion |
| `Ancestral`, `ddpm_step` | - | 1 | random sampling; the process that abduction explains |

References: Ho, Jain, Abbeel (2020), DDPM; Song, Meng, Ermon (2021), DDIM; Lu et al. (2022),
DPM-Solver++ (2M, midpoint).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.denoiser import Generative, Posterior
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.schedule import Schedule, check_time

Past = tuple[Tensor, int]
"""The posterior mean of the step before, and its time."""


Solver = Callable[[Schedule, Posterior, int, int, Past | None], Tensor]
"""One step to x_s: `(schedule, posterior at t, t, s, the step before)`; only multistep solvers use the last."""


def ddim_step(
    schedule: Schedule, q: Posterior, t: int, s: int, past: Past | None = None
) -> Float[Tensor, "b c *space"]:
    """DDIM without noise: x_s = alpha_s x + sigma_s eps with x, eps as the posterior has them.

    Args:
        schedule: Noise schedule.
        q: Posterior at t; at t = 0 the one at time 1, for networks know no lower noise.
        t: Time of `q.x_t`.
        s: Time wanted, below t (sampling) or above (inversion).
        past: Not used.

    Raises:
        InputError: a time outside 0 .. T.
    """
    return _transfer(schedule, q.mean, q.x_t, t, s)


def dpmpp_step(
    schedule: Schedule, q: Posterior, t: int, s: int, past: Past | None = None
) -> Float[Tensor, "b c *space"]:
    """DPM-Solver++ 2M (midpoint); without `past`, to t = 0 and to zero SNR it is of first order, that is DDIM.

    Arguments and errors as in `ddim_step`; `past` is the posterior mean of the step before and its time, which is
    above t when sampling and below it when inverting.
    """
    level = schedule.log_snr(max(t, 1))
    h = schedule.log_snr(s) - level
    if past is None or max(past[1], 1) == max(t, 1) or not math.isfinite(h):
        return _transfer(schedule, q.mean, q.x_t, t, s)
    before, r = past
    # infinite after a step from zero SNR: the correction then vanishes, as it should
    h_before = level - schedule.log_snr(max(r, 1))
    return _transfer(schedule, q.mean + h / (2 * h_before) * (q.mean - before), q.x_t, t, s)


def _transfer(schedule: Schedule, x0: Tensor, x_t: Tensor, t: int, s: int) -> Tensor:
    """Exact solution of the probability-flow ODE from t to s for a constant estimate x0 of the clean image."""
    a_t, a_s = schedule.alpha_squared(max(t, 1)), schedule.alpha_squared(s)
    ratio = math.sqrt((1 - a_s) / (1 - a_t))
    return ratio * x_t + (math.sqrt(a_s) - ratio * math.sqrt(a_t)) * x0


def ancestral_mean(
    schedule: Schedule, x0: Float[Tensor, "b c *space"], x_t: Float[Tensor, "b c *space"], t: int, s: int
) -> Float[Tensor, "b c *space"]:
    """E[x_s | x_t, x = x0] for any jump t -> s with s < t; equals x0 bit for bit at s = 0.

    Raises:
        InputError: not 0 <= s < t <= T.
    """
    a_t, a_s = _squares(schedule, t, s)
    keep = math.sqrt(a_t / a_s) * (1 - a_s) / (1 - a_t)
    return keep * x_t + math.sqrt(a_s) * (1 - a_t / a_s) / (1 - a_t) * x0


def ancestral_std(schedule: Schedule, t: int, s: int) -> float:
    """Standard deviation of x_s given x_t and x, for any jump t -> s with s < t; 0 at s = 0.

    Raises:
        InputError: not 0 <= s < t <= T.
    """
    a_t, a_s = _squares(schedule, t, s)
    return math.sqrt((1 - a_s) / (1 - a_t) * (1 - a_t / a_s))


def _squares(schedule: Schedule, t: int, s: int) -> tuple[float, float]:
    check_time(t, schedule.T, first=1)
    check_time(s, t - 1, name="s")
    return schedule.alpha_squared(t), schedule.alpha_squared(s)


def ddpm_step(
    schedule: Schedule, q: Posterior, t: int, s: int, noise: Float[Tensor, "b c *space"]
) -> Float[Tensor, "b c *space"]:
    """Ancestral (DDPM) step with the posterior variance: mean + std * noise.

    Raises:
        InputError: not 0 <= s < t <= T.
    """
    return ancestral_mean(schedule, q.mean, q.x_t, t, s) + ancestral_std(schedule, t, s) * noise


@dataclass(frozen=True)
class Ancestral:
    """`ddpm_step` as a solver, with counter-based noise.

    Attributes:
        seed: Seed of the noise.
        row: Counter of every row of the batch; the noise of the step to s is the row's stream s.
    """

    seed: int
    row: Int[Tensor, " b"]

    def __call__(
        self, schedule: Schedule, q: Posterior, t: int, s: int, past: Past | None = None
    ) -> Float[Tensor, "b c *space"]:
        """x_s; `past` is not used."""
        noise = normal(q.x_t.shape[1:], seed=self.seed, row=self.row, stream=s).to(q.x_t)
        return ddpm_step(schedule, q, t, s, noise)


def sample(
    solver: Solver,
    denoiser: Generative,
    x: Float[Tensor, "b c *space"],
    times: Sequence[int],
    label: Int[Tensor, " b"] | None = None,
) -> Float[Tensor, "b c *space"]:
    """Carry x from times[0] to times[-1], one network evaluation a step.

    Args:
        solver: `ddim_step`, `dpmpp_step` or an `Ancestral`.
        denoiser: Generator.
        x: State at times[0].
        times: Decreasing to sample, increasing to invert.
        label: Class of every row, or None.

    Raises:
        InputError: fewer than two times, times not strictly monotone, or what the denoiser refuses.
    """
    times = list(times)
    if len(times) < 2 or (times != sorted(set(times)) and times != sorted(set(times), reverse=True)):
        raise InputError(f"times: expected at least two, strictly increasing or decreasing, got {times}")
    past: Past | None = None
    for t, s in pairwise(times):
        q = denoiser(x, max(t, 1), label)
        x = solver(denoiser.schedule, q, t, s, past)
        past = q.mean, t
    return x

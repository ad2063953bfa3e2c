"""What detectors by diffusion share: where to start, the same noise for every image, and the way back.

Starts are noise levels sigma, which mean the same on every schedule; the number of steps of a walk is the published
one, or every time of the schedule below the start where it has not as many. A latent generator noises codes: images are
encoded first, walks end in images again, and each pass of its autoencoder is counted.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.denoiser import Generative, Latent
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.schedule import Schedule
from cfx.core.solvers import ancestral_mean, ancestral_std
from cfx.ood.detector import Ask

_VOXELS = 1 << 20  # that are denoised together

Versions = Float[Tensor, "k b c *space"]
"""Several versions of every image of a batch."""
Noise = Float[Tensor, "k 1 c *space"]
"""Noise of each version, the same for every image."""


def generator_of(ask: Ask) -> Generative:
    """The generator, which the engine has made sure of."""
    assert ask.tools.generator is not None
    return ask.tools.generator


def signal(ask: Ask) -> Float[Tensor, "b z *grid"]:
    """What the generator noises: the images, or for a latent one their codes."""
    generator = generator_of(ask)
    if not isinstance(generator, Latent):
        return ask.x
    ask.spent.count("autoencoder", every(ask))
    code: Tensor = generator.encode(ask.x)
    return code


def images_of(ask: Ask, z: Float[Tensor, "k b z *grid"]) -> Versions:
    """The images, in their range, at the end of walks."""
    generator = generator_of(ask)
    if not isinstance(generator, Latent):
        return z.clamp(-1, 1)
    ask.spent.count("autoencoder", every(ask, len(z)))
    x = generator.decode(z.flatten(0, 1))
    return x.view(*z.shape[:2], *x.shape[1:]).clamp(-1, 1)


def every(ask: Ask, k: int = 1) -> Int[Tensor, " m"]:
    """The row of each image of k versions of the batch."""
    return torch.arange(len(ask), device=ask.x.device).repeat(k)


def in_groups(ask: Ask, k: int, of: Callable[[list[int]], Tensor]) -> Tensor:
    """What is found of k versions, joined, as many at a time as memory should bear.

    Args:
        ask: The batch.
        k: Number of versions.
        of: Numbers of some versions to `(versions, b, ...)`.
    """
    at_once = max(1, _VOXELS // max(1, ask.x.numel()))
    return torch.cat([of(part.tolist()) for part in torch.arange(k).split(at_once)])


def draws(like: Float[Tensor, "b c *space"], which: Sequence[int], seed: int, stream: int) -> Noise:
    """Noise for versions of a batch: each has its own, the same for every image.

    Args:
        like: The batch.
        which: Number of each version.
        seed: Seed.
        stream: Which of a version's draws.
    """
    row = torch.tensor(list(which))
    return normal(tuple(like.shape[1:]), seed=seed, row=row, stream=stream)[:, None].to(like)


def start_grid(schedule: Schedule, sigma: float, steps: int) -> list[int]:
    """Times from the noise level down to 0, in so many steps or all that there are."""
    start = schedule.time_of(sigma)
    return schedule.times(min(steps, start), start=start)


def times_of(schedule: Schedule, levels: Sequence[float], least: int = 3) -> list[int]:
    """The times of noise levels, rising, each once.

    Raises:
        InputError: fewer than `least` different ones.
    """
    times = sorted({schedule.time_of(level) for level in levels})
    if len(times) < least:
        raise InputError(
            f"generator: expected a schedule with at least {least} different times at the noise levels "
            f"{[round(level, 3) for level in levels]}, got {len(times)} of its {schedule.T}"
        )
    return times


def noised(schedule: Schedule, z: Float[Tensor, "#k b c *space"], times: Sequence[int], eps: Noise) -> Versions:
    """Each version at its own time; of one version, that one at all of them."""
    z, eps = torch.broadcast_tensors(z, eps)
    t = torch.tensor(list(times), device=z.device).repeat_interleave(z.shape[1])
    return schedule.noised(z.flatten(0, 1), t, eps.flatten(0, 1)).view_as(z)


def descend(ask: Ask, z: Versions, grids: Sequence[Sequence[int]]) -> Versions:
    """DDIM from each version's own start to 0; no version knows of another, and no step of the one before.

    With r steps left all versions that have as many are stepped together, x_s = alpha_s E[x | x_t] + sigma_s eps.

    Args:
        ask: The batch.
        z: Versions at the first times of their grids.
        grids: Decreasing times of each version, the last of them 0; those with fewer steps first.
    """
    schedule, longest, z = generator_of(ask).schedule, len(grids[-1]), z.clone()
    table = torch.tensor([[-1] * (longest - len(grid)) + list(grid) for grid in grids], device=z.device)
    for t, s in zip(table.T[:-1], table.T[1:], strict=True):
        on = slice(int((t < 0).sum()), None)
        rows = every(ask, len(t[on]))
        q = ask.posterior(z[on].flatten(0, 1), t[on].repeat_interleave(len(ask)), rows)
        z[on] = schedule.noised(q.mean, s[on].repeat_interleave(len(ask)), q.eps).view_as(z[on])
    return z


def ancestral(ask: Ask, z: Versions, t: int, s: int, eps: Noise) -> Versions:
    """One DDPM step of versions that are at the same time; estimates of images are kept in their range."""
    generator = generator_of(ask)
    q = ask.posterior(z.flatten(0, 1), t, every(ask, len(z)))
    x0 = q.mean if isinstance(generator, Latent) else q.mean.clamp(-1, 1)
    mean = ancestral_mean(generator.schedule, x0, q.x_t, t, s).view_as(z)
    return mean + ancestral_std(generator.schedule, t, s) * eps

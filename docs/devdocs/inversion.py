"""Measure how exactly each inversion returns an image that nothing was changed in; prints the tables of inversion.md.

Run from the repository: `python docs/devdocs/inversion.py` (about half a minute on one core).
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from edict import edict_invert, edict_replay
from torch import Tensor

from cfx.core.abduction import abduct, mean_of, replay
from cfx.core.denoiser import Denoiser, Generative, Posterior
from cfx.core.random import normal
from cfx.core.schedule import Schedule, Time
from cfx.core.solvers import Solver, ddim_step, dpmpp_step, sample

sys.path.insert(0, str(Path(__file__).parents[2] / "tests" / "core"))  # the tests' closed forms are no part of cfx
from closed_forms import ConvNetwork, mixture

SCHEDULE = Schedule.from_diffusers({"timestep_spacing": "trailing", "prediction_type": "v_prediction"})
ROW = torch.arange(8)


@dataclass
class Counted:
    """A generator that counts its evaluations."""

    inner: Generative
    calls: int = field(default=0)

    @property
    def schedule(self) -> Schedule:
        """The generator's."""
        return self.inner.schedule

    def __call__(self, x_t: Tensor, t: Time, label: Tensor | None = None) -> Posterior:
        """The generator's posterior."""
        self.calls += 1
        return self.inner(x_t, t, label)


Method = Callable[[Generative, Tensor, list[int]], tuple[Tensor, int]]
"""Null edit: to the image rendered again and the bytes kept between inversion and rendering."""


def size(*kept: Tensor) -> int:
    """Bytes."""
    return sum(k.numel() * k.element_size() for k in kept)


def plain(solver: Solver) -> Method:
    """Inversion by an ordinary solver run upwards."""

    def method(denoiser: Generative, x: Tensor, times: list[int]) -> tuple[Tensor, int]:
        state = sample(solver, denoiser, x, times[::-1])
        return sample(solver, denoiser, state, times), size(state)

    return method


def maps(denoiser: Generative, x: Tensor, times: list[int]) -> tuple[Tensor, int]:
    """Edit-friendly noise maps."""
    found = abduct(denoiser, x, times, seed=0, row=ROW)
    return replay(found, mean_of(denoiser)), size(found.x_tau, found.residuals)


def edict(mix: float) -> Method:
    """Coupled trajectories."""

    def method(denoiser: Generative, x: Tensor, times: list[int]) -> tuple[Tensor, int]:
        state = edict_invert(denoiser, x, times, mean_of(denoiser), mix=mix)
        return edict_replay(state, mean_of(denoiser)), size(state.pair)

    return method


METHODS: dict[str, Method] = {
    "noise maps": maps,
    "EDICT, p = 0.93": edict(0.93),
    "EDICT, p = 0.99": edict(0.99),
    "DDIM": plain(ddim_step),
    "DPM-Solver++ 2M": plain(dpmpp_step),
}


def generator(name: str, dtype: torch.dtype) -> Generative:
    """The closed-form mixture or a random convolutional network."""
    return mixture(SCHEDULE) if name == "mixture" else Denoiser(ConvNetwork().to(dtype), SCHEDULE)


def images(dtype: torch.dtype) -> Tensor:
    """Draws of the mixture, 8 images of 32 x 32."""
    noise = normal((1, 32, 32), seed=0, row=ROW, stream=0).double()
    return mixture(SCHEDULE).transport(noise, 1000, 0).clamp(-1, 1).to(dtype)


def error(method: Method, name: str, dtype: torch.dtype, steps: int, repeats: int = 1) -> float:
    """Largest pixel difference after null edits."""
    x = y = images(dtype)
    for _ in range(repeats):
        y = method(generator(name, dtype), y, SCHEDULE.times(steps, 600))[0]
    return (y - x).abs().max().item()


def exactness(steps: int) -> None:
    """Print error, cost and memory of every method."""
    print(f"\n{steps} steps from t = 600 of 1000\n")
    print("| method | mixture f32 | mixture f64 | conv f32 | conv f32, 10 times | conv f64 | NFE | memory |")
    print("|---|---|---|---|---|---|---|---|")
    for label, method in METHODS.items():
        cells = [
            error(method, name, dtype, steps, repeats)
            for name, dtype, repeats in [
                ("mixture", torch.float32, 1),
                ("mixture", torch.float64, 1),
                ("conv", torch.float32, 1),
                ("conv", torch.float32, 10),
                ("conv", torch.float64, 1),
            ]
        ]
        counted, x = Counted(generator("conv", torch.float32)), images(torch.float32)
        memory = method(counted, x, SCHEDULE.times(steps, 600))[1] / size(x)
        print(f"| {label} | {' | '.join(f'{c:.0e}' for c in cells)} | {counted.calls} | {memory:.0f} |")


def stability() -> None:
    """Print EDICT's error and the distance of its pair over the number of steps."""
    print("\n| p | steps | null-edit error, mixture f64 | largest difference within the pair |\n|---|---|---|---|")
    for mix in (0.93, 0.97, 0.99, 1.0):
        for steps in (20, 40, 80, 160):
            denoiser, x = generator("mixture", torch.float64), images(torch.float64)
            state = edict_invert(denoiser, x, SCHEDULE.times(steps, 600), mean_of(denoiser), mix=mix)
            apart = (state.pair[0] - state.pair[1]).abs().max().item()
            missed = (edict_replay(state, mean_of(denoiser)) - x).abs().max().item()
            print(f"| {mix} | {steps} | {missed:.0e} | {apart:.2g} |")


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    exactness(20)
    exactness(50)
    stability()

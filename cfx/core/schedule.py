"""The noise schedule: x_t = alpha_t x + sigma_t eps with alpha_t^2 + sigma_t^2 = 1, t = 0 .. T.

t = 0 is data (alpha 1, sigma 0); t >= 1 is index t - 1 of diffusers' `alphas_cumprod`. Schedules are read from and
written to diffusers' `scheduler_config.json`.

References: Ho, Jain, Abbeel (2020); Nichol, Dhariwal (2021) for the cosine schedule; Lin, Liu, Li, Yang (2024),
"Common diffusion noise schedules and sample steps are flawed", for zero terminal SNR and spacing.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.broadcast import each
from cfx.core.errors import InputError
from cfx.core.schedulers import diffusers_table, monai_table

Prediction = Literal["epsilon", "v", "x0"]
Spacing = Literal["leading", "trailing", "linspace"]
Time = int | Int[Tensor, " b"]

_PREDICTIONS: dict[str, Prediction] = {"epsilon": "epsilon", "v_prediction": "v", "sample": "x0"}
_SPACINGS = ("leading", "trailing", "linspace")


@dataclass(frozen=True, eq=False)
class Schedule:
    """A discrete variance-preserving noise schedule and what its network predicts.

    Attributes:
        alphas_cumprod: alpha_t^2 for t = 1 .. T, float64, strictly decreasing in [0, 1); 0 only at T (zero SNR).
        prediction: What the network returns: the noise, v = alpha eps - sigma x, or the image.
        spacing: How `times` spreads its steps (diffusers' `timestep_spacing`).
        steps_offset: Added to every step of the `leading` spacing.
        config: The diffusers configuration this came from; unknown keys are kept and written back.

    Raises:
        InputError: any field is not as described.
    """

    alphas_cumprod: Float[Tensor, " T"]
    prediction: Prediction = "epsilon"
    spacing: Spacing = "leading"
    steps_offset: int = 0
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the table and the names."""
        _check_name("prediction", self.prediction, _PREDICTIONS.values())
        _check_name("spacing", self.spacing, _SPACINGS)
        table = self.alphas_cumprod.detach().to("cpu", torch.float64)
        if table.ndim != 1 or len(table) == 0:
            raise InputError(f"alphas_cumprod: expected a vector of T values, got shape {tuple(table.shape)}")
        steps = torch.diff(table, prepend=torch.ones(1, dtype=torch.float64))
        if not bool((steps < 0).all() & (table >= 0).all()):  # NaN compares false, so it is refused too
            raise InputError("alphas_cumprod: expected values in [0, 1), strictly decreasing; got others")
        object.__setattr__(self, "alphas_cumprod", table)

    @classmethod
    def from_diffusers(cls, config: Mapping[str, Any] | None = None) -> "Schedule":
        """Read a diffusers scheduler configuration (`scheduler.config`, or its JSON); missing keys as in diffusers.

        Reads num_train_timesteps, beta_schedule, beta_start, beta_end, trained_betas, rescale_betas_zero_snr,
        prediction_type, timestep_spacing and steps_offset.

        Raises:
            InputError: a scheduler without a table of betas (flow matching, EDM, ...: `cfx.core.schedulers`), or an
                unknown beta schedule, prediction type or spacing.
        """
        config = dict(config or {})
        table, prediction = diffusers_table(config), config.get("prediction_type", "epsilon")
        spacing = config.get("timestep_spacing", "leading")
        _check_name("config.prediction_type", prediction, _PREDICTIONS)
        _check_name("config.timestep_spacing", spacing, _SPACINGS)
        return cls(
            alphas_cumprod=torch.from_numpy(table),
            prediction=_PREDICTIONS[prediction],
            spacing=spacing,
            steps_offset=int(config.get("steps_offset", 0)),
            config=config,
        )

    @classmethod
    def from_monai(cls, scheduler: object) -> "Schedule":
        """Read a MONAI scheduler: the object (DDPM, DDIM, PNDM), or the keywords that make one, as bundles have them.

        Raises:
            InputError: a scheduler without a table of betas (`RFlowScheduler`), or an unknown schedule or prediction
                type.
        """
        table, prediction = monai_table(scheduler)
        _check_name("scheduler.prediction_type", prediction, _PREDICTIONS)
        return cls(torch.from_numpy(table), prediction=_PREDICTIONS[prediction], spacing="linspace")

    def to_diffusers(self) -> dict[str, Any]:
        """The configuration diffusers' schedulers load, plain JSON values.

        Without a `config` the table is written as `trained_betas`. `clip_sample` is off unless `config` says
        otherwise: clipping breaks inversion.
        """
        names = {ours: theirs for theirs, ours in _PREDICTIONS.items()}
        out: dict[str, Any] = {"_class_name": "DDIMScheduler", "clip_sample": False}
        if not self.config:
            before = torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod[:-1]])
            out["trained_betas"] = (1 - self.alphas_cumprod / before).tolist()
        out |= self.config
        if out.get("trained_betas") is not None:
            out["trained_betas"] = [float(b) for b in out["trained_betas"]]
        return out | {
            "num_train_timesteps": self.T,
            "prediction_type": names[self.prediction],
            "timestep_spacing": self.spacing,
            "steps_offset": self.steps_offset,
        }

    @property
    def T(self) -> int:
        """Number of noise levels; the largest time."""
        return len(self.alphas_cumprod)

    @property
    def zero_snr(self) -> bool:
        """Whether x_T is pure noise."""
        return float(self.alphas_cumprod[-1]) == 0

    @cached_property
    def _squares(self) -> Tensor:
        """alpha_t^2 for t = 0 .. T, float64."""
        return torch.cat([torch.ones(1, dtype=torch.float64), self.alphas_cumprod])

    def alpha(self, t: Time, like: Tensor) -> Float[Tensor, "..."]:
        """alpha_t in `like`'s dtype and device: a scalar for an int, `(b, 1, ...)` with `like.ndim` axes for `(b,)`."""
        return _lookup(self._squares.sqrt(), t, like)

    def sigma(self, t: Time, like: Tensor) -> Float[Tensor, "..."]:
        """sigma_t, shaped as `alpha` is."""
        return _lookup((1 - self._squares).sqrt(), t, like)

    def noised(
        self, x: Float[Tensor, "b c *space"], t: Time, eps: Float[Tensor, "b c *space"]
    ) -> Float[Tensor, "b c *space"]:
        """x_t = alpha_t x + sigma_t eps, one time for all rows or one a row."""
        return self.alpha(t, x) * x + self.sigma(t, x) * eps

    def alpha_squared(self, t: int) -> float:
        """alpha_t^2 in double precision; sigma_t^2 is one minus it.

        Raises:
            InputError: t outside 0 .. T.
        """
        return float(self._squares[check_time(t, self.T)])

    def log_snr(self, t: int) -> float:
        """lambda_t = log(alpha_t / sigma_t), natural log; inf at t = 0, -inf at zero SNR."""
        square = self.alpha_squared(t)
        if square in (0.0, 1.0):
            return math.inf if square else -math.inf
        return 0.5 * math.log(square / (1 - square))

    def time_of(self, sigma: float) -> int:
        """The time in 1 .. T whose noise level is nearest to `sigma`: how a start travels from one schedule to another.

        Raises:
            InputError: sigma outside (0, 1].
        """
        if not 0 < sigma <= 1:
            raise InputError(f"sigma: expected a noise level above 0 and at most 1, got {sigma}")
        return 1 + int(((1 - self.alphas_cumprod).sqrt() - sigma).abs().argmin())

    def times(self, n: int, start: int | None = None) -> list[int]:
        """A decreasing grid of n steps, n + 1 times, ending at 0.

        Args:
            n: Number of steps, 1 .. start.
            start: First time. None follows diffusers from T: the `leading` spacing then begins below T. An explicit
                start is always the first time; `leading` then spreads as `trailing` does.

        Raises:
            InputError: n or start out of range.
        """
        first = self.T if start is None else check_time(start, self.T)
        if not 1 <= n <= first:
            raise InputError(f"n: expected 1 to {first} steps, got {n}")
        if self.spacing == "linspace" and n > 1:
            grid = np.linspace(0, first - 1, n).round()[::-1] + 1
        elif self.spacing == "leading" and start is None:
            grid = np.arange(n, dtype=np.float64)[::-1] * (first // n) + self.steps_offset + 1
        else:
            grid = np.round(first * (1 - np.arange(n) / n))
        if grid[0] > self.T:
            raise InputError(f"n: {n} steps with steps_offset {self.steps_offset} begin beyond T = {self.T}")
        return [int(t) for t in grid] + [0]


def check_time(t: int, last: int, first: int = 0, name: str = "t") -> int:
    """Return t if first <= t <= last.

    Raises:
        InputError: it is not.
    """
    if not first <= t <= last:
        raise InputError(f"{name}: expected a time in {first} .. {last}, got {t}")
    return t


def check_grid(times: Sequence[int], last: int) -> list[int]:
    """Return the times of a grid if they strictly decrease to 0.

    Raises:
        InputError: fewer than two times, one above `last`, not decreasing, or not ending at 0.
    """
    grid = [int(t) for t in times]
    if len(grid) < 2 or grid[0] > last or grid[-1] != 0 or any(t <= s for t, s in pairwise(grid)):
        raise InputError(f"times: expected a grid that decreases from at most {last} to 0, got {grid}")
    return grid


def _check_name(what: str, name: str, known: Iterable[str]) -> None:
    if name not in known:
        raise InputError(f"{what}: expected one of {list(known)}, got {name!r}")


def _lookup(table: Tensor, t: Time, like: Tensor) -> Tensor:
    if isinstance(t, int):
        return like.new_full((), float(table[check_time(t, len(table) - 1)]))
    return each(table.to(like.dtype).to(like.device)[t], like)

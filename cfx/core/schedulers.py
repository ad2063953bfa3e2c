"""Tables of noise levels from the schedulers of other packages: diffusers' configurations, and MONAI's schedulers.

Only schedulers of one family have such a table: x_t = alpha_t x + sigma_t eps with alpha_t^2 the running product of
1 - beta_t (Ho, Jain, Abbeel, 2020), whatever solver they sample with. Others (flow matching, EDM's sigma without alpha,
discrete or continuous-time ones) are refused by name: read as the family's defaults they would give a schedule that the
network never saw, and no error.
"""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cfx.core.errors import InputError

Table = npt.NDArray[np.float64]

_LATE = {"beta_start": 0.00085, "beta_end": 0.012}
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "HeunDiscreteScheduler": _LATE,
    "KDPM2DiscreteScheduler": _LATE,
    "KDPM2AncestralDiscreteScheduler": _LATE,
    "DPMSolverSDEScheduler": _LATE,
    "LCMScheduler": {**_LATE, "beta_schedule": "scaled_linear"},
    "TCDScheduler": {**_LATE, "beta_schedule": "scaled_linear"},
    "UnCLIPScheduler": {"beta_schedule": "squaredcos_cap_v2"},
}
"""How the default betas of some of diffusers' schedulers differ from DDPM's."""

DIFFUSERS = (
    "DDIMScheduler", "DDIMInverseScheduler", "DDIMParallelScheduler", "DDPMScheduler", "DDPMParallelScheduler",
    "DEISMultistepScheduler", "DPMSolverMultistepScheduler", "DPMSolverMultistepInverseScheduler",
    "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler", "PNDMScheduler", "RePaintScheduler", "SASolverScheduler", "UniPCMultistepScheduler",
    *_DEFAULTS,
)  # fmt: skip
"""diffusers' schedulers of this family."""

MONAI = ("DDPMScheduler", "DDIMScheduler", "PNDMScheduler")
"""MONAI's schedulers of this family."""

_FOREIGN = (
    "sigma_data", "sigma_min", "sigma_max", "sigma_schedule", "shift", "snr_shift_scale", "snr", "scaler", "beta_min",
    "beta_max", "entropy_bound", "num_vec_classes", "use_discrete_timesteps", "use_timestep_transform",
)  # fmt: skip
"""Keys that only other families use; null where diffusers writes them for this one."""
_READ = (
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type", "timestep_spacing", "steps_offset",
)  # fmt: skip
"""Keys of diffusers that a schedule depends on."""
_MONAI_READ = (
    "num_train_timesteps", "schedule", "beta_start", "beta_end", "sig_range", "prediction_type", "steps_offset",
)  # fmt: skip
"""The same of MONAI."""
_ALIKE = frozenset((*_FOREIGN, "timestep_scaling", "timestep_type", "timestep_post_process", "original_steps_offset"))
"""Keys of diffusers and MONAI that look like one of these and are another."""
_NEAR = 0.85  # likeness from which an unknown key is a known one misspelt
_SIGMOID_RANGE, _COSINE_OFFSET = 6.0, 8e-3


def diffusers_table(config: Mapping[str, Any]) -> Table:
    """alpha_t^2 for t = 1 .. T of a diffusers configuration; keys that are missing as its class has them.

    Raises:
        InputError: a scheduler of another family, an unknown beta schedule, or a key that is one of these misspelt.
    """
    name = str(config.get("_class_name") or "")
    _check_keys("config", config, _READ)
    _check_family(name, config)
    betas = _betas({**_DEFAULTS.get(name, {}), **config})
    if config.get("rescale_betas_zero_snr"):
        root = np.sqrt(np.cumprod(1 - betas))
        return np.asarray(((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2)
    return np.asarray(np.cumprod(1 - betas))


def _check_keys(what: str, config: Mapping[str, Any], read: Sequence[str]) -> None:
    """Refuse keys that are almost those that are read: passed over, they would leave a default in force."""
    for key in [key for key in config if key not in read and key not in _ALIKE]:
        if near := difflib.get_close_matches(str(key).lower(), read, n=1, cutoff=_NEAR):
            raise InputError(f"{what}: expected the keys of a scheduler, got {key!r}; is {near[0]} meant?")


def _check_family(name: str, config: Mapping[str, Any]) -> None:
    """Refuse what is not of this family.

    A configuration that a scheduler object hands out has no class name, but all of its keys, so one without betas is of
    another family; diffusers marks it by `_use_default_values`.
    """
    foreign = [key for key in _FOREIGN if config.get(key) is not None]
    whole = "_use_default_values" in config
    if "FlowMatch" in name or config.get("use_flow_sigmas"):
        raise InputError(f"config: expected a variance-preserving scheduler, got flow matching ({name or 'flow'})")
    if name and name not in DIFFUSERS:
        raise InputError(
            f"config: expected a scheduler with a table of betas, one of {sorted(DIFFUSERS)}, got {name}; with another "
            "one a network was trained on noise of another form"
        )
    if foreign or (whole and "beta_schedule" not in config):
        got = f"the keys {foreign}" if foreign else f"no beta_schedule among {sorted(config)}"
        raise InputError(f"config: expected a variance-preserving scheduler with a table of betas, got {got}")
    if config.get("timestep_type", "discrete") != "discrete":
        raise InputError(f"config.timestep_type: expected discrete time steps, got {config['timestep_type']!r}")


def _betas(config: Mapping[str, Any]) -> Table:
    n = int(config.get("num_train_timesteps", 1000))
    first, last = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 0.02))
    kind = config.get("beta_schedule", "linear")
    if config.get("trained_betas") is not None:
        return np.asarray(config["trained_betas"], dtype=np.float64)
    if kind == "linear":
        return np.linspace(first, last, n)
    if kind == "scaled_linear":
        return np.asarray(np.linspace(first**0.5, last**0.5, n) ** 2)
    if kind == "squaredcos_cap_v2":
        return _cosine(n, 0.008)
    raise InputError(f"config.beta_schedule: expected linear, scaled_linear or squaredcos_cap_v2, got {kind!r}")


def _cosine(n: int, offset: float) -> Table:
    """Betas of the cosine schedule (Nichol, Dhariwal, 2021)."""
    level = np.cos((np.arange(n + 1) / n + offset) / (1 + offset) * np.pi / 2) ** 2
    return np.asarray(np.minimum(1 - level[1:] / level[:-1], 0.999))


def monai_table(scheduler: object) -> tuple[Table, str]:
    """alpha_t^2 for t = 1 .. T of a MONAI scheduler, and its `prediction_type`.

    Args:
        scheduler: The object, or the keywords that make one, as a MONAI bundle writes them (with or without
            `_target_`).

    Raises:
        InputError: flow matching, or keywords that name an unknown schedule.
    """
    if isinstance(scheduler, Mapping):
        _check_keys("scheduler", scheduler, _MONAI_READ)
        betas, prediction = _monai_betas(scheduler), scheduler.get("prediction_type", "epsilon")
    elif isinstance(found := getattr(scheduler, "betas", None), Tensor):
        betas, prediction = found.detach().cpu().double().numpy(), getattr(scheduler, "prediction_type", "epsilon")
    else:
        raise InputError(f"scheduler: expected one of MONAI's {list(MONAI)}, got {type(scheduler).__name__}")
    return np.asarray(np.cumprod(1 - betas)), str(prediction)


def _monai_betas(config: Mapping[str, Any]) -> Table:
    """Betas of MONAI's keywords, in its single precision."""
    name = str(config.get("_target_", MONAI[0])).rpartition(".")[2]
    kind, n = config.get("schedule", "linear_beta"), int(config.get("num_train_timesteps", 1000))
    first, last = float(config.get("beta_start", 1e-4)), float(config.get("beta_end", 2e-2))
    if name not in MONAI:
        raise InputError(f"scheduler: expected one of MONAI's {list(MONAI)}, got {name}")
    if kind == "linear_beta":
        return _double(torch.linspace(first, last, n))
    if kind == "scaled_linear_beta":
        return _double(torch.linspace(first**0.5, last**0.5, n) ** 2)
    if kind == "sigmoid_beta":
        span = float(config.get("sig_range", _SIGMOID_RANGE))
        return _double(torch.sigmoid(torch.linspace(-span, span, n)) * (last - first) + first)
    if kind == "cosine":
        return _cosine(n, float(config.get("s", _COSINE_OFFSET)))
    known = "linear_beta, scaled_linear_beta, sigmoid_beta or cosine"
    raise InputError(f"scheduler.schedule: expected {known}, got {kind!r}")


def _double(betas: Tensor) -> Table:
    return np.asarray(betas.double().numpy())

"""How a denoiser is kept: its network, its schedule as diffusers writes it, the number of its labels."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.core.schedule import Schedule
from cfx.models.kinds import MODEL, Kind, Manifest
from cfx.models.registry import build


def make(manifest: Manifest) -> Denoiser:
    """The denoiser of a manifest."""
    schedule, network = Schedule.from_diffusers(manifest.schedule), build(manifest.name, **manifest.config)
    return Denoiser(network, schedule, classes=manifest.labels, shape=manifest.shape)


def facts(model: nn.Module) -> Mapping[str, Any]:
    """Labels, schedule and shape of a denoiser.

    Raises:
        InputError: not a `Denoiser`.
    """
    m = _denoiser(model)
    return {"labels": m.classes, "schedule": dict(m.schedule.to_diffusers()), "shape": m.shape}


def parts(model: nn.Module) -> Mapping[str, nn.Module]:
    """The network; errors as `facts`."""
    return {MODEL: _denoiser(model).network}


def _denoiser(model: nn.Module) -> Denoiser:
    if not isinstance(model, Denoiser):
        raise InputError(f"model: expected a Denoiser, got {type(model).__name__}")
    return model


DENOISER = Kind(
    "A denoising diffusion model of images: generates, inverts and edits images for counterfactuals.",
    network="denoiser",
    make=make,
    parts=parts,
    facts=facts,
)

"""Kinds of checkpoints by name: what wraps a network, which facts build it again, which parts hold weights.

A kind is one object of type `Kind` in the file of what it returns, and one line below.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, cast

from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from cfx.core.errors import InputError
from cfx.models.registry import build

SCHEMA = 1
MODEL = "model"
"""The part that `build(name, **config)` makes: what is trained, and what other runs may start from."""

KINDS: dict[str, str] = {
    "denoiser": "cfx.models.denoiser:DENOISER",
    "latent": "cfx.models.latent:LATENT",
    "vae": "cfx.models.autoencoder:VAE",
    "classifier": "cfx.models.classifiers:CLASSIFIER",
    "regressor": "cfx.models.regressor:REGRESSOR",
    "segmenter": "cfx.models.segmenters:SEGMENTER",
    "features": "cfx.models.features:FEATURES",
    "mask-sampler": "cfx.models.samplers.sampler:MASK_SAMPLER",
}
"""Name of each kind, and where its `Kind` is."""


class Manifest(BaseModel):
    """The contents of `cfx.json`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    schema_version: int = SCHEMA
    """Version of this format."""
    kind: str
    """What the model is for, one of `KINDS`."""
    name: str
    """Registry name of the network."""
    config: dict[str, Any]
    """Keywords that build it."""
    shape: tuple[int, ...] | None = None
    """Images it accepts, `(c, *space)`; None for any."""
    classes: tuple[str, ...] = ()
    """Names of the labels, in order."""
    multilabel: bool = False
    """Whether a classifier's logits are independent labels."""
    labels: int | None = None
    """Number of labels a denoiser is conditioned on; None for an unconditional one."""
    schedule: dict[str, Any] | None = None
    """diffusers scheduler configuration of a denoiser."""
    facts: dict[str, Any] = Field(default_factory=dict)
    """What else its kind needs: the units of a regressor, the autoencoder of a latent generator."""
    provenance: dict[str, Any] = Field(default_factory=dict)
    """Where the weights come from: command, config, steps, versions, git commit, figures."""
    files: dict[str, str] = Field(default_factory=dict)
    """SHA-256 of the other files."""


def _bare(manifest: Manifest) -> nn.Module:
    return build(manifest.name, **manifest.config)


def _whole(model: nn.Module) -> dict[str, nn.Module]:
    return {MODEL: model}


def _nothing(model: nn.Module) -> dict[str, Any]:
    return {}


@dataclass(frozen=True)
class Kind:
    """How checkpoints of one kind are written and read; by default the network is the model.

    Attributes:
        use: What a model of this kind does, for its card.
        network: Kind of network it is made of, see `cfx.models.registry`.
        make: The model of a manifest, its weights still to be loaded. A fact that is missing is an InputError.
        parts: The parts of a model that hold weights, one file each; `MODEL` is the network that the manifest names.
        facts: Fields of the manifest that the model itself knows. A model of another kind is an InputError.
    """

    use: str
    network: str
    make: Callable[[Manifest], nn.Module] = _bare
    parts: Callable[[nn.Module], Mapping[str, nn.Module]] = _whole
    facts: Callable[[nn.Module], Mapping[str, Any]] = _nothing


def find(kind: str) -> Kind:
    """The kind of that name.

    Raises:
        InputError: no such kind.
    """
    if kind not in KINDS:
        raise InputError(f"kind: expected one of {sorted(KINDS)}, got {kind!r}")
    module, attribute = KINDS[kind].split(":")
    return cast(Kind, getattr(import_module(module), attribute))

"""Objectives by name. Their files import no network library: that is left until a network is built."""

from importlib import import_module
from typing import cast

from cfx.training.objectives import ObjectiveConfig

OBJECTIVES: dict[str, str] = {
    "diffusion": "cfx.training.diffusion:DiffusionConfig",
    "vae": "cfx.training.autoencode:VaeConfig",
    "classifier": "cfx.training.classify:ClassifierConfig",
    "duq": "cfx.training.duq:DuqConfig",
    "latent": "cfx.training.latent:LatentConfig",
    "regressor": "cfx.training.regress:RegressorConfig",
    "segmenter": "cfx.training.segment:SegmenterConfig",
    "features": "cfx.training.contrast:FeaturesConfig",
    "masks": "cfx.training.masks:MasksConfig",
}
"""`objective.kind` of a configuration, and where its class is."""


def objective_configs() -> tuple[type[ObjectiveConfig], ...]:
    """The configuration classes of all objectives."""
    places = (place.split(":") for place in OBJECTIVES.values())
    return tuple(cast(type[ObjectiveConfig], getattr(import_module(module), name)) for module, name in places)

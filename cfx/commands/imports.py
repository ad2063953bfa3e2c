"""A network of MONAI, monai-generative or diffusers, written as a checkpoint folder of cfx."""

from cfx.models.importing import import_network
from cfx.models.kinds import Manifest
from cfx.models.opening import NetworkSpec
from cfx.runtime.config import RunConfig


class ImportConfig(RunConfig):
    """Which network to write as a checkpoint."""

    source: NetworkSpec
    """A state dict with the name and keywords of its network, or a folder of diffusers."""
    classes: tuple[str, ...] = ()
    """Names of the labels, in order."""
    multilabel: bool = False
    """Whether a classifier's logits are independent findings."""


def import_run(config: ImportConfig) -> Manifest:
    """Write the checkpoint into the run's folder.

    Raises:
        InputError, CheckpointError: as `cfx.models.importing.import_network`.
    """
    return import_network(config.source, config.folder, classes=config.classes, multilabel=config.multilabel)


CONFIG = ImportConfig


def command(config: ImportConfig, words: str) -> str:
    """Write, and say what."""
    manifest = import_run(config)
    return f"wrote {config.folder}: a {manifest.kind} ({manifest.name}), with cfx.json, README.md and its weights"

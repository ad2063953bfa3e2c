"""The same training under several seeds: what a way of training does, beyond one lucky network."""

from torch import nn

from cfx.core.cohort import Source
from cfx.core.errors import CfxError, InputError
from cfx.data import open_cohort
from cfx.models import load
from cfx.training.config import TrainConfig
from cfx.training.loop import train


def train_seeds(config: TrainConfig, seeds: int, cohort: Source | None = None) -> list[nn.Module]:
    """Train `seeds` networks that differ in their seed alone (initial weights, order, augmentation), on the same rows.

    Each has its folder `<folder>/seed-<k>` and resumes there; finished ones are not trained again.

    Args:
        config: The run; its own seed is the first.
        seeds: Number of networks.
        cohort: Training rows; read from `config.data` by default.

    Returns:
        The networks of the checkpoints, in evaluation mode.

    Raises:
        InputError: no seeds, or as `train`.
        CfxError: a run was interrupted; the same call resumes.
    """
    if seeds < 1:
        raise InputError(f"seeds: expected at least one, got {seeds}")
    if cohort is None and config.data is not None:
        cohort = open_cohort(config.data)
    networks = []
    for k in range(seeds):
        each = {"seed": config.seed + k, "name": f"{config.name}-{k}", "out": str(config.folder / f"seed-{k}")}
        result = train(config.model_copy(update=each), cohort)
        if result.checkpoint is None:
            raise CfxError(f"seed {k}: interrupted at step {result.step} of {config.steps}; the same command resumes")
        networks.append(load(result.checkpoint).eval())
    return networks

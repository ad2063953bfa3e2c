"""What a training run is: frozen, complete, and the same object from YAML, the command line and Python."""

from collections.abc import Mapping
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from cfx.core.cohort import Source
from cfx.core.errors import InputError
from cfx.data import DataConfig
from cfx.models import kind
from cfx.models.kinds import find
from cfx.models.registry import WEIGHTS_ONLY
from cfx.runtime.config import RunConfig, check, read_as
from cfx.training.objectives import NetworkConfig, Objective, ObjectiveConfig
from cfx.training.optimizer import OptimizerConfig
from cfx.training.registry import objective_configs

if TYPE_CHECKING:
    AnyObjective = ObjectiveConfig
else:
    AnyObjective = Annotated[reduce(or_, objective_configs()), Field(discriminator="kind")]


_ENDLESS = 10_000  # warm-ups that a run is part of: its rate stays below so small a share of the highest


class TrainConfig(RunConfig):
    """One training run; its name is that of the checkpoint, its folder holds state, logs and the checkpoint."""

    card: str = ""
    """Opening text of the model card: intended use, data, limits."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    data: DataConfig | None = None
    """Training cohort; None only where the Python caller hands one over."""
    validation: DataConfig | float = Field(default=0.1)
    """Held-out cohort, or the share of the training cohort to hold out."""
    network: NetworkConfig
    """The network to train."""
    init: str | None = None
    """Checkpoint folder whose weights the network starts from; None draws them at random."""
    objective: AnyObjective
    """What the network learns."""
    optimizer: OptimizerConfig = Field(default_factory=OptimizerConfig)
    """How it learns."""
    batch_size: int = Field(default=32, ge=1)
    """Rows a step, over all processes and accumulated parts."""
    steps: int = Field(ge=1, le=10**9)
    """Optimizer steps."""
    accumulate: int = Field(default=1, ge=1)
    """Parts in which each process handles its share of a batch; results do not depend on it."""
    clip: float | None = Field(default=1.0, gt=0)
    """Largest gradient norm; None does not clip."""
    ema: float | None = Field(default=0.9999, gt=0, lt=1)
    """Largest decay of the averaged weights (with warm-up); None keeps the last weights."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    """Mixed precision."""
    save_every: int = Field(default=500, ge=1)
    """Steps between saved states."""
    log_every: int = Field(default=50, ge=1)
    """Steps between log lines."""
    trackers: tuple[str, ...] = ()
    """Accelerate trackers besides the run's own `log.jsonl` (`tensorboard`, `wandb`, ... where installed)."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        """Values that no single field can check."""
        if isinstance(self.validation, float) and not 0 <= self.validation < 1:
            raise ValueError(f"validation: expected a share in [0, 1), got {self.validation}")
        if self.optimizer.warmup > _ENDLESS * self.steps:
            raise ValueError(
                f"optimizer.warmup: expected a warm-up that gets somewhere in {self.steps} steps, got "
                f"{self.optimizer.warmup}"
            )
        if self.batch_size % self.accumulate:
            raise ValueError(f"batch_size: expected a multiple of accumulate={self.accumulate}, got {self.batch_size}")
        return self

    def dump(self) -> dict[str, Any]:
        """Plain values, ready for YAML or JSON."""
        return self.model_dump(mode="json")


def read_config(path: str | Path, overrides: Mapping[str, str] | None = None) -> TrainConfig:
    """Read the YAML file of a training run, with dotted overrides on top; errors as `read_as`."""
    return read_as(TrainConfig, path, overrides)


def check_config(values: Mapping[str, Any], source: str = "values") -> TrainConfig:
    """A `TrainConfig` of plain values.

    Raises:
        InputError: naming every offending dotted key of `source`.
    """
    return check(TrainConfig, values, source)


def make_objective(config: TrainConfig, cohort: Source) -> Objective:
    """The objective of a run on these training rows.

    Raises:
        InputError: the cohort or the network does not suit it.
    """
    if instead := WEIGHTS_ONLY.get(config.network.name):
        name = config.network.name
        raise InputError(f"network.name: {name} is a name for weights from elsewhere (cfx import); train {instead}")
    wanted = find(config.objective.trains).network
    if kind(config.network.name) != wanted:
        raise InputError(f"network {config.network.name}: objective {config.objective.kind} expects a {wanted}")
    return config.objective.make(config.network, cohort, config.steps)

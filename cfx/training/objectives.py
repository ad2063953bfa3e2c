"""What a network is trained for. An objective names its players, each with its own loss; the loop does the rest.

An objective is one file: its configuration, a subclass of `ObjectiveConfig` that makes it, and the class that the loop
asks; and one line in `cfx.training.registry`. All randomness is keyed by a row's slot (its position in the whole run's
sequence of rows), so a loss does not depend on how a batch is split over processes or parts.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from cfx.core.cohort import Cohort, Source
from cfx.core.errors import InputError
from cfx.runtime.config import Frozen

ORDER, NOISE, TIME, LABEL, AUGMENT, REMEDY, STREAMS = range(7)
"""Streams of the counter-based generator; `ORDER` needs one an epoch and is keyed apart by the loop. A further view of
a row takes streams that are `STREAMS` higher."""

Networks = Mapping[str, nn.Module]
Scores = dict[str, Tensor]


class NetworkConfig(BaseModel):
    """A registry name and that network's own keywords (the spatial dims and channels come from the data)."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    name: str
    """Registry name, see `cfx.models.BUILDERS`."""

    @property
    def keywords(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


@dataclass(frozen=True)
class Batch:
    """Rows of a step.

    Attributes:
        x: Images `(b, c, *space)` in [-1, 1].
        y: What the network is to say of each row (labels `(b,)` or `(b, k)`, values, masks), None for nothing.
        slot: Position of every row in the run's sequence of rows; keys its randomness.
        seed: The run's seed.
        step: Optimizer step, from 0.
        row: Row of the cohort that each is.
    """

    x: Float[Tensor, "b c *space"]
    y: Tensor | None
    slot: Int[Tensor, " b"]
    seed: int
    step: int
    row: Int[Tensor, " b"]


@runtime_checkable
class Objective(Protocol):
    """What the loop needs. `main` is the player whose (averaged) weights become the checkpoint."""

    network_config: dict[str, Any]

    def players(self) -> dict[str, nn.Module]:
        """Freshly initialised networks by name, `main` first."""

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean loss of one player over the rows, and detached scalars to log; only its own weights need gradients."""

    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Figures of the main network on held-out rows."""

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The model to save and the keywords for `cfx.models.save`."""


class ObjectiveConfig(Frozen):
    """Base of the objectives' configurations; `kind` is a literal of its own in each."""

    trains: ClassVar[str]
    """Kind of checkpoint that comes out, see `cfx.models.kinds`."""

    kind: str
    """Which objective this is."""

    def target(self, cohort: Cohort) -> Tensor | None:
        """What the network is to say of each row, `Batch.y`; the labels unless an objective asks for something else."""
        return cohort.y

    def check_sides(self, cohort: Source, held_out: Source, split: bool) -> None:
        """Refuse training and held-out rows that do not suit each other; by default none are refused.

        Args:
            cohort: Training rows.
            held_out: Held-out rows.
            split: Whether both are parts of one cohort.
        """

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> Objective:
        """The objective for these training rows.

        Args:
            network: The network to train.
            cohort: Training rows.
            steps: Steps of the run.

        Raises:
            InputError: the cohort does not suit it.
        """
        raise NotImplementedError


def data_keywords(network: NetworkConfig, shape: Sequence[int]) -> dict[str, Any]:
    """A network's keywords with those that images of shape `(c, *space)` decide."""
    return {"spatial_dims": len(shape) - 1, "in_channels": shape[0]} | network.keywords


def whole_batch(cohort: Cohort, seed: int, start: int, device: torch.device, y: Tensor | None = None) -> Batch:
    """A cohort as one batch whose slots count from `start`; labelled as it is unless `y` is given."""
    y = cohort.y if y is None else y
    slots = torch.arange(start, start + len(cohort), device=device)
    return Batch(cohort.x.to(device), None if y is None else y.to(device), slots, seed, 0, slots)


def whole_batches(objective: ObjectiveConfig, network: nn.Module, cohort: Source, seed: int) -> Iterator[Batch]:
    """A cohort in batches of 64 on the network's device, with what the objective asks for."""
    device = next(network.parameters()).device
    for start in range(0, len(cohort), 64):
        part = cohort[start : start + 64]
        yield whole_batch(part, seed, start, device, objective.target(part))


def check_labels(cohort: Source, classes: int) -> None:
    """Refuse a cohort without class labels in 0 .. classes-1.

    Raises:
        InputError: no labels, several labels a row, or a label out of range.
    """
    if cohort.y is None or cohort.y.ndim != 1:
        raise InputError("cohort.y: expected one class label a row, got " + ("none" if cohort.y is None else "several"))
    low, high = int(cohort.y.min()), int(cohort.y.max())
    if low < 0 or high >= classes:
        raise InputError(f"cohort.y: expected classes 0 .. {classes - 1}, got {low} .. {high}")

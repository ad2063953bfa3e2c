"""Adversaries: second players that read a confounder from a classifier's pooled features.

The gradient of a squared correlation is not a mean over rows, and r^2 within b rows exceeds rho^2 by 1 / (b - 1) on
average. With z the standardised prediction and c standardised, the gradient of rho^2 is that of

    2 rho E[c z - rho z^2 / 2],    rho and the standardisation held fixed,

so these are read from `REFERENCE` other rows of each class, drawn anew at every step and seen without gradients. Their
error is independent of the batch, which leaves a bias of order 1 / REFERENCE whatever the batch; and what remains is a
mean over rows: as everywhere in training, the result does not depend on parts, processes or resuming, and nothing is
gathered.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from cfx.core.cohort import Source
from cfx.core.errors import InputError
from cfx.models.classifiers import Staged
from cfx.training.objectives import Batch, Scores
from cfx.training.order import Classes, at, drawn

REFERENCE = 32
"""Rows of each class that tell the present correlation."""
_HIDDEN = 64
_TINY = 1e-5
_REFERENCE_SEED = 0x5EED_0C0F  # sets the draws of the reference rows apart from those of the batch

Look = Callable[[Batch], Float[Tensor, "b d"]]
"""The pooled features of a batch, as the classifier sees it in training."""


@runtime_checkable
class Adversary(Protocol):
    """A second network that reads the confounder from the features, and what the classifier pays for it."""

    def network(self, width: int) -> nn.Module:
        """A new adversary for this many features."""

    def loss(self, network: nn.Module, features: Float[Tensor, "b d"], batch: Batch) -> Tensor:
        """What the adversary minimises, a mean over rows."""

    def penalty(
        self, network: nn.Module, features: Float[Tensor, "b d"], batch: Batch, look: Look
    ) -> tuple[Tensor, Scores]:
        """What the classifier minimises besides its cross-entropy, a mean over rows, and scalars to log."""


@dataclass(frozen=True)
class Reversal:
    """Gradient reversal, written as two players: the gradients are those of the reversal layer.

    Attributes:
        group: Group of the confounder of every row.
        weight: Weight of the adversary's cross-entropy after the last step.
        steps: Steps of the run; the weight rises as in Ganin et al. (2016).
    """

    group: Int[Tensor, " n"]
    weight: float
    steps: int

    def network(self, width: int) -> nn.Module:
        """Two layers from features to the logits of the groups."""
        return _two_layers(width, int(self.group.max()) + 1)

    def loss(self, network: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """Cross-entropy of the groups (nats)."""
        return functional.cross_entropy(network(features), at(self.group, batch.row))

    def penalty(self, network: nn.Module, features: Tensor, batch: Batch, look: Look) -> tuple[Tensor, Scores]:
        """Less that cross-entropy."""
        entropy = self.loss(network, features, batch)
        risen = 2 / (1 + math.exp(-10 * batch.step / self.steps)) - 1
        return -self.weight * risen * entropy, {"confounder_loss": entropy.detach()}


@dataclass(frozen=True)
class Decorrelation:
    """Squared correlation within classes.

    Attributes:
        cohort: The training rows.
        c: The confounder of every row, of mean 0 and variance 1 in each class.
        place: Number of every row's class among those that occur.
        classes: The rows of each.
        weight: Weight of the squared correlation.
    """

    cohort: Source
    c: Float[Tensor, " n"]
    place: Int[Tensor, " n"]
    classes: Classes
    weight: float

    def network(self, width: int) -> nn.Module:
        """Two layers from features to one prediction of c a class."""
        return _two_layers(width, len(self.classes.count))

    def loss(self, network: nn.Module, features: Tensor, batch: Batch) -> Tensor:
        """Mean squared error of the prediction for each row's own class."""
        return (self._predicted(network, features, batch) - at(self.c, batch.row)).square().mean()

    def penalty(self, network: nn.Module, features: Tensor, batch: Batch, look: Look) -> tuple[Tensor, Scores]:
        """A mean over rows with the gradient of rho^2, averaged over classes by their rows; logs rho^2 itself."""
        other = self.reference(batch)
        with torch.no_grad():
            p = self._predicted(network, look(other), other).view(-1, len(self.classes.count))
        mean, deviation = p.mean(0), (p.var(0) + _TINY).sqrt()
        rho = (at(self.c, other.row).view_as(p) * (p - mean)).sum(0) / (len(p) - 1) / deviation
        k = at(self.place, batch.row)
        z = (self._predicted(network, features, batch) - mean[k]) / deviation[k]
        pull = 2 * rho[k] * (at(self.c, batch.row) * z - rho[k] * z.square() / 2)
        return self.weight * pull.mean(), {"squared_correlation": rho.square().mean()}

    def reference(self, batch: Batch) -> Batch:
        """The rows of this step that tell the correlation, the classes in turn; the same for every part and process."""
        return drawn(self.cohort, self.classes, REFERENCE, batch, _REFERENCE_SEED)

    def _predicted(self, network: nn.Module, features: Tensor, batch: Batch) -> Float[Tensor, " b"]:
        p: Tensor = network(features).float().gather(1, at(self.place, batch.row)[:, None])
        return p[:, 0]


def decorrelation(cohort: Source, c: Float[Tensor, " n"], weight: float) -> Decorrelation:
    """The adversary for a labelled cohort, with its confounder c standardised within each class.

    Raises:
        InputError: a confounder that is constant within a class.
    """
    assert cohort.y is not None
    place = cohort.y.unique(return_inverse=True)[1]
    member = functional.one_hot(place).to(c)
    mean = (member.T @ c) / member.sum(0)
    deviation = ((member.T @ (c - mean[place]).square()) / member.sum(0)).sqrt()
    if not bool((deviation > 0).all()):
        raise InputError("confounder: expected values that vary within every class")
    return Decorrelation(cohort, (c - mean[place]) / deviation[place], place, Classes.of(cohort.y), weight)


def _two_layers(width: int, out: int) -> nn.Module:
    """Two layers on features of standard scale, which the classifier therefore cannot hide by scaling."""
    scale = nn.LayerNorm(width, elementwise_affine=False)
    return nn.Sequential(scale, nn.Linear(width, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, out))


def staged(network: nn.Module) -> Staged:
    """The classifier inside a network that may be wrapped for distribution.

    Raises:
        InputError: there is none.
    """
    found = next((m for m in network.modules() if isinstance(m, Staged)), None)
    if found is None:
        raise InputError("network: expected one whose pooled features an adversary can read (cnn, convnext, densenet)")
    return found


@contextmanager
def pooled(network: nn.Module) -> Iterator[list[Tensor]]:
    """Collect the pooled features of every forward pass.

    A distributed network has to be called as a whole for its gradients to be averaged, so they are caught on the way.
    """
    found: list[Tensor] = []
    handle = staged(network).head.register_forward_pre_hook(lambda _, inputs: found.append(inputs[0]))
    try:
        yield found
    finally:
        handle.remove()

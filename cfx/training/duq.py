"""Training of classifiers by kernels round class centroids (van Amersfoort et al., 2020, arXiv 2003.02037; DUQ).

The loss is the binary cross-entropy of the kernels and, on both sides, the slope of their sum in the image:

    BCE(K(x), y) + lambda (|grad_x sum_k K_k(x)| - 1)^2.

The second term keeps features from falling together, so that an image unlike all others stays far from all centroids.
Centroids are averages that forget: after step t, e_k = sum_i gamma^(t - i) m_ik / sum_i gamma^(t - i), with m_ik the
mean of W_k z over the rows of class k that step i looks at. Those are drawn anew at every step, as many of each class
and the same for all parts and processes, and seen without gradients: what remains is a mean over rows, and nothing is
gathered. The published form weighs a batch's own rows, with sums and counts apart; as classes are drawn in equal
numbers, the counts cancel. It costs a forward pass of those rows and a second differentiation a step.
"""

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from cfx.core.cohort import Source
from cfx.core.errors import InputError
from cfx.models import build
from cfx.models.heads import Rbf
from cfx.training.adversaries import pooled, staged
from cfx.training.augment import augment
from cfx.training.classify import LabelledConfig, classes_of
from cfx.training.losses import kernel_entropy, unit_slope
from cfx.training.objectives import Batch, NetworkConfig, Networks, Scores, data_keywords, whole_batches
from cfx.training.order import Classes, drawn

_CENTROID_SEED = 0x5EED_0C11  # sets the draws of the rows that move the centroids apart from those of the batch


class DuqConfig(LabelledConfig):
    """Classification by kernels round centroids (DUQ); needs a network with `head: rbf`."""

    kind: Literal["duq"]
    """Which objective this is."""
    penalty: float = Field(default=0.05, ge=0)
    """lambda, weight of the gradient penalty."""
    gamma: float = Field(default=0.999, ge=0, lt=1)
    """What a step leaves of the weights of earlier rows in the centroids."""
    rows: int = Field(default=8, ge=1)
    """Rows of each class that move the centroids at every step."""

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "DuqObjective":
        """Classification of the cohort's images.

        Raises:
            InputError: no exclusive labels, or fewer than two classes.
        """
        return DuqObjective(self, network, cohort)


class DuqObjective:
    """Kernels and their slope.

    Args:
        config: The objective.
        network: The network to train.
        cohort: Training rows.
    """

    def __init__(self, config: DuqConfig, network: NetworkConfig, cohort: Source) -> None:
        """See the class."""
        self.config, self.name, self.cohort, self.shape = config, network.name, cohort, cohort.shape
        self.network_config = data_keywords(network, self.shape) | {"out_channels": classes_of(cohort)}
        assert cohort.y is not None
        self.present, self.classes = cohort.y.unique(), Classes.of(cohort.y)
        self.moved = -1  # the step that moved the centroids last, for they move once a step, not once a part

    def players(self) -> dict[str, nn.Module]:
        """The classifier.

        Raises:
            InputError: its head has no centroids.
        """
        main = build(self.name, **self.network_config)
        if not isinstance(getattr(main, "head", None), Rbf):
            raise InputError(f"network.head: expected rbf for objective duq, got {type(main).__name__} without it")
        return {"main": main}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean cross-entropy of the kernels of augmented images (nats), and the penalty."""
        assert batch.y is not None  # checked when the objective was made
        network = networks[player]
        if self.moved != batch.step:
            self._move(network, batch)
            self.moved = batch.step
        x = augment(self.config, batch).requires_grad_(self.config.penalty > 0)
        log_k = network(x)
        loss = kernel_entropy(log_k, batch.y).mean()
        scores = {"accuracy": (log_k.detach().argmax(1) == batch.y).float().mean()}
        if self.config.penalty:
            slope = unit_slope(log_k.exp().sum(1), x).mean()
            loss, scores["slope"] = loss + self.config.penalty * slope, slope.detach()
        return loss, scores

    @torch.no_grad()
    def _move(self, network: nn.Module, batch: Batch) -> None:
        """Let the rows of this step move the centroids."""
        other = drawn(self.cohort, self.classes, self.config.rows, batch, _CENTROID_SEED)
        with pooled(network) as features:
            network(augment(self.config, other))
        head = staged(network).head
        assert isinstance(head, Rbf)
        mean = self._means(head.embed(features[0])).to(head.centroids)
        gamma, present = self.config.gamma, self.present.to(mean.device)
        head.moves += 1
        share = (1 - gamma) / (1 - gamma ** int(head.moves))
        head.centroids[present] = torch.lerp(head.centroids[present], mean, share)

    def _means(self, embedded: Float[Tensor, "m k n"]) -> Float[Tensor, "p n"]:
        """Mean of each class that occurs, in its own coordinates, over rows that are of these classes in turn."""
        by_class = embedded.view(self.config.rows, len(self.present), *embedded.shape[1:]).mean(0)
        place = torch.arange(len(self.present), device=embedded.device)
        return by_class[place, self.present.to(embedded.device)]

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Cross-entropy of the kernels and accuracy, without augmentation."""
        assert cohort.y is not None
        log_k = torch.cat([network(b.x).cpu() for b in whole_batches(self.config, network, cohort, seed)])
        right = (log_k.argmax(1) == cohort.y).float().mean()
        return {"loss": float(kernel_entropy(log_k, cohort.y).mean()), "accuracy": float(right)}

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The classifier with the names of its classes; its logits are the logarithms of the kernels."""
        return network, {"shape": self.shape, "classes": tuple(cohort.classes)}

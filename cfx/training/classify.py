"""Training of classifiers: cross-entropy on one logit, K logits or K labels, with augmentations that keep the label.

A remedy (`cfx.training.remedies`) may weigh rows, reshape images, or add an adversary as second player.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from cfx.core.cohort import Source
from cfx.core.errors import InputError
from cfx.core.random import normal, uniform
from cfx.core.scores import auroc
from cfx.models import build
from cfx.models.running import BATCH, in_batches
from cfx.training.adversaries import pooled, staged
from cfx.training.config import ClassifierConfig, TrainConfig
from cfx.training.objectives import AUGMENT, NOISE, Batch, Networks, Scores, check_labels, data_keywords
from cfx.training.remedies import make_remedy


class ClassifierObjective:
    """Cross-entropy."""

    def __init__(self, config: TrainConfig, objective: ClassifierConfig, cohort: Source) -> None:
        """Count the classes.

        Raises:
            InputError: no labels, labels of the wrong kind, or a cohort (or a label of several) with only one class.
        """
        self.objective, self.name = objective, config.network.name
        self.shape = cohort.shape
        self.width = _width(objective, cohort)
        self.network_config = data_keywords(config, cohort) | {"out_channels": self.width}
        self.remedy = make_remedy(objective.remedy, cohort, config.steps)

    def players(self) -> dict[str, nn.Module]:
        """The classifier, and the adversary if the remedy has one."""
        main = build(self.name, **self.network_config)
        if self.remedy.adversary is None:
            return {"main": main}
        return {"main": main, "adversary": self.remedy.adversary.network(staged(main).head.in_features)}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean cross-entropy (nats) of augmented images with what the remedy adds, or the adversary's loss."""
        assert batch.y is not None  # checked when the objective was made
        adversary = self.remedy.adversary
        logits, features = self._look(networks["main"], batch)
        if adversary is not None and player != "main":
            return adversary.loss(networks[player], features, batch), {}
        each = self._entropy(logits, batch.y, self.objective.label_smoothing)
        loss = (self.remedy.weights(batch) * each).mean()
        scores = {"accuracy": self._right(logits.detach(), batch.y).float().mean()}
        if adversary is None:
            return loss, scores

        def look(other: Batch) -> Tensor:
            return self._look(networks["main"], other)[1]

        penalty, more = adversary.penalty(networks["adversary"], features, batch, look)
        return loss + penalty, scores | more

    def _look(self, network: nn.Module, batch: Batch) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"]]:
        """Logits and pooled features of a batch as it is seen in training."""
        with pooled(network) as features:
            logits = network(augment(self.objective, self.remedy.shown(batch)))
        return logits, features[0]

    def _entropy(self, logits: Float[Tensor, "b k"], y: Tensor, smoothing: float) -> Float[Tensor, " b"]:
        if logits.shape[1] > 1 and not self.objective.multilabel:
            return functional.cross_entropy(logits, y, label_smoothing=smoothing, reduction="none")
        target = y.reshape(len(y), -1).to(logits.dtype) * (1 - smoothing) + smoothing / 2
        return functional.binary_cross_entropy_with_logits(logits, target, reduction="none").mean(1)

    def _right(self, logits: Float[Tensor, "b k"], y: Tensor) -> Tensor:
        """Which decisions are right: one a row, or one a label."""
        if logits.shape[1] > 1 and not self.objective.multilabel:
            return logits.argmax(1) == y
        return (logits > 0) == y.reshape(len(y), -1).bool()

    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Cross-entropy and accuracy without augmentation, and the area under the ROC curve of binary decisions."""
        assert cohort.y is not None
        logits = torch.cat([in_batches(network, cohort[i : i + BATCH].x) for i in range(0, len(cohort), BATCH)])
        figures = {"loss": float(self._entropy(logits, cohort.y, 0.0).mean())}
        figures["accuracy"] = float(self._right(logits, cohort.y).float().mean())
        if not self.objective.multilabel and int(cohort.y.max()) == 1 and logits.shape[1] <= 2:
            score = logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0)
            figures["auroc"] = float(auroc(score, cohort.y == 1))
        return figures

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The classifier with the names of its classes."""
        facts = {"shape": self.shape, "classes": tuple(cohort.classes), "multilabel": self.objective.multilabel}
        return network, facts


def _width(objective: ClassifierConfig, cohort: Source) -> int:
    """Number of logits for the labels of a cohort."""
    if cohort.y is None:
        raise InputError("cohort.y: expected labels to train a classifier on, got none")
    if objective.multilabel:
        if cohort.y.ndim != 2:
            raise InputError(f"cohort.y: expected (n, k) labels for multilabel, got shape {tuple(cohort.y.shape)}")
        constant = (cohort.y == cohort.y[:1]).all(0).nonzero().flatten().tolist()
        if constant:
            raise InputError(f"cohort.y: expected both values of every label, labels {constant} never change")
        return cohort.y.shape[1]
    check_labels(cohort, int(1e9))
    present = cohort.y.unique().tolist()
    if len(present) < 2:
        raise InputError(f"cohort.y: expected at least two classes to train a classifier, got only {present}")
    classes = max(len(cohort.classes), max(present) + 1)
    if objective.one_logit and classes != 2:
        raise InputError(f"one_logit: expected two classes, got {classes}")
    return 1 if objective.one_logit else classes


def augment(objective: ClassifierConfig, batch: Batch) -> Float[Tensor, "b c *space"]:
    """Mirrored, shifted, re-contrasted and noised images; every row by its own draws."""
    x, dims = batch.x, batch.x.ndim - 2
    u = uniform((dims + 3,), seed=batch.seed, row=batch.slot, stream=AUGMENT)
    one = (-1, *[1] * (x.ndim - 1))
    if objective.flip:
        x = torch.where((u[:, 0] < 0.5).reshape(one), x.flip(-1), x)
    if objective.shift:
        x = _shift(x, ((2 * objective.shift + 1) * u[:, 3:]).long() - objective.shift)
    x = x * (1 + objective.contrast * (2 * u[:, 1] - 1)).reshape(one)
    if objective.noise:
        noise = normal(x.shape[1:], seed=batch.seed, row=batch.slot, stream=NOISE)
        x = x + objective.noise * u[:, 2].reshape(one) * noise
    return x.clamp(-1, 1)


def _shift(x: Float[Tensor, "b c *space"], by: Tensor) -> Float[Tensor, "b c *space"]:
    """Shift row i by `by[i]` pixels along the spatial axes; edge values are repeated."""
    for axis in range(by.shape[1]):
        size = x.shape[2 + axis]
        index = (torch.arange(size, device=x.device) - by[:, axis, None]).clamp(0, size - 1)
        view = [len(x), 1, *[1] * by.shape[1]]
        view[2 + axis] = size
        x = x.gather(2 + axis, index.reshape(view).expand_as(x))
    return x

"""Training of classifiers: cross-entropy on one logit, K logits or K labels, with augmentations that keep the label.

A remedy (`cfx.training.remedies`) may weigh rows, reshape images, or add an adversary as second player.
"""

from typing import Any, ClassVar, Literal, Self, cast

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from cfx.core.cohort import Source, subject_names
from cfx.core.errors import InputError
from cfx.core.scores import auroc
from cfx.models import build
from cfx.models.heads import Rbf
from cfx.training.adversaries import pooled, staged
from cfx.training.augment import AugmentConfig, augment
from cfx.training.constraints import ConstraintConfig, positive_attribution
from cfx.training.losses import binary_cross_entropy, cross_entropy, focal
from cfx.training.objectives import (
    Batch,
    NetworkConfig,
    Networks,
    Scores,
    check_labels,
    data_keywords,
    whole_batches,
)
from cfx.training.remedies import RemedyConfig, make_remedy


class LabelledConfig(AugmentConfig):
    """An objective that learns the labels of a cohort."""

    trains: ClassVar[str] = "classifier"

    def check_sides(self, cohort: Source, held_out: Source, split: bool) -> None:
        """Refuse held-out rows of a class that is not trained, and a split that holds out none of some class.

        Raises:
            InputError: with the number of images and subjects of every class.
        """
        y, other = cohort.y, held_out.y
        if y is None or other is None or y.ndim != 1 or other.ndim != 1:
            return  # refused as labels when the objective is made
        trained, held = set(y.tolist()), set(other.tolist())
        if lacking := sorted((held - trained) | (trained - held if split else set())):
            names = dict(enumerate(cohort.classes))
            given = f"of classes {[names.get(k, k) for k in lacking]} there are rows on one side only"
            advice = "; give a validation cohort, more subjects of them, or validation: 0" if split else ""
            raise InputError(
                f"validation: {given}{advice}. Training: {_counted(cohort)}. Held out: {_counted(held_out)}"
            )


class ClassifierConfig(LabelledConfig):
    """Classification, with one logit, K logits or K independent labels."""

    kind: Literal["classifier"]
    """Which objective this is."""
    multilabel: bool = False
    """Whether every row has K independent 0/1 labels."""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the target spread evenly over classes."""
    focal: float = Field(default=0.0, ge=0)
    """Exponent gamma of the focal loss, which looks at rows less that are right already; 0 is cross-entropy. Exclusive
    classes without label smoothing."""
    one_logit: bool = False
    """Whether two classes are told apart by one logit instead of two."""
    remedy: RemedyConfig | None = None
    """What keeps it from using a confounder; None for plain training."""
    constraint: ConstraintConfig | None = None
    """What may not be read as disease in healthy images; None for plain training."""

    @model_validator(mode="after")
    def _one_loss(self) -> Self:
        """The focal loss is of one class a row, and of labels as they are."""
        if self.focal and (self.multilabel or self.one_logit or self.label_smoothing):
            raise ValueError("focal: expected neither multilabel nor one_logit nor label_smoothing beside it")
        return self

    def make(self, network: NetworkConfig, cohort: Source, steps: int) -> "ClassifierObjective":
        """Classification of the cohort's images.

        Raises:
            InputError: no labels, labels of the wrong kind, or a cohort (or a label of several) with only one class.
        """
        return ClassifierObjective(self, network, cohort, steps)


class ClassifierObjective:
    """Cross-entropy.

    Args:
        config: The objective.
        network: The network to train.
        cohort: Training rows.
        steps: Steps of the run.
    """

    def __init__(self, config: ClassifierConfig, network: NetworkConfig, cohort: Source, steps: int) -> None:
        """See the class."""
        self.config, self.name = config, network.name
        self.shape = cohort.shape
        self.width = _width(config, cohort)
        self.network_config = data_keywords(network, self.shape) | {"out_channels": self.width}
        self.remedy = make_remedy(config.remedy, cohort, steps)
        if config.constraint is not None:
            config.constraint.check(cohort, config.multilabel)

    def players(self) -> dict[str, nn.Module]:
        """The classifier, and the adversary if the remedy has one."""
        main = build(self.name, **self.network_config)
        if any(isinstance(m, Rbf) for m in main.modules()):
            raise InputError("network.head: the centroids of rbf are learnt by objective duq, not by a classifier's")
        if self.remedy.adversary is None:
            return {"main": main}
        width = cast(int, staged(main).head.in_features)
        return {"main": main, "adversary": self.remedy.adversary.network(width)}

    def loss(self, player: str, networks: Networks, batch: Batch) -> tuple[Tensor, Scores]:
        """Mean cross-entropy (nats) of augmented images with what the remedy adds, or the adversary's loss."""
        assert batch.y is not None  # checked when the objective was made
        adversary = self.remedy.adversary
        logits, features, x = self._look(networks["main"], batch)
        if adversary is not None and player != "main":
            return adversary.loss(networks[player], features, batch), {}
        gamma, smoothing = self.config.focal, self.config.label_smoothing
        each = focal(logits, batch.y, gamma) if gamma else self._entropy(logits, batch.y, smoothing)
        loss = (self.remedy.weights(batch) * each).mean()
        scores = {"accuracy": self._right(logits.detach(), batch.y).float().mean()}
        if self.config.constraint is not None:
            speaks = positive_attribution(logits, x, batch.y, self.config.constraint.healthy).mean()
            loss, scores["attribution"] = loss + self.config.constraint.weight * speaks, speaks.detach()
        if adversary is None:
            return loss, scores

        def look(other: Batch) -> Tensor:
            return self._look(networks["main"], other)[1]

        penalty, more = adversary.penalty(networks["adversary"], features, batch, look)
        return loss + penalty, scores | more

    def _look(
        self, network: nn.Module, batch: Batch
    ) -> tuple[Float[Tensor, "b k"], Float[Tensor, "b d"], Float[Tensor, "b c *space"]]:
        """Logits of a batch as seen in training, its pooled features where an adversary reads them, and what is seen.

        With a constraint the images get a gradient.
        """
        x = augment(self.config, self.remedy.shown(batch)).requires_grad_(self.config.constraint is not None)
        if self.remedy.adversary is None:
            logits = network(x)
            return logits, logits.new_zeros(len(logits), 0), x
        with pooled(network) as features:
            logits = network(x)
        return logits, features[0], x

    def _entropy(self, logits: Float[Tensor, "b k"], y: Tensor, smoothing: float) -> Float[Tensor, " b"]:
        if logits.shape[1] > 1 and not self.config.multilabel:
            return cross_entropy(logits, y, smoothing)
        return binary_cross_entropy(logits, y.reshape(len(y), -1), smoothing)

    def _right(self, logits: Float[Tensor, "b k"], y: Tensor) -> Tensor:
        """Which decisions are right: one a row, or one a label."""
        if logits.shape[1] > 1 and not self.config.multilabel:
            return logits.argmax(1) == y
        return (logits > 0) == y.reshape(len(y), -1).bool()

    @torch.no_grad()
    def evaluate(self, network: nn.Module, cohort: Source, seed: int) -> dict[str, float]:
        """Cross-entropy and accuracy without augmentation, and the area under the ROC curve of binary decisions."""
        assert cohort.y is not None
        logits = torch.cat([network(b.x).cpu() for b in whole_batches(self.config, network, cohort, seed)])
        figures = {"loss": float(self._entropy(logits, cohort.y, 0.0).mean())}
        figures["accuracy"] = float(self._right(logits, cohort.y).float().mean())
        if not self.config.multilabel and int(cohort.y.max()) == 1 and logits.shape[1] <= 2:
            score = logits[:, -1] - (logits[:, 0] if logits.shape[1] == 2 else 0)
            figures["auroc"] = float(auroc(score, cohort.y == 1))
        return figures

    def checkpoint(self, network: nn.Module, cohort: Source) -> tuple[nn.Module, dict[str, Any]]:
        """The classifier with the names of its classes."""
        facts = {"shape": self.shape, "classes": tuple(cohort.classes), "multilabel": self.config.multilabel}
        return network, facts


def _counted(cohort: Source) -> str:
    """How many images and subjects of each class there are."""
    assert cohort.y is not None
    whose, names = subject_names(cohort), dict(enumerate(cohort.classes))
    found: list[str] = []
    for k in cohort.y.unique().tolist():
        rows = (cohort.y == k).nonzero().flatten().tolist()
        found.append(f"{names.get(k, k)} {len(rows)} images of {len({whose[i] for i in rows})} subjects")
    return ", ".join(found) or "none"


def _width(config: ClassifierConfig, cohort: Source) -> int:
    """Number of logits for the labels of a cohort."""
    if cohort.y is None:
        raise InputError("cohort.y: expected labels to train a classifier on, got none")
    if config.multilabel:
        if cohort.y.ndim != 2:
            raise InputError(f"cohort.y: expected (n, k) labels for multilabel, got shape {tuple(cohort.y.shape)}")
        constant = (cohort.y == cohort.y[:1]).all(0).nonzero().flatten().tolist()
        if constant:
            raise InputError(f"cohort.y: expected both values of every label, labels {constant} never change")
        return cohort.y.shape[1]
    classes = classes_of(cohort)
    if config.one_logit and classes != 2:
        raise InputError(f"one_logit: expected two classes, got {classes}")
    return 1 if config.one_logit else classes


def classes_of(cohort: Source) -> int:
    """Number of exclusive classes that a cohort is labelled with.

    Raises:
        InputError: no labels, several a row, one class alone, or numbers with gaps that no names explain.
    """
    check_labels(cohort, int(1e9))
    assert cohort.y is not None
    present = cohort.y.unique().tolist()
    if len(present) < 2:
        raise InputError(f"cohort.y: expected at least two classes to train a classifier, got only {present}")
    classes: int = max(len(cohort.classes), max(present) + 1)
    if not cohort.classes and len(present) < classes:
        absent = [k for k in range(min(classes, len(present) + 8)) if k not in present]
        raise InputError(
            f"cohort.y: no image of classes {absent[:8]} ({classes - len(present)} in all), labels are {present[:8]}; "
            "number them from 0 without gaps, or name them by `classes` of the data (numbers in quotes are names too)"
        )
    return classes

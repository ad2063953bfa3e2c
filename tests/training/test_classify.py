"""A classifier's loss is the cross-entropy of its labels, whichever way they are given."""

import pytest
import torch
from torch.nn import functional

from cfx.core.cohort import Cohort
from cfx.models import open_network
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.objectives import whole_batch
from tests.training.toys import toy_cohort, toy_config


def loss_of(tmp_path, cohort, **settings):
    """The loss of a cohort under a new classifier, its accuracy, its logits and the objective."""
    config = toy_config(tmp_path, "classifier", objective={"kind": "classifier", **settings})
    objective = make_objective(config, cohort)
    network = objective.players()["main"]
    loss, scores = objective.loss("main", {"main": network}, whole_batch(cohort, 0, 0, torch.device("cpu")))
    return loss.item(), scores["accuracy"].item(), network(cohort.x).detach(), objective


def test_two_logits(tmp_path):
    cohort = toy_cohort(12)
    loss, accuracy, logits, _ = loss_of(tmp_path, cohort, label_smoothing=0.1)
    assert logits.shape == (12, 2)
    assert loss == pytest.approx(functional.cross_entropy(logits, cohort.y, label_smoothing=0.1).item(), rel=1e-5)
    assert accuracy == pytest.approx((logits.argmax(1) == cohort.y).float().mean().item())


def test_one_logit(tmp_path):
    cohort = toy_cohort(12)
    loss, accuracy, logits, _ = loss_of(tmp_path, cohort, one_logit=True)
    assert logits.shape == (12, 1)
    expected = functional.binary_cross_entropy_with_logits(logits[:, 0], cohort.y.float())
    assert loss == pytest.approx(expected.item(), rel=1e-5)
    assert accuracy == pytest.approx(((logits[:, 0] > 0) == (cohort.y == 1)).float().mean().item())


def test_several_labels(tmp_path):
    cohort = toy_cohort(12)
    labels = torch.stack([cohort.y, 1 - cohort.y, cohort.covariates["site"].long()], 1).float()
    loss, _, logits, _ = loss_of(tmp_path, Cohort(x=cohort.x, y=labels), multilabel=True)
    assert logits.shape == (12, 3)
    assert loss == pytest.approx(functional.binary_cross_entropy_with_logits(logits, labels).item(), rel=1e-5)


def test_figures_are_without_augmentation(tmp_path):
    cohort = toy_cohort(80)
    *_, objective = loss_of(tmp_path, cohort, noise=0.5, contrast=0.5, flip=True, label_smoothing=0.2)
    network = objective.players()["main"]
    figures, logits = objective.evaluate(network, cohort, 0), network(cohort.x).detach()
    assert figures["loss"] == pytest.approx(functional.cross_entropy(logits, cohort.y).item(), rel=1e-5)
    assert figures["accuracy"] == pytest.approx((logits.argmax(1) == cohort.y).float().mean().item())
    gap = logits[:, 1] - logits[:, 0]
    pairs = gap[cohort.y == 1][:, None] > gap[cohort.y == 0][None]
    assert figures["auroc"] == pytest.approx(pairs.double().mean().item(), abs=1e-6)


@pytest.mark.parametrize("head", ["inner", "cosine", "euclidean"])
def test_a_quotient_is_learnt_from_cross_entropy_alone(tmp_path, head):
    """Generalised ODIN: both its numerator and its divisor have gradients, and its checkpoint is a classifier's."""
    cohort = toy_cohort(40)
    network = {"name": "cnn", "channels": [8, 8], "head": head}
    config = toy_config(tmp_path, "classifier", network=network, steps=60, optimizer={"lr": 1e-2, "warmup": 0})
    result = train(config, cohort)
    assert result.figures["accuracy"] == 1
    classifier = open_network(result.checkpoint)
    assert torch.equal(classifier(cohort.x).argmax(1), cohort.y)
    start = make_objective(config, cohort).players()["main"].head
    for part in ("weight", "g.0.weight"):
        assert (classifier.head.state_dict()[part] - start.state_dict()[part]).abs().max() > 1e-2

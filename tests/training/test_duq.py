"""DUQ: its loss is the published one, its centroids means that forget, its checkpoint a classifier."""

import pytest
import torch
from torch.nn import functional

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.models import open_network
from cfx.training import train
from cfx.training.config import make_objective
from cfx.training.objectives import whole_batch
from cfx.training.order import drawn
from tests.training.toys import NETWORKS, make_part, toy_cohort, toy_config

CPU = torch.device("cpu")


def objective_of(tmp_path, cohort, **settings):
    objective = make_objective(toy_config(tmp_path, "duq", objective={"kind": "duq", **settings}), cohort)
    return objective, objective.players()


def test_the_loss_by_hand(tmp_path):
    cohort = toy_cohort(12)
    objective, players = objective_of(tmp_path, cohort, penalty=0.3)
    network, batch = players["main"], whole_batch(cohort, 0, 0, CPU)
    loss, scores = objective.loss("main", players, batch)
    x = cohort.x.clone().requires_grad_(True)
    kernels = network(x).exp()
    entropy = functional.binary_cross_entropy(kernels, functional.one_hot(cohort.y, 2).float())
    slope = torch.autograd.grad(kernels.sum(), x)[0].flatten(1).norm(dim=1)
    assert scores["slope"].item() == pytest.approx((slope - 1).square().mean().item(), rel=1e-4)
    assert loss.item() == pytest.approx((entropy + 0.3 * (slope - 1).square().mean()).item(), rel=1e-4)


def test_the_penalty_moves_the_weights(tmp_path):
    """Its gradient is that of a second differentiation, not of a constant."""
    cohort = toy_cohort(12)
    objective, players = objective_of(tmp_path, cohort, penalty=1.0)
    loss, _ = objective.loss("main", players, whole_batch(cohort, 0, 0, CPU))
    weight, h = players["main"].blocks[0].weight, 1e-4
    (g,) = torch.autograd.grad(loss, weight)
    step = h * g / g.norm()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight += sign * step
        values.append(objective.loss("main", players, whole_batch(cohort, 0, 0, CPU))[0].item())
        with torch.no_grad():
            weight -= sign * step
    assert (values[0] - values[1]) / (2 * h) == pytest.approx(g.norm().item(), rel=0.05)


def test_centroids_are_means_that_forget(tmp_path):
    cohort = toy_cohort(22)
    objective, players = objective_of(tmp_path, cohort, gamma=0.7, rows=3)
    network, batch = players["main"], whole_batch(cohort, 0, 0, CPU)
    sums, weight = torch.zeros(2, network.head.centroids.shape[1]), 0.0
    for step in range(3):
        here = make_part(batch, slice(0, 8), step)
        objective.loss("main", players, here)
        other = drawn(cohort, objective.classes, 3, here, 0x5EED_0C11)
        embedded = network.head.embed(network.stages(other.x)[-1].flatten(2).mean(2)).detach()
        means = torch.stack([embedded[other.y == k, k].mean(0) for k in (0, 1)])
        sums, weight = 0.7 * sums + means, 0.7 * weight + 1
        torch.testing.assert_close(network.head.centroids, sums / weight, atol=1e-6, rtol=1e-4)
        objective.loss("main", players, make_part(batch, slice(8, 16), step))  # another part of the same step
        torch.testing.assert_close(network.head.centroids, sums / weight, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_it_learns_and_knows_what_is_far(tmp_path, space):
    cohort = toy_cohort(40, space)
    result = train(toy_config(tmp_path, "duq", steps=60, ema=None, optimizer={"lr": 1e-2, "warmup": 0}), cohort)
    assert result.figures["accuracy"] == 1
    classifier = open_network(result.checkpoint)
    own = classifier(cohort.x).detach()
    assert torch.equal(own.argmax(1), cohort.y)
    checks = torch.zeros_like(cohort.x)
    checks[..., ::2] = 1
    assert classifier(checks).max() < own.amax(1).min()


def test_a_run_starts_from_a_checkpoint_and_its_centroids_keep_their_weight(tmp_path):
    cohort, still = toy_cohort(40), {"optimizer": {"lr": 1e-12, "warmup": 0}, "ema": None}
    first = train(toy_config(tmp_path / "a", "duq", steps=30, **still | {"seed": 1}), cohort)
    again = train(toy_config(tmp_path / "b", "duq", steps=1, init=str(first.checkpoint), **still), cohort)
    other = train(toy_config(tmp_path / "c", "duq", steps=1, **still), cohort)
    a, b, c = (open_network(result.checkpoint) for result in (first, again, other))
    weights = [torch.nn.utils.parameters_to_vector(net.parameters()) for net in (a, b, c)]
    torch.testing.assert_close(weights[0], weights[1], atol=1e-8, rtol=0)
    assert (weights[0] - weights[2]).abs().max() > 1e-2
    assert [int(net.head.moves) for net in (a, b, c)] == [30, 31, 1]
    moved = (a.head.centroids - b.head.centroids).norm()
    assert 0 < moved < 0.1 * (a.head.centroids - c.head.centroids).norm()


def test_a_class_that_does_not_occur_has_no_say(tmp_path):
    cohort = toy_cohort(12)
    cohort = Cohort(x=cohort.x, y=2 * cohort.y, classes=["dark", "grey", "bright"])
    objective, players = objective_of(tmp_path, cohort)
    objective.loss("main", players, whole_batch(cohort, 0, 0, CPU))
    centroids = players["main"].head.centroids
    assert (centroids[[0, 2]] != 0).all()
    assert (centroids[1] == 0).all()


@pytest.mark.parametrize(
    ("network", "cohort", "message"),
    [
        (NETWORKS["classifier"], toy_cohort(), "network.head: expected rbf for objective duq, got Cnn without it"),
        (NETWORKS["duq"], Cohort(x=toy_cohort().x), "cohort.y: expected one class label a row, got none"),
        (NETWORKS["duq"], toy_cohort()[torch.arange(0, 10, 2)], "expected at least two classes"),
    ],
)
def test_what_it_cannot_learn_from_is_refused(tmp_path, network, cohort, message):
    with pytest.raises(InputError, match=message):
        make_objective(toy_config(tmp_path, "duq", network=network), cohort).players()


def test_centroids_are_not_learnt_by_a_classifiers_objective(tmp_path):
    objective = make_objective(toy_config(tmp_path, "classifier", network=NETWORKS["duq"]), toy_cohort())
    with pytest.raises(InputError, match="centroids of rbf are learnt by objective duq"):
        objective.players()

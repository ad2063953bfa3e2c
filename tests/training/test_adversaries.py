"""Second players against closed forms: their gradients, whom they learn from, and what they read."""

import pytest
import torch
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.training.adversaries import REFERENCE, Adversary, Reversal, decorrelation, pooled, staged
from cfx.training.config import make_objective
from cfx.training.objectives import whole_batch
from tests.training.toys import make_part, toy_cohort, toy_config

CPU = torch.device("cpu")


def pairs(n=4000, rho=0.6):
    """Two classes of features whose first component has this correlation with c within each class."""
    g = torch.Generator().manual_seed(0)
    y, c, noise = torch.arange(n) % 2, torch.randn(n, generator=g), torch.randn(n, 3, generator=g)
    noise[:, 0] = rho * c + (1 - rho**2) ** 0.5 * noise[:, 0]
    cohort = Cohort(x=torch.zeros(n, 1, 8, 8), y=y, covariates={"c": c + 5 * y})
    return cohort, noise


class First(nn.Module):
    """Predicts the first feature, for both classes."""

    def forward(self, features):
        return features[:, :1].expand(-1, 2)


class TestDecorrelation:
    def test_the_gradient_is_that_of_the_squared_correlation_within_classes(self, monkeypatch):
        cohort, features = pairs()
        adversary = decorrelation(cohort, cohort.covariates["c"], weight=2.0)
        batch = whole_batch(cohort, 0, 0, CPU)
        monkeypatch.setattr(type(adversary), "reference", lambda self, batch: batch)
        direction = torch.tensor(0.7, requires_grad=True)  # features that move away from c

        def moved():
            return torch.cat([features[:, :1] + direction * features[:, 1:2], features[:, 1:]], 1)

        penalty, scores = adversary.penalty(First(), moved(), batch, lambda other: moved())
        (found,) = torch.autograd.grad(penalty, direction)
        rho = [torch.corrcoef(torch.stack([cohort.covariates["c"][k::2], moved()[k::2, 0]]))[0, 1] for k in (0, 1)]
        squared = (rho[0] ** 2 + rho[1] ** 2) / 2
        (expected,) = torch.autograd.grad(2.0 * squared, direction)
        assert expected.abs() > 0.2
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=0)
        torch.testing.assert_close(scores["squared_correlation"], squared.detach(), rtol=2e-3, atol=0)

    def test_the_gradient_does_not_depend_on_the_size_of_the_batch(self):
        cohort, features = pairs(8000)
        adversary = decorrelation(cohort, cohort.covariates["c"], weight=1.0)
        whole, t = whole_batch(cohort, 0, 0, CPU), torch.tensor(0.7, requires_grad=True)
        moved = torch.cat([features[:, :1] + t * features[:, 1:2], features[:, 1:]], 1)

        def gradient(size):
            """Mean over all batches of so many rows of one cohort, all against the reference rows of one step."""
            found = torch.zeros(())
            for rows in torch.arange(8000).split(size):
                part = make_part(whole, rows, 0)
                penalty = adversary.penalty(First(), moved[rows], part, lambda other: moved[other.row])[0]
                found = found + penalty * size / 8000
            return torch.autograd.grad(found, t, retain_graph=True)[0]

        assert gradient(8000).abs() > 0.02
        torch.testing.assert_close(gradient(40), gradient(8000), rtol=1e-4, atol=0)

    def test_the_adversary_learns_from_its_own_class(self):
        cohort, features = pairs(400)
        adversary = decorrelation(cohort, cohort.covariates["c"], weight=1.0)
        for k in (0, 1):
            assert float(adversary.c[k::2].mean()) == pytest.approx(0, abs=1e-5)
            assert float(adversary.c[k::2].var(unbiased=False)) == pytest.approx(1, abs=1e-4)
        batch = whole_batch(cohort, 0, 0, CPU)
        expected = (features[:, 0] - adversary.c).square().mean()
        torch.testing.assert_close(adversary.loss(First(), features, batch), expected)

    def test_reference_rows_come_from_every_class_alike_and_change_with_the_step(self):
        cohort, _ = pairs(100)
        adversary = decorrelation(cohort, cohort.covariates["c"], weight=1.0)
        first, again, later = (adversary.reference(make_part(whole_batch(cohort, 3, 0, CPU), s, step))
                               for s, step in ((slice(0, 8), 5), (slice(50, 60), 5), (slice(0, 8), 6)))  # fmt: skip
        assert first.row.tolist() == again.row.tolist() != later.row.tolist()
        assert first.y.bincount().tolist() == [32, 32]
        assert torch.equal(first.y, cohort.y[first.row])

    def test_a_network_predicts_once_a_class_whatever_the_scale_of_its_features(self):
        cohort, features = pairs(60)
        adversary = decorrelation(cohort, cohort.covariates["c"], weight=1.0)
        network = adversary.network(3)
        assert network(features).shape == (60, 2)
        # What a layer norm adds to a variance v changes its output by about 1e-5 / 2v: rows that hardly vary feel it.
        varied = features[features.std(1) > 0.5]
        torch.testing.assert_close(network(9 * varied), network(varied), rtol=1e-3, atol=1e-4)

    def test_the_confounder_is_standardised_in_each_class_whatever_the_labels_are_called(self):
        c = torch.tensor([1.0, 3.0, 10.0, 14.0, 18.0])
        cohort = Cohort(x=torch.zeros(5, 1, 8, 8), y=torch.tensor([7, 7, 2, 2, 2]))
        adversary = decorrelation(cohort, c, weight=1.0)
        assert adversary.c.tolist() == pytest.approx([-1, 1, -(1.5**0.5), 0, 1.5**0.5])
        assert adversary.place.tolist() == [1, 1, 0, 0, 0]
        row = adversary.reference(whole_batch(cohort, 0, 0, CPU)).row
        assert cohort.y[row].tolist() == [2, 7] * REFERENCE  # the classes in turn

    def test_a_confounder_that_is_constant_in_a_class_is_refused(self):
        cohort, _ = pairs(20)
        with pytest.raises(InputError, match="confounder: expected values that vary within every class"):
            decorrelation(cohort, cohort.y.float(), weight=1.0)


def test_reversal_turns_the_adversarys_gradient_round():
    cohort, features = pairs(200)
    reversal = Reversal((cohort.covariates["c"] > 2.5).long(), weight=0.5, steps=100)
    network = reversal.network(3)
    f = features.requires_grad_()
    batch = whole_batch(cohort, 0, 0, CPU)
    (own,) = torch.autograd.grad(reversal.loss(network, f, batch), f)
    for step, factor in ((0, 0.0), (100, 0.5 * (2 / (1 + torch.exp(torch.tensor(-10.0))).item() - 1))):
        penalty, _ = reversal.penalty(network, f, make_part(batch, slice(None), step), lambda other: f)
        (found,) = torch.autograd.grad(penalty, f)
        torch.testing.assert_close(found, -factor * own)


def test_features_are_what_the_head_reads(tmp_path):
    network = make_objective(toy_config(tmp_path, "classifier"), toy_cohort()).players()["main"]
    with pooled(network) as found:
        logits = network(toy_cohort().x)
    torch.testing.assert_close(staged(network).head(found[0]), logits)
    network(toy_cohort().x)
    assert len(found) == 1


def test_both_are_adversaries():
    cohort, _ = pairs(20)
    every = [Reversal(cohort.y, 1.0, 10), decorrelation(cohort, cohort.covariates["c"], 1.0)]
    assert all(isinstance(each, Adversary) for each in every)
    assert [each.network(5)(torch.zeros(4, 5)).shape for each in every] == [(4, 2)] * 2


def test_only_an_adversary_needs_a_network_whose_features_it_can_read(tmp_path):
    config = toy_config(tmp_path, "classifier", network={"name": "monai-densenet121"}, batch_size=4)
    cohort = toy_cohort(4, space=(32, 32))
    objective = make_objective(config, cohort)
    networks = objective.players()
    loss, _ = objective.loss("main", networks, whole_batch(cohort, 0, 0, CPU))
    assert loss.isfinite()
    with pytest.raises(InputError, match="network: expected one whose pooled features an adversary can read"):
        staged(networks["main"])

"""Losses against closed forms."""

import pytest
import torch
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.random import normal
from cfx.models.autoencoder import kl_standard
from cfx.training.classify import _shift, augment
from cfx.training.config import ClassifierConfig
from cfx.training.objectives import Batch, DiffusionObjective, make_objective, min_snr_weight, whole_batch
from tests.training.toys import toy_cohort, toy_config

PREDICTIONS = ["epsilon", "v", "x0"]


@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_min_snr_weighs_the_image_error_by_the_clipped_snr(prediction):
    alpha = torch.tensor([0.999, 0.9, 0.5, 0.01], dtype=torch.float64)
    sigma = (1 - alpha**2).sqrt()
    # squared error in prediction space, for a unit squared error of the image
    factor = {"epsilon": (alpha / sigma) ** 2, "v": 1 / sigma**2, "x0": torch.ones(4)}[prediction]
    expected = ((alpha / sigma) ** 2).clamp(max=5)
    assert torch.allclose(min_snr_weight(alpha, sigma, prediction, 5.0) * factor, expected, rtol=1e-9)
    assert torch.equal(min_snr_weight(alpha, sigma, prediction, None), torch.ones_like(alpha))


def test_min_snr_is_finite_at_zero_snr():
    zero, one = torch.tensor([0.0]), torch.tensor([1.0])
    assert min_snr_weight(zero, one, "v", 5.0).tolist() == [0.0]
    assert min_snr_weight(zero, one, "epsilon", 5.0).tolist() == [1.0]


class Ideal(nn.Module):
    """The best predictor for pixels that are independent N(mean, std^2), plus a constant error."""

    def __init__(self, objective, mean, std, error=0.0):
        super().__init__()
        self.objective, self.mean, self.std, self.error = objective, mean, std, error
        self.anchor = nn.Parameter(torch.zeros(()))

    def forward(self, x_t, timesteps, class_labels=None):
        schedule = self.objective.schedule
        a, s = schedule.alpha(timesteps + 1, x_t), schedule.sigma(timesteps + 1, x_t)
        x = self.mean + a * self.std**2 / (a**2 * self.std**2 + s**2) * (x_t - a * self.mean)
        eps = (x_t - a * x) / s
        return {"epsilon": eps, "v": a * eps - s * x, "x0": x}[self.objective.objective.prediction] + self.error


@pytest.mark.parametrize("prediction", PREDICTIONS)
class TestDiffusionLoss:
    MEAN, STD, N = 0.2, 0.1, 512

    def objective(self, tmp_path, prediction, cohort):
        schedule = {"num_train_timesteps": 200, "beta_schedule": "scaled_linear", "beta_end": 0.05}
        settings = {"kind": "diffusion", "prediction": prediction, "min_snr": None, "schedule": schedule}
        config = toy_config(tmp_path, objective=settings)
        return DiffusionObjective(config, config.objective, cohort)

    def test_the_best_predictor_scores_the_posterior_variance(self, tmp_path, prediction):
        x = self.MEAN + self.STD * normal((1, 8, 8), seed=1, row=torch.arange(self.N), stream=9)
        cohort = Cohort(x=x)
        objective = self.objective(tmp_path, prediction, cohort)
        batch = whole_batch(cohort, 3, 0, torch.device("cpu"))
        loss = float(objective.errors(Ideal(objective, self.MEAN, self.STD), batch, None).mean())
        worse = float(objective.errors(Ideal(objective, self.MEAN, self.STD, 0.3), batch, None).mean())
        a2 = objective.schedule.alphas_cumprod
        variance = self.STD**2 * (1 - a2) / (a2 * self.STD**2 + 1 - a2)
        factor = {"epsilon": a2 / (1 - a2), "v": 1 / (1 - a2), "x0": torch.ones_like(a2)}[prediction]
        assert loss == pytest.approx(float((variance * factor).mean()), rel=0.08)
        assert worse - loss == pytest.approx(0.3**2, rel=0.05)

    def test_a_row_scores_the_same_in_any_batch(self, tmp_path, prediction):
        cohort = toy_cohort(12)
        objective = self.objective(tmp_path, prediction, cohort)
        net = Ideal(objective, 0.0, 0.3)
        whole = objective.errors(net, whole_batch(cohort, 3, 0, torch.device("cpu")), None)
        parts = [
            objective.errors(net, whole_batch(cohort[i : i + 5], 3, i, torch.device("cpu")), None) for i in (0, 5, 10)
        ]
        assert torch.allclose(whole, torch.cat(parts), rtol=1e-5)


def test_label_dropout_hides_the_asked_share_and_no_other_label(tmp_path):
    cohort = toy_cohort(4000)
    objective = make_objective(toy_config(tmp_path), cohort)
    label = objective._dropped(whole_batch(cohort, 0, 0, torch.device("cpu")))
    hidden = label == 2
    assert float(hidden.float().mean()) == pytest.approx(0.3, abs=0.03)
    assert torch.equal(label[~hidden], cohort.y[~hidden])


def test_kl_of_a_normal_to_the_standard_one():
    mean, std = torch.randn(3, 2, 4, 4), torch.rand(3, 2, 4, 4) + 0.1
    pair = torch.distributions.Normal(mean, std), torch.distributions.Normal(0.0, 1.0)
    expected = torch.distributions.kl_divergence(*pair).flatten(1).sum(1)
    assert torch.allclose(kl_standard(mean, std), expected, rtol=1e-4)


def test_vae_loss_adds_its_named_terms(tmp_path):
    cohort = toy_cohort(6)
    objective = make_objective(toy_config(tmp_path, "vae", objective={"kind": "vae", "kl_weight": 0.5}), cohort)
    networks = objective.players()
    loss, scores = objective.loss("main", networks, whole_batch(cohort, 0, 0, torch.device("cpu")))
    assert loss.item() == pytest.approx(float(scores["l1"] + 0.5 * scores["kl"] / 64), rel=1e-5)


def test_the_critic_is_heard_from_its_start_on(tmp_path):
    settings = {"kind": "vae", "adversarial_weight": 2.0, "adversarial_start": 3}
    cohort = toy_cohort(6)
    objective = make_objective(toy_config(tmp_path, "vae", objective=settings), cohort)
    networks = objective.players()
    early, late = (Batch(cohort.x, None, torch.arange(6), 0, step, torch.arange(6)) for step in (2, 3))
    before, _ = objective.loss("main", networks, early)
    after, scores = objective.loss("main", networks, late)
    assert (before - after).item() == pytest.approx(2 * float(scores["realism"]), rel=1e-4, abs=1e-6)


class TestAugment:
    def test_no_augmentation_changes_nothing(self):
        batch = whole_batch(toy_cohort(5), 0, 0, torch.device("cpu"))
        assert torch.equal(augment(ClassifierConfig(kind="classifier"), batch), batch.x)

    def test_flip_mirrors_about_half_of_the_rows(self):
        batch = whole_batch(toy_cohort(400), 0, 0, torch.device("cpu"))
        y = augment(ClassifierConfig(kind="classifier", flip=True), batch)
        same = (y == batch.x).flatten(1).all(1)
        mirrored = (y == batch.x.flip(-1)).flatten(1).all(1)
        assert (same ^ mirrored).all()
        assert float(mirrored.float().mean()) == pytest.approx(0.5, abs=0.08)

    def test_shift_moves_pixels_and_repeats_the_edge(self):
        x = torch.arange(9.0).reshape(1, 1, 3, 3)
        assert _shift(x, torch.tensor([[1, 0]])).flatten().tolist() == [0, 1, 2, 0, 1, 2, 3, 4, 5]
        assert _shift(x, torch.tensor([[0, -1]])).flatten().tolist() == [1, 2, 2, 4, 5, 5, 7, 8, 8]

    def test_noise_and_contrast_stay_in_range_and_within_their_limits(self):
        batch = whole_batch(toy_cohort(50), 0, 0, torch.device("cpu"))
        noised = augment(ClassifierConfig(kind="classifier", noise=0.2), batch) - batch.x
        spread = noised.flatten(1).std(1)
        assert spread.max() < 0.25
        assert spread.std() > 0.02  # every row draws its own level
        scaled = augment(ClassifierConfig(kind="classifier", contrast=0.3), batch)
        assert (scaled.abs() <= 1.3 * batch.x.abs() + 1e-6).all()
        assert scaled.abs().max() <= 1

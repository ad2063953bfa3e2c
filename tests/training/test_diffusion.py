"""The denoising loss against closed forms."""

import pytest
import torch
from torch import nn

from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.training.config import make_objective
from cfx.training.objectives import whole_batch
from tests.training.toys import toy_cohort, toy_config

PREDICTIONS = ["epsilon", "v", "x0"]


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
        return {"epsilon": eps, "v": a * eps - s * x, "x0": x}[self.objective.config.prediction] + self.error


@pytest.mark.parametrize("prediction", PREDICTIONS)
class TestDiffusionLoss:
    MEAN, STD, N = 0.2, 0.1, 512

    def objective(self, tmp_path, prediction, cohort):
        schedule = {"num_train_timesteps": 200, "beta_schedule": "scaled_linear", "beta_end": 0.05}
        settings = {"kind": "diffusion", "prediction": prediction, "min_snr": None, "schedule": schedule}
        config = toy_config(tmp_path, objective=settings)
        return make_objective(config, cohort)

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


@pytest.mark.parametrize("space", [(15, 17), (12, 15)])
@pytest.mark.parametrize(("name", "multiple"), [("unet", 2), ("patch-unet", 8)])
def test_sizes_that_the_network_cannot_halve_are_refused_before_the_first_step(name, multiple, space, tmp_path):
    network = {"name": name, "channels": [8, 8], "attention": [False, False]}
    config = toy_config(tmp_path, network=network, objective={"kind": "diffusion"})
    objective = make_objective(config, Cohort(x=torch.zeros(4, 1, *space)))
    with pytest.raises(InputError, match=rf"data: expected spatial sizes divisible by {multiple}, got \({space[0]}, "):
        objective.players()

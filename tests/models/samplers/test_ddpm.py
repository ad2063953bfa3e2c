"""Diffusion of masks: with the true posterior in place of the network, draws follow the law that was noised."""

import pytest
import torch
from torch import nn

from cfx.core.random import normal
from cfx.models.samplers import Draw
from cfx.models.samplers.conditioned import NOISE, state_of
from cfx.models.samplers.ddpm import Ddpm
from tests.models.networks import PATCH, randomise, small
from tests.models.samplers.laws import FIRST, N, check, modes


class Exact(nn.Module):
    """The noise expected of a mask that is one of two: a softmax of distances."""

    def __init__(self, schedule, classes, channels=1):
        super().__init__()
        self.schedule, self.state, self.channels = schedule, state_of(modes(classes), classes), channels

    def forward(self, shown, timesteps):
        x_t = shown[:, self.channels :]
        a, s = self.schedule.alpha(timesteps + 1, x_t), self.schedule.sigma(timesteps + 1, x_t)
        far = (x_t[:, None] - a[:, None] * self.state).flatten(2).square().sum(2) / s.flatten()[:, None].square()
        share = (torch.tensor([FIRST, 1 - FIRST]).log() - far / 2).softmax(1)
        return (x_t - a * torch.einsum("bm,m...->b...", share, self.state)) / s


@pytest.mark.parametrize("classes", [2, 3])
def test_draws_with_the_true_posterior_follow_the_law(classes):
    sampler = Ddpm(2, 1, classes, PATCH, {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"})
    sampler.trunk = Exact(sampler.schedule, classes)
    drawn = sampler.draw((torch.zeros(N, 1, 2, 2),), seed=0, row=torch.arange(N))
    check(drawn, classes, 0.02)


def test_published_steps_are_a_thousand_on_a_linear_schedule():
    sampler = Ddpm(2, 1)
    assert sampler.nfe == 1000
    assert sampler.schedule.alpha_squared(1) == pytest.approx(1 - 1e-4)
    assert sampler.schedule.prediction == "epsilon"


def test_the_loss_is_the_square_of_what_is_missed_of_the_noise():
    sampler = small("mask-ddpm")  # which starts with an answer of zero
    x, y, draw = torch.randn(3, 1, 8, 8), torch.ones(3, 2, 8, 8, dtype=torch.uint8), Draw(4, torch.arange(3))
    eps = normal((1, 8, 8), seed=4, row=draw.slot, stream=NOISE)
    torch.testing.assert_close(sampler(x, y, draw)[0], eps.square().flatten(1).mean(1))


def test_a_wild_answer_is_clipped():
    sampler = randomise(small("mask-ddpm"))
    for p in sampler.parameters():
        p.data.mul_(30)
    first = sampler.draw((torch.zeros(4, 1, 8, 8),), seed=0, row=torch.arange(4))
    assert 0 < float(first.float().mean()) < 1  # neither overflow nor NaN, which would compare as background

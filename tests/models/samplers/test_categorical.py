"""Categorical diffusion against its Markov chain, written out as matrices; its draws against a known law."""

import pytest
import torch
from torch import nn

from cfx.core.schedule import Schedule
from cfx.models.samplers import Draw
from cfx.models.samplers.categorical import COSINE, Categorical, blurred, posterior
from cfx.models.samplers.conditioned import one_hot
from tests.models.networks import PATCH, small
from tests.models.samplers.laws import FIRST, N, check, modes


def chain(schedule, k):
    """One-step matrices of t = 1 .. T: a class is kept with probability 1 - beta, or else drawn evenly from all."""
    levels = torch.cat([torch.ones(1, dtype=torch.float64), schedule.alphas_cumprod])
    return [a * torch.eye(k, dtype=torch.float64) + (1 - a) / k for a in levels[1:] / levels[:-1]]


@pytest.mark.parametrize("k", [2, 3, 5])
def test_marginals_and_posteriors_are_those_of_the_chain(k):
    schedule = Schedule.from_diffusers({"num_train_timesteps": 6, "beta_schedule": "squaredcos_cap_v2"})
    steps, eye = chain(schedule, k), torch.eye(k, dtype=torch.float64)
    p = torch.rand(k, dtype=torch.float64).softmax(0)
    reached = [eye]
    for step in steps:
        reached.append(reached[-1] @ step)
    for t in range(1, 7):
        kept, before = torch.tensor(schedule.alpha_squared(t)), torch.tensor(schedule.alpha_squared(t - 1))
        torch.testing.assert_close(blurred(eye, kept.double()), reached[t])
        joint = reached[t - 1][:, :, None] * steps[t - 1][None]  # y, x_s, x_t
        known = (joint / joint.sum(1, keepdim=True)).permute(2, 0, 1)  # x_t, y, x_s
        for j in range(k):
            x_t = eye[j : j + 1].expand(k, k)
            torch.testing.assert_close(posterior(eye, x_t, before.double(), kept.double()), known[j])
            mixed = posterior(p[None], eye[j : j + 1], before.double(), kept.double())[0]
            torch.testing.assert_close(mixed, p @ known[j])


class Exact(nn.Module):
    """Log-probabilities of every voxel's class when the mask is one of two."""

    def __init__(self, schedule, classes):
        super().__init__()
        self.schedule, self.classes = schedule, classes

    def forward(self, shown, timesteps):
        state, masks = shown[:, 1:], modes(self.classes)
        x_t = one_hot((state[:, 0] > 0 if self.classes == 2 else state.argmax(1)).to(torch.uint8), self.classes)
        kept = self.schedule.alpha(timesteps + 1, x_t).square()
        hot = one_hot(masks, self.classes)
        like = torch.stack([(blurred(m.expand_as(x_t), kept) * x_t).sum(1) for m in hot], 1)
        share = (torch.tensor([FIRST, 1 - FIRST]).log() + like.log().flatten(2).sum(2)).softmax(1)
        return torch.einsum("bm,m...->b...", share, hot).clamp_min(1e-9).log()


@pytest.mark.parametrize("classes", [2, 3])
def test_draws_with_the_true_posterior_follow_the_law(classes):
    sampler = Categorical(2, 1, classes, PATCH, {"num_train_timesteps": 100, "beta_schedule": "squaredcos_cap_v2"})
    sampler.trunk = Exact(sampler.schedule, classes)
    drawn = sampler.draw((torch.zeros(N, 1, 2, 2),), seed=0, row=torch.arange(N))
    check(drawn, classes, 0.02)


class Knowing(nn.Module):
    """Logits of the class that the image says, and how sure they are."""

    def __init__(self, classes, sure):
        super().__init__()
        self.classes, self.sure = classes, sure

    def forward(self, shown, timesteps):
        return self.sure * one_hot(shown[:, 0].to(torch.uint8), self.classes)


@pytest.mark.parametrize("classes", [2, 4])
def test_who_knows_the_mask_has_no_loss_and_at_one_step_it_is_the_cross_entropy(classes):
    y = torch.randint(0, classes, (5, 1, 8, 8), dtype=torch.uint8)
    draw = Draw(0, torch.arange(5))
    sampler = small("mask-categorical", classes=classes)
    sampler.trunk = Knowing(classes, 60.0)
    assert float(sampler(y.float(), y, draw)[0].max()) < 1e-6
    sampler.trunk = Knowing(classes, 0.0)
    assert float(sampler(y.float(), y, draw)[0].min()) > 1e-4
    once = Categorical(2, 1, classes, PATCH, {"num_train_timesteps": 1})
    once.trunk = Knowing(classes, 2.0)
    entropy = nn.functional.cross_entropy(once.trunk(y.float(), None), y[:, 0].long())
    torch.testing.assert_close(once(y.float(), y, draw)[0], entropy.expand(5))


def test_published_steps_are_250_on_a_cosine_schedule():
    assert Categorical(2, 1).nfe == COSINE["num_train_timesteps"] == 250

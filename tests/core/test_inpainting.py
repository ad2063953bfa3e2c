"""Draws given some pixels, where the conditional distribution is known."""

import inspect
from dataclasses import dataclass

import pytest
import torch

from cfx.core.denoiser import Posterior
from cfx.core.errors import InputError
from cfx.core.inpainting import inpaint
from cfx.core.random import normal
from cfx.core.schedule import Schedule

SIDE, NUGGET, SPREAD = 4, 0.01, 0.3
STEPS = Schedule.from_diffusers({"num_train_timesteps": 200})


@dataclass(frozen=True)
class Levels:
    """Images of one grey level N(0, SPREAD^2) and a little noise: x ~ N(0, SPREAD^2 1 1' + NUGGET^2 I)."""

    schedule: Schedule

    def __call__(self, x_t, t, label=None):
        alpha, sigma = self.schedule.alpha(t, x_t), self.schedule.sigma(t, x_t)
        n = SIDE**2
        covariance = SPREAD**2 * torch.ones(n, n) + NUGGET**2 * torch.eye(n)
        a, s = float(alpha), float(sigma)
        gain = a * covariance @ torch.linalg.inv(a**2 * covariance + s**2 * torch.eye(n))
        return Posterior((x_t.flatten(1) @ gain.T).view_as(x_t), x_t, alpha, sigma)


def half_known(n):
    known = torch.zeros(n, 1, SIDE, SIDE, dtype=torch.bool)
    known[..., :2] = True
    level = torch.linspace(-0.6, 0.6, n).view(-1, 1, 1, 1)
    x = level + NUGGET * normal((1, SIDE, SIDE), seed=9, row=torch.arange(n), stream=0)
    return torch.where(known, x, 0.99), known, level


def error(rounds):
    x, known, level = half_known(16)
    out = inpaint(Levels(STEPS), x, known, seed=1, row=torch.arange(16), steps=50, rounds=rounds)
    return (out - level)[~known].square().mean().sqrt()


def test_the_unknown_takes_the_level_of_the_known():
    repeated = error(5)
    assert repeated < 0.06
    assert repeated < 0.5 * error(1)  # the repeats are what harmonises


def test_the_known_stays_bit_for_bit():
    x, known, _ = half_known(5)
    out = inpaint(Levels(STEPS), x, known, seed=1, row=torch.arange(5), steps=5)
    assert torch.equal(out[known], x[known])
    assert (out[~known] != x[~known]).all()
    assert out.abs().max() <= 1


def test_what_is_not_known_is_not_read():
    x, known, _ = half_known(5)
    a, b = (
        inpaint(Levels(STEPS), torch.where(known, x, hidden), known, seed=1, row=torch.arange(5), steps=5)
        for hidden in (0.9, -0.9)
    )
    assert torch.equal(a, b)


def test_rows_do_not_depend_on_their_batch():
    x, known, _ = half_known(5)
    every = inpaint(Levels(STEPS), x, known, seed=1, row=torch.arange(5), steps=5)
    some = inpaint(Levels(STEPS), x[3:], known[3:], seed=1, row=torch.tensor([3, 4]), steps=5)
    assert torch.allclose(every[3:], some, atol=1e-5)


def test_no_round_is_refused():
    x, known, _ = half_known(2)
    with pytest.raises(InputError, match="rounds: expected 1 or more, got 0"):
        inspect.unwrap(inpaint)(Levels(STEPS), x, known, seed=1, row=torch.arange(2), rounds=0)

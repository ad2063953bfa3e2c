"""Likelihood regret: the best posterior of a linear autoencoder is known."""

import torch

from cfx.ood import build_detector
from cfx.ood.reconstruction.elbo import kl
from tests.ood.detectors import images
from tests.ood.reconstruction.known import LinearVae, ask, learn


def test_the_regret_of_a_linear_autoencoder_is_the_closed_form():
    # per code the negative bound is (E (z - m)^2 + ...) / 2 v + KL: best at m / (1 + v) with deviation^2 = v / (1 + v)
    fitted, x = build_detector("likelihood-regret", steps=250, rate=0.02, draws=150).fit(learn()), images(3, seed=5)
    found, v = fitted(ask(x)), fitted.elbo.variance
    mean, std = LinearVae().encode(x)

    def negative(m, s):
        return (((m - mean).square() + s.square()) / (2 * v)).flatten(1).sum(1) + kl(m, s)

    best = negative(mean / (1 + v), torch.full_like(std, (v / (1 + v)) ** 0.5))
    torch.testing.assert_close(found.score, (negative(mean, std) - best) / 64, rtol=0.05, atol=0.01)
    torch.testing.assert_close(found.score, found.statistics["before"] - found.statistics["after"])


def test_the_weights_are_left_alone_and_nothing_asks_for_a_gradient():
    fitted = build_detector("likelihood-regret", steps=3).fit(learn())
    with torch.no_grad():
        found = fitted(ask(images(2)))
    assert not found.score.requires_grad


def test_more_steps_leave_less_to_regret():
    x = images(6, seed=5)
    few, many = (build_detector("likelihood-regret", steps=n).fit(learn())(ask(x)).score for n in (5, 50))
    assert bool((many > few).all())
    assert bool((few > 0).all())

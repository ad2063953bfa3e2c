"""The bound as a score: what it is made of."""

import torch

from cfx.ood import build_detector
from tests.ood.detectors import images
from tests.ood.reconstruction.known import LinearVae, ask, learn


def test_the_score_is_the_sum_of_reconstruction_and_code():
    fitted, x = build_detector("vae-elbo", draws=2).fit(learn()), images(3)
    found = fitted(ask(x))
    torch.testing.assert_close(found.score, sum(found.statistics.values()))
    torch.testing.assert_close(found.score, fitted.elbo.negative(ask(x)))
    torch.testing.assert_close(found.map, (x - LinearVae().decode(LinearVae().encode(x)[0])).square())


def test_a_flat_image_is_more_likely_than_those_it_was_fitted_to():
    x = torch.cat([images(20, seed=5), torch.zeros(1, 1, 8, 8)])
    score = build_detector("vae-elbo").fit(learn())(ask(x)).score
    assert int(score.argmin()) == 20

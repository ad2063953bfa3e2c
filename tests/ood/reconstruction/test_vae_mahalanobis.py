"""Reconstruction and distance of the code: both count alike."""

import pytest
import torch

from cfx.core.density import gaussian
from cfx.core.errors import InputError
from cfx.ood import build_detector
from tests.ood.detectors import images
from tests.ood.reconstruction.known import LinearVae, ask, learn


class Wide(LinearVae):
    """Codes of more numbers than a covariance can be made of."""

    def encode(self, x):
        mean, std = super().encode(x)
        return mean.repeat(1, 600, 1, 1), std

    def decode(self, z):
        return super().decode(z[:, :1])


def test_the_score_is_the_weighted_sum():
    rows = learn(60)
    fitted, x = build_detector("vae-mahalanobis").fit(rows), images(5, seed=5)
    found = fitted(ask(x))
    codes = [LinearVae().encode(v)[0].flatten(1) for v in (rows.cohort.x, x)]
    torch.testing.assert_close(found.statistics["mahalanobis"], gaussian(codes[0]).distance2(codes[1]))
    total = found.statistics["reconstruction"].double() + fitted.weight * found.statistics["mahalanobis"]
    torch.testing.assert_close(found.score, total)


def test_both_terms_spread_alike_over_new_images():
    found = build_detector("vae-mahalanobis").fit(learn(100))(ask(images(200, seed=5)))
    parts = found.statistics
    ratio = parts["reconstruction"].double().std() / (found.score - parts["reconstruction"].double()).std()
    assert 0.6 < float(ratio) < 1.6


def test_it_sees_what_the_decoder_gives_back_exactly():
    x = torch.cat([images(20, seed=5), torch.full((1, 1, 8, 8), 0.9)])
    assert int(build_detector("vae")(ask(x)).score.argmin()) == 20
    assert int(build_detector("vae-mahalanobis").fit(learn(60))(ask(x)).score.argmax()) == 20


def test_as_few_images_as_are_taken_will_do():
    found = build_detector("vae-mahalanobis").fit(learn(6))(ask(images(3)))
    assert bool(found.score.isfinite().all())


def test_too_few_images_and_too_large_codes_are_refused():
    with pytest.raises(InputError, match="cohort: expected at least 6 images"):
        build_detector("vae-mahalanobis").fit(learn(5))
    with pytest.raises(InputError, match="autoencoder: expected codes of at most 8192 numbers"):
        build_detector("vae-mahalanobis").fit(learn(6, autoencoder=Wide()))

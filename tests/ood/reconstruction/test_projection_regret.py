"""Projection regret: nothing to regret where a projection changes an image as much as a projected one."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.ood import build_detector
from tests.ood.detectors import images
from tests.ood.reconstruction.known import ask, learn, maps


def test_the_score_is_the_change_of_the_image_less_that_of_its_projection():
    found = build_detector("projection-regret", steps=4, draws=3).fit(learn())(ask(images(4)))
    torch.testing.assert_close(found.score, found.statistics["once"] - found.statistics["twice"])
    torch.testing.assert_close(found.score, found.map.flatten(1).mean(1), rtol=1e-4, atol=1e-6)


def test_images_of_the_generator_have_little_to_regret_and_others_much():
    fitted = build_detector("projection-regret", steps=10, draws=10).fit(learn())
    own, far = fitted(ask(images(20, seed=5))), fitted(ask(images(20, seed=5) + 0.5))
    assert abs(float(own.score.mean())) < 0.25 * float(own.statistics["once"].mean())
    assert float(far.score.min()) > float(own.score.max())


def test_the_distance_of_features_takes_the_place_of_squares():
    settings = {"steps": 3, "draws": 2, "error": "perceptual"}
    found = build_detector("projection-regret", **settings).fit(learn())(ask(images(4), features=maps))
    plain = build_detector("projection-regret", **settings | {"error": "l2"}).fit(learn())(ask(images(4)))
    torch.testing.assert_close(found.map, plain.map)
    assert not torch.allclose(found.score, plain.score)


@pytest.mark.parametrize("what", ["sigma_a", "sigma_b"])
def test_levels_are_inside(what):
    with pytest.raises(InputError, match=rf"{what}: expected a noise level in \(0, 1\), got 1.0"):
        build_detector("projection-regret", **{what: 1.0})

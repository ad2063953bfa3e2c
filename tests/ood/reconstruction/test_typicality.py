"""Typicality: too likely is as odd as too unlikely."""

import torch

from cfx.ood import build_detector
from tests.ood.detectors import images
from tests.ood.reconstruction.known import ask, learn


def test_the_score_is_the_distance_from_the_mean_of_the_fitted_images():
    rows = learn(30)
    fitted = build_detector("typicality", draws=2).fit(rows)
    assert abs(fitted(ask(rows.cohort.x)).statistics["surprise"].mean() - fitted.entropy) < 1e-4
    found = fitted(ask(images(4, seed=8)))
    torch.testing.assert_close(found.score, (found.statistics["surprise"] - fitted.entropy).abs())


def test_images_on_either_side_of_the_ordinary_score_high():
    x = torch.cat([images(20, seed=5), torch.zeros(1, 1, 8, 8), images(1, seed=6, deviation=0.6)])
    score = build_detector("typicality").fit(learn())(ask(x)).score
    assert float(score[20:].min()) > float(score[:20].max())

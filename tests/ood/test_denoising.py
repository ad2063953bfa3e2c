"""Our detector: errors at few levels against a generator that knows exactly what it should."""

import pytest
import torch

from cfx.core.scores import auroc
from cfx.ood import build_detector, fit
from tests.ood.detectors import GaussianGenerator, cohort, images

FITTED = {}


def fitted():
    if not FITTED:
        FITTED["one"] = fit(cohort(120), generator=GaussianGenerator())
    return FITTED["one"]


@pytest.mark.parametrize("deviation", [0.05, 0.5])
def test_both_smaller_and_larger_errors_are_unusual(deviation):
    score = fitted().score(torch.cat([images(40, seed=7), images(40, seed=8, deviation=deviation)])).score
    assert float(auroc(score[None], torch.arange(80)[None] >= 40)) > 0.99


def test_a_place_that_is_not_restored_is_found_and_shown():
    x = images(40, seed=7)
    x[20:, 0, 2:4, 2:4] = 1.0
    found = fitted().score(x)
    assert float(auroc(found.score[None], torch.arange(40)[None] >= 20)) > 0.99
    assert bool((found.map[20:, 0].flatten(1).argmax(1)[:, None] == torch.tensor([18, 19, 26, 27])).any(1).all())


def test_in_three_dimensions():
    x = cohort(24, space=(6, 6, 6))
    found = fit(x, build_detector("denoising", levels=(0.2, 0.6)), generator=GaussianGenerator()).score(x.x[:3])
    assert found.map.shape == (3, 1, 6, 6, 6)
    assert found.nfe_unet_forward.tolist() == [2, 2, 2]

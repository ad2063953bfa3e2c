"""Stages one after another: cheap where a cheap one decides, and the last has the last word."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.scores import auroc
from cfx.ood import build_detector, fit
from cfx.ood.cascade import CascadeScorer
from cfx.ood.detector import Ask, Scored, Tools
from tests.ood.detectors import GaussianGenerator, cohort, images

STAGES = ("denoising-once", "denoising")


def fitted(stages=STAGES):
    return fit(cohort(120), build_detector("cascade", stages=stages), generator=GaussianGenerator())


def test_images_that_one_stage_decides_cost_that_stage_alone():
    found = fitted().score(torch.cat([images(40, seed=7), images(10, seed=8, deviation=0.9)]))
    stage = found.statistics["stage"]
    assert torch.equal(found.nfe_unet_forward, 1 + 5 * stage.long())
    assert stage[40:].max() == 0
    assert 0.2 < float(stage[:40].mean()) < 0.8


def test_the_last_stage_decides_what_is_undecided():
    x = images(60, seed=7)
    found, scorer = fitted().score(x), fitted().scorer
    last = found.statistics["stage"] == 1
    assert bool(last.any())
    alone = (found.score[last].double() * scorer.scale[1] + scorer.middle[1]).float()
    (only,) = {s.settings.name: s for s in scorer.stages if s.settings.name == "denoising"}.values()
    assert torch.allclose(only(Ask(x[last], Tools(generator=GaussianGenerator()))).score.float(), alone, atol=1e-3)


def test_a_stage_does_not_decide_what_it_finds_more_ordinary_than_the_ordinary():
    """Scores of the first stage: too ordinary, ordinary, undecided, beyond; the second is asked about two of them."""
    first, second = torch.tensor([-3.0, -0.5, 0.5, 9.0]), []

    def one(ask):
        return Scored(first)

    def two(ask):
        second.extend(ask.x[:, 0, 0, 0].tolist())
        return Scored(torch.full((len(ask),), 7.0))

    half = torch.tensor([-1.0, -1.0])
    scorer = CascadeScorer((one, two), torch.zeros(2), torch.ones(2), half, 6.0)
    found = scorer(Ask(torch.arange(4.0).view(4, 1, 1, 1), Tools()))
    assert second == [0.0, 2.0]
    assert found.score.tolist() == [7.0, -0.5, 7.0, 9.0]
    assert found.statistics["stage"].tolist() == [1, 0, 1, 0]


def test_stages_without_their_networks_are_left_out():
    assert len(fitted(("vae-mahalanobis", *STAGES)).scorer.stages) == 2


def test_it_tells_as_well_as_its_last_stage():
    x = torch.cat([images(60, seed=7), images(60, seed=8, deviation=0.35)])
    assert float(auroc(fitted().score(x).score[None], torch.arange(120)[None] >= 60)) > 0.95


@pytest.mark.parametrize("settings", [{"stages": ()}, {"stages": ("cascade",)}, {"beyond": 1.0}, {"share": 1.0}])
def test_settings_out_of_range_are_refused(settings):
    with pytest.raises(InputError, match="expected"):
        build_detector("cascade", **settings)


def test_too_few_images_are_refused():
    with pytest.raises(InputError, match="at least 8 images to fit a cascade to, got 5"):
        fit(cohort(10), "cascade", generator=GaussianGenerator())

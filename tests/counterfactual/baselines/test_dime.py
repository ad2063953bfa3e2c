"""DiME: what it costs, what it keeps, and what it does on images whose generator is known."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual.baselines.dime import Dime
from cfx.counterfactual.baselines.respaced import Reverse
from tests.counterfactual.baselines.problems import assert_names_nan, laws, part, problem, spent

SHORT = Dime(steps=6)


def test_one_published_scale_costs_1830_evaluations():
    p = part(problem((4, 4), margin=100.0), [0])
    Dime(scales=(8.0,)).propose(p)
    assert p.meter.unet_forward.tolist() == [1830]
    assert p.meter.unet_backward.tolist() == [0]
    assert p.meter.classifier_backward.tolist() == [60]
    assert p.meter.classifier.tolist() == [61]


def test_rows_that_convince_leave():
    p = problem()
    found = SHORT.propose(p)
    scales = 1 + torch.tensor([SHORT.scales.index(s) for s in found.strength.tolist()])
    cost = spent(p)
    assert cost["unet_forward"] == (scales * (6 + 6 * 5 // 2)).tolist()
    assert cost["classifier_backward"] == (scales * 6).tolist()
    assert cost["classifier"] == (scales * 7).tolist()


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_laws(space):
    laws(SHORT, space)


def test_nan_is_named():
    assert_names_nan(SHORT)


def test_reaches_the_margin_and_more_scale_goes_further():
    p = problem(margin=3.0)
    found = Dime(steps=30).propose(p)
    assert (p.judge.margin(found.image, p.target) >= 3).all()
    hard = problem(margin=100.0)
    weak, strong = (Dime(scales=(s,), steps=6).propose(hard).image for s in (0.5, 4.0))
    assert (hard.judge.margin(strong, hard.target) > hard.judge.margin(weak, hard.target)).all()


def test_without_weights_it_is_the_sampler():
    p = problem(margin=100.0)
    free = Dime(scales=(0.0,), l1=0.0, steps=1)._walk
    reverse = Reverse(p, 0.774, 1)
    z = reverse.noised(p.everyone, 0)
    torch.testing.assert_close(free(reverse, p.everyone, z, 0.0), reverse.estimate(p.everyone, z, 0))


def test_refuses_what_is_no_diffusion_model():
    with pytest.raises(InputError, match="expected a diffusion model, got str"):
        SHORT.propose(problem().__class__(**{**vars(problem()), "generator": "none"}))

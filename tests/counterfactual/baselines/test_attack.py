"""The gradient attack: exact on a linear classifier, and a row stops as soon as it has arrived."""

from dataclasses import replace

import pytest
import torch

from cfx.counterfactual.baselines.attack import GradientAttack, signs
from cfx.models.goal import Goal
from tests.counterfactual.baselines.problems import laws, problem, spent
from tests.counterfactual.toys import Bounded, Cliff

SPACES = [(8, 8), (6, 6, 6)]


@pytest.mark.parametrize("space", SPACES)
def test_on_a_linear_classifier_the_path_is_known(space):
    p = problem(space)
    p = replace(p, goal=Goal(torch.tensor([1e-3, 1.0, 2.0, 4.0])))
    found = GradientAttack().propose(p)
    weight = 8 * p.judge.classifier.classifier.weight
    towards = (2 * p.target - 1).view(4, *[1] * (p.x.ndim - 1)) * weight.sign()
    steps = torch.ceil((p.margin - p.before) / (2 / 255 * weight.abs().sum()))
    torch.testing.assert_close(found.strength, steps * 2 / 255)
    expected = p.x + found.strength.view(4, *[1] * (p.x.ndim - 1)) * towards
    assert expected.abs().max() < 1  # nothing was clipped
    torch.testing.assert_close(found.image, expected, atol=1e-5, rtol=0)
    cost = spent(p)
    assert cost["classifier_backward"] == steps.tolist()
    assert cost["classifier"] == (2 * steps).tolist()
    assert set(cost["unet_forward"] + cost["unet_backward"]) == {0}


@pytest.mark.parametrize("space", SPACES)
def test_laws(space):
    laws(GradientAttack(), space)


def test_out_of_reach_all_steps_are_spent_and_the_closest_is_returned():
    p = problem(classifier=Bounded((8, 8)), margin=3.0)
    found = GradientAttack(steps=7).propose(p)
    assert spent(p)["classifier_backward"] == [7] * 4
    assert found.finite.all()
    assert (p.judge.margin(found.image, p.target) > p.before).all()


def test_nan_is_named_and_its_row_leaves():
    p = problem(classifier=Cliff((8, 8)))
    found = GradientAttack().propose(p)
    assert not found.finite.any()
    assert torch.equal(found.image, p.x)
    assert spent(p)["classifier_backward"] == [1] * 4


def test_signs_keep_nan():
    g = torch.tensor([[[-2.0, 0.0, 3.0, torch.nan]]])
    assert torch.equal(signs(g)[..., :3], torch.tensor([[[-1.0, 0.0, 1.0]]]))
    assert signs(g)[..., 3].isnan().all()

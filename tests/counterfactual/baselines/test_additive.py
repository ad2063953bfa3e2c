"""The additive map: sparse, smooth, and no larger than its ladder of weights makes it."""

from dataclasses import replace

import pytest
import torch

from cfx.counterfactual.baselines.additive import AdditiveMap
from cfx.counterfactual.method import Meter
from cfx.models.goal import Goal
from cfx.models.judge import Judge
from tests.counterfactual.baselines.problems import laws, part, problem, spent
from tests.counterfactual.toys import BlowsUp, Bounded, Cliff, Linear

SPACES = [(8, 8), (6, 6, 6)]


def size(p, found):
    return (found.image - p.x).abs().flatten(1).mean(1)


@pytest.mark.parametrize("space", SPACES)
def test_laws(space):
    laws(AdditiveMap(weights=(30.0, 3.0), steps=10), space)


@pytest.mark.parametrize("margin", [1e-3, 4.0])
def test_reaches_the_margin_and_hardly_exceeds_it(margin):
    p = problem(margin=margin)
    found = AdditiveMap(weights=(30.0, 10.0), steps=60).propose(p)
    excess = p.judge.margin(found.image, p.target) - margin
    assert (excess >= -1e-5).all()
    assert (excess < 0.5).all()


def test_without_variation_only_voxels_that_are_worth_it_change():
    p = problem(margin=1.0)
    # gain of margin per unit of mean change: 0, 60, 134 and 208
    worth = 8 * p.judge.classifier.classifier.weight.abs() * p.x[0].numel()
    for weight in (100.0, 10.0):
        found = AdditiveMap(weights=(weight,), variation=0.0, steps=60).propose(p)
        assert (p.judge.margin(found.image, p.target) >= 1 - 1e-5).all()
        change = (found.image - p.x).abs()
        assert change[:, worth < weight].max() <= 0.01  # Adam trembles by its rate around 0
        middle = change[:, (worth - 60).abs() < 5]
        assert middle.numel() == 16
        assert (middle.min() > 0.05) == (weight < 60)


def test_more_weight_less_change():
    p = problem(margin=1.0)
    dear, cheap = (AdditiveMap(weights=(w,), variation=0.0, steps=40).propose(p) for w in (60.0, 0.01))
    assert (size(p, dear) < size(p, cheap)).all()


@pytest.mark.parametrize("space", SPACES)
def test_the_penalty_is_size_and_steps_between_neighbours(space):
    d, n = len(space), torch.Size(space).numel()
    a = torch.zeros(3, 2, *space)
    a[0] = 0.3
    a[1, 0, *[3] * d] = -0.3
    expected = torch.tensor([0.3, 0.3 / (2 * n) * (1 + 2 * 2 * d), 0.0])  # d axes, a step down and one up
    torch.testing.assert_close(AdditiveMap(variation=2.0)._penalty(a), expected, atol=1e-3, rtol=1e-2)


def test_weights_are_tried_in_order_until_one_reaches_the_margin():
    p = problem(margin=1.0)
    found = AdditiveMap(weights=(1e4, 10.0, 1.0), steps=40).propose(p)
    assert found.strength.tolist() == pytest.approx([0.1] * 4)
    cost = spent(p)
    for all_of_it, gradients in zip(cost["classifier"], cost["classifier_backward"], strict=True):
        assert all_of_it == 2 * 40 + 2 + gradients
        assert 40 <= gradients <= 2 * 40


def test_rows_that_convince_leave():
    p = problem()
    p = replace(p, goal=Goal(torch.tensor([1.0, 50.0, 1.0, 1.0])))
    found = AdditiveMap(weights=(10.0, 1.0), steps=40).propose(p)
    assert found.finite.all()
    gradients = torch.tensor(spent(p)["classifier_backward"])
    assert gradients[1] == 80
    assert (gradients[[0, 2, 3]] <= 40).all()


def test_out_of_reach_the_closest_is_returned():
    p = problem(classifier=Bounded((8, 8)), margin=3.0)
    found = AdditiveMap(weights=(1.0,), steps=30).propose(p)
    assert found.finite.all()
    assert (p.judge.margin(found.image, p.target) > p.before).all()


def test_nan_is_named_and_its_row_leaves():
    p = problem(classifier=Cliff((8, 8)))
    found = AdditiveMap().propose(p)
    assert not found.finite.any()
    assert torch.equal(found.image, p.x)
    assert spent(p)["classifier_backward"] == [1] * 4


def test_a_margin_of_nan_ends_its_row_alone():
    p = part(problem(classifier=BlowsUp((8, 8))), [0, 2])
    p.x[0, :, 0, 0], p.x[1, :, 0, 0] = 0.3, -0.3  # the first is broken once it has left its class
    whole = replace(p, judge=Judge(Linear((8, 8))), meter=Meter(2))
    method = AdditiveMap(weights=(10.0,), steps=40)
    found, healthy = method.propose(p), method.propose(whole)
    assert found.finite.tolist() == [False, True]
    assert torch.equal(found.image[0], p.x[0])
    torch.testing.assert_close(found.image[1], healthy.image[1], atol=1e-5, rtol=0)
    assert spent(p)["classifier"][0] < spent(p)["classifier"][1]


def test_an_axis_of_one_voxel_has_no_variation():
    p = problem((1, 8, 8), classifier=Linear((1, 8, 8)))
    assert AdditiveMap(weights=(10.0,), steps=3).propose(p).finite.all()

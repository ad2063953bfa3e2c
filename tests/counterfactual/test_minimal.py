"""The replay under guidance: nothing at strength 0, more with more strength, and no more than the classifier backs."""

from dataclasses import replace

import pytest
import torch

from cfx.counterfactual import explain
from cfx.counterfactual.method import Meter, Problem
from cfx.counterfactual.minimal import Guided, Minimal
from cfx.counterfactual.shrink import paste
from cfx.models.goal import Goal
from cfx.models.judge import Judge
from tests.counterfactual.toys import ClassGaussian, Counted, Linear, Projection, blob, class_means, cohort

SPACES = [(8, 8), (8, 8, 8)]
ROW = torch.tensor([5, 0, 12, 3])


def guided(space, conditional, x=None, method=None, classifier=None):
    """Four images and their guidance towards the other class."""
    means = class_means(space)
    x = cohort(means, 4).x if x is None else x
    judge, source = Judge(classifier or Linear(space)), torch.arange(4) % 2
    problem = Problem(
        x=x, source=source, target=1 - source, goal=Goal(torch.full((4,), 3.0)), before=judge.margin(x, 1 - source),
        row=ROW, seed=3, judge=judge, generator=Counted(ClassGaussian(means, conditional)), meter=Meter(4),
        labelled=conditional,
    )  # fmt: skip
    return x, Guided.of(method or Minimal(), problem)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
def test_strength_zero_returns_the_image_again_and_again(space, conditional):
    x, guide = guided(space, conditional)
    original, rows, zero = x, torch.arange(4), torch.zeros(4)
    for _ in range(10):
        edited = guide.edit(rows, zero)
        assert (edited - original).abs().max() <= 1e-6
        assert torch.equal(paste(x, edited, guide.method.least), x)
        x, guide = guided(space, conditional, edited)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
def test_more_strength_more_margin(space, conditional):
    _, guide = guided(space, conditional)
    p, rows = guide.problem, torch.arange(4)
    margins = [
        p.judge.margin(guide.edit(rows, torch.full((4,), w)), p.target) for w in (0.0, 0.1, 0.3, 0.6, 1.0)
    ]  # fmt: skip
    steps = torch.stack(margins).diff(dim=0)
    assert (steps > 0).all()


@pytest.mark.parametrize("conditional", [True, False])
def test_rows_are_edited_independently(conditional):
    _, guide = guided((8, 8), conditional)
    w = torch.tensor([0.2, 0.9, 0.4, 0.7])
    together = guide.edit(torch.arange(4), w)
    for rows in ([2], [3, 0], [1, 2, 3]):
        torch.testing.assert_close(guide.edit(torch.tensor(rows), w[rows]), together[rows], atol=1e-6, rtol=0)


@pytest.mark.parametrize("conditional", [True, False])
@pytest.mark.parametrize("steps", [3, 7])
def test_a_replay_costs_what_it_says(conditional, steps):
    method = Minimal(boundary_steps=steps)
    _, guide = guided((8, 8), conditional, method=method)
    p = guide.problem
    first = steps + conditional  # the abduction, and the difference at the first time
    assert p.generator.rows == 4 * first
    p.generator.rows = 0
    guide.edit(torch.tensor([3, 1]), torch.ones(2))
    replay = (steps - 1) * (1 + conditional)  # the first state is known
    assert p.generator.rows == 2 * replay
    assert p.meter.unet_forward.tolist() == [first, first + replay] * 2
    assert p.meter.classifier_backward.tolist() == [0, steps * method.copies] * 2


class Corner(Projection):
    """Looks at the first pixel, which the generator's classes do not touch."""

    def forward(self, x):
        return 20 * x.flatten(1)[:, 0] - 2


def test_the_classifier_consents_to_the_classes_it_looks_at_and_to_no_others():
    rows, w = torch.arange(4), torch.ones(4)
    _, with_ = guided((8, 8), True)
    with_.edit(rows, w)
    assert (with_.consent > 0.5).all()
    _, without = guided((8, 8), True, classifier=Corner((8, 8)))
    edited = without.edit(rows, w)
    assert torch.equal(without.consent, torch.zeros(4))
    steps = without.method.boundary_steps
    assert without.problem.meter.unet_forward.tolist() == [2 * steps] * 4  # the difference was asked for once
    change = (edited - without.problem.x).abs()
    assert (change.flatten(1).argmax(1) == 0).all()
    middle = blob((8, 8)) > 0.5
    assert (change[:, middle].mean(1) < 0.2 * change.flatten(1)[:, 0]).all()


def test_boundary_results_are_certified_local_minima():
    means = class_means((8, 8))
    data = cohort(means, 8)
    result = explain(data, Linear((8, 8)), ClassGaussian(means), 1 - data.y, depth="boundary")
    assert result.certified.all()
    assert result.validity == 1.0
    # one step down the scale of the edit, as recorded
    change = result.x_cf - result.x
    judge = Judge(Linear((8, 8)))
    assert (judge.margin(result.x + 0.9 * change, result.target) < result.margin_after).all()
    assert (result.smaller < result.margin_after).all()


def test_typical_is_a_whole_change():
    means = class_means((8, 8))
    data = cohort(means, 8)
    result = explain(data, Linear((8, 8)), ClassGaussian(means), 1 - data.y, reference=cohort(means, 40, seed=4))
    assert (result.strength >= 1).all()
    assert result.validity == 1.0
    assert (result.consent > 0.5).all()


def test_the_grid_begins_at_the_start_asked_for():
    generator = ClassGaussian(class_means((8, 8)))
    times = Minimal(start=0.5, steps=5).times(generator)
    assert (times[0], times[-1], len(times)) == (500, 0, 6)


class Flat(torch.nn.Module):
    """Saturated in how bright the image is at 2.9, and a little in favour of stripes."""

    def forward(self, x):
        stripes = torch.tensor([1.0, -1.0]).repeat(x.shape[-1] // 2)
        return 2.9 * torch.tanh(9 * x.mean((1, 2, 3))) + 1.5 * (x * stripes).mean((1, 2, 3))


def test_a_near_miss_that_no_scale_mends_is_nudged():
    """The whole edit misses 3 by 0.1 on the flat: the least nudge along the gradient that is enough, and no replay."""
    x = torch.zeros(4, 1, 8, 8)
    _, guide = guided((8, 8), True, x, classifier=Flat())
    guide = replace(guide, problem=replace(guide.problem, target=torch.ones(4).long(), source=torch.zeros(4).long()))
    rows, edited, before = torch.tensor([2, 0]), torch.full((2, 1, 8, 8), 0.5), guide.problem.meter.unet_forward.clone()
    edited[1] = 0.05  # far from convincing: not touched
    excess = guide.judged(rows, edited)
    assert -0.3 < excess[0] < 0
    assert excess[1] < -0.3
    again, found = guide._touched_up(rows, edited.clone(), excess.clone())
    assert found[0] >= 0
    assert 0 < (again[0] - edited[0]).square().mean().sqrt() <= 0.21 * 0.5
    assert torch.equal(again[1], edited[1])
    assert torch.equal(found[0], guide.judged(rows[:1], again[:1])[0])
    assert torch.equal(guide.problem.meter.unet_forward, before)

"""The replay under guidance: nothing at strength 0, more with more strength, and no more than the classifier backs."""

import pytest
import torch

from cfx.counterfactual import explain
from cfx.counterfactual.guidance import Guidance, Guided
from cfx.counterfactual.method import Meter, Problem
from cfx.counterfactual.shrink import paste
from cfx.models.goal import Goal
from cfx.models.judge import Judge
from tests.counterfactual.toys import ClassGaussian, Counted, Linear, Projection, blob, class_means, cohort

SPACES = [(8, 8), (8, 8, 8)]
ROW = torch.tensor([5, 0, 12, 3])


def guided(space, conditional, x=None, guidance=None, classifier=None):
    """Four images and their guidance towards the other class."""
    means = class_means(space)
    x = cohort(means, 4).x if x is None else x
    judge, source = Judge(classifier or Linear(space)), torch.arange(4) % 2
    problem = Problem(
        x=x, source=source, target=1 - source, goal=Goal(torch.full((4,), 3.0)), before=judge.margin(x, 1 - source),
        row=ROW, seed=3, judge=judge, generator=Counted(ClassGaussian(means, conditional)), meter=Meter(4),
        labelled=conditional,
    )  # fmt: skip
    return x, Guided.of(guidance or Guidance(), problem)


@pytest.mark.parametrize(("k", "along", "across"), [(1.0, 3 * 2, 5 * 2), (0.0, 0, 14), (0.5, 3, 5 + 7)])
def test_the_step_is_the_formula_of_the_page(k, along, across):
    """d lives on half of the pixels and g on the others, so |v| is the value there over sqrt 2: 2 / |2| = sqrt 2."""
    half = torch.arange(8).view(1, 1, 2, 4) < 4
    found = Guidance(conditional=3.0, gradient=5.0).step(
        2.0 * half, 40.0 * ~half, torch.full((1, 1, 1, 1), k), torch.tensor(14 / 2**0.5)
    )
    torch.testing.assert_close(found[half], torch.full((4,), float(along)))  # k c d
    torch.testing.assert_close(found[~half], torch.full((4,), float(across)))  # (k a |d| + (1 - k) l) g / |g|


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
def test_strength_zero_returns_the_image_again_and_again(space, conditional):
    x, guide = guided(space, conditional)
    original, rows, zero = x, torch.arange(4), torch.zeros(4)
    for _ in range(10):
        edited = guide.edit(rows, zero)
        assert (edited - original).abs().max() <= 1e-6
        assert torch.equal(paste(x, edited, 0.03), x)
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
    guidance = Guidance(boundary_steps=steps)
    _, guide = guided((8, 8), conditional, guidance=guidance)
    p = guide.problem
    first = steps + conditional  # the abduction, and the difference at the first time
    assert p.generator.rows == 4 * first
    p.generator.rows = 0
    guide.edit(torch.tensor([3, 1]), torch.ones(2))
    replay = (steps - 1) * (1 + conditional)  # the first state is known
    assert p.generator.rows == 2 * replay
    assert p.meter.unet_forward.tolist() == [first, first + replay] * 2
    assert p.meter.classifier_backward.tolist() == [0, steps * guidance.copies] * 2


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
    assert torch.equal(with_.asked, with_.consent)
    steps = without.guidance.boundary_steps
    assert without.problem.meter.unet_forward.tolist() == [2 * steps] * 4  # the difference was asked for once
    change = (edited - without.problem.x).abs()
    assert (change.flatten(1).argmax(1) == 0).all()
    middle = blob((8, 8)) > 0.5
    assert (change[:, middle].mean(1) < 0.2 * change.flatten(1)[:, 0]).all()


def test_the_averaged_gradient_of_a_linear_margin_is_its_own_whatever_the_noise():
    _, guide = guided((8, 8), True)
    p, rows = guide.problem, torch.tensor([2, 0])
    found = guide.averaged(p.gradient, p.x[rows], 4, rows)
    torch.testing.assert_close(found, p.gradient(rows, p.x[rows]))
    seen = []
    guide.averaged(lambda r, x: seen.append((r, x)) or x, p.x[rows], 4, rows)
    ((asked, copies),) = seen
    assert asked.tolist() == [2, 2, 0, 0]
    noise = (copies - p.x[asked]) / guide.guidance.spread
    assert noise.mean().abs() < 0.3
    assert noise.std() == pytest.approx(1, abs=0.15)


def test_the_grid_begins_at_the_start_asked_for():
    generator = ClassGaussian(class_means((8, 8)))
    times = Guidance(start=0.5, steps=5).times(generator)
    assert (times[0], times[-1], len(times)) == (500, 0, 6)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("conditional", [True, False])
def test_the_null_edit_is_the_image(space, conditional):
    x, guide = guided(space, conditional)
    assert (Guidance().null(guide.problem) - x).abs().max() <= 1e-6


def test_nobody_is_asked_for_consent_without_classes():
    """A generator that knows no classes has nothing to consent to: no number, not 0."""
    means = class_means((8, 8))
    data = cohort(means, 4)
    for conditional in (True, False):
        result = explain(data, Linear((8, 8)), ClassGaussian(means, conditional=conditional), 1 - data.y)
        assert (~result.consent.isnan()).all() == conditional

"""One step: what it costs, its direction on images whose generator is known, and that the rest stays as it was."""

from dataclasses import replace

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual.baselines.one_step import OneStep
from tests.counterfactual.baselines.problems import part, problem, spent
from tests.counterfactual.toys import ClassGaussian, class_means

SPACES = [(8, 8), (6, 6, 6)]


def labelled(space=(8, 8), **more):
    return problem(space, generator=ClassGaussian(class_means(space)), labelled=True, **more)


@pytest.mark.parametrize("draws", [1, 3])
def test_two_evaluations_whatever_the_strength(draws):
    p = labelled(margin=1000.0)
    OneStep(draws=draws).propose(p)
    cost = spent(p)
    assert cost["unet_forward"] == [2 * draws] * 4
    assert cost["unet_backward"] == cost["classifier_backward"] == [0] * 4
    assert cost["classifier"] == [6] * 4


@pytest.mark.parametrize("space", SPACES)
def test_the_edit_is_the_difference_of_the_class_means(space):
    """x_t says nothing at sigma = 1, so the posterior means are those of the classes."""
    p = labelled(space, margin=0.1)
    found = OneStep(start_sigma=1.0, strengths=(1.0,), threshold=1e-4).propose(p)
    means = class_means(space)
    step = means[p.target] - means[p.source]
    assert (p.judge.margin(found.image, p.target) >= 0.1).all()
    torch.testing.assert_close(found.image, (p.x + step).clamp(-1, 1), atol=5e-3, rtol=0)


@pytest.mark.parametrize("space", SPACES)
def test_small_changes_are_not_made_and_the_batch_does_not_matter(space):
    p = labelled(space, margin=3.0)
    found = OneStep().propose(p)
    blob = class_means(space)[1]
    untouched = (blob == 0).expand_as(p.x)  # the classes agree there
    assert torch.equal(found.image[untouched], p.x[untouched])
    assert not torch.equal(found.image, p.x)
    for rows in ([2], [3, 0]):
        got = OneStep().propose(part(labelled(space, margin=3.0), rows))
        torch.testing.assert_close(got.image, found.image[rows], atol=1e-5, rtol=0)
        assert torch.equal(got.strength, found.strength[rows])


def test_the_first_strength_that_convinces_is_kept():
    p = labelled(margin=1.0)
    every = [OneStep(strengths=(s,)).propose(labelled(margin=1e6)).image for s in OneStep.strengths]
    reached = torch.stack([p.judge.margin(image, p.target) for image in every]) >= 1
    found = OneStep().propose(p)
    expected = [next((s for s, ok in zip(OneStep.strengths, reached[:, k], strict=True) if ok), None) for k in range(4)]
    assert None not in expected
    torch.testing.assert_close(found.strength, torch.tensor(expected))


def test_outside_of_what_may_change_nothing_does():
    allowed = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    allowed[..., :5] = True
    p = labelled(allowed=allowed)
    found = OneStep().propose(p)
    assert torch.equal(found.image[..., 5:], p.x[..., 5:])


def test_refuses_what_it_cannot_use():
    with pytest.raises(InputError, match="one-step expected one whose class labels"):
        OneStep().propose(problem())
    with pytest.raises(InputError, match="expected a diffusion model, got str"):
        OneStep().propose(replace(problem(), generator="vae"))

"""Guided DDIM: back without guidance, towards the target with it; its cost and its ladders."""

from dataclasses import replace

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual.baselines.ddim import DdimGuidance, normalised
from cfx.models.goal import Goal
from tests.counterfactual.baselines.problems import Breaks, laws, part, problem, spent
from tests.counterfactual.toys import ClassGaussian, Cliff, class_means

SPACES = [(8, 8), (6, 6, 6)]
SHORT = DdimGuidance(steps=10)


def labelled(space=(8, 8), **more):
    return problem(space, generator=ClassGaussian(class_means(space)), labelled=True, **more)


def test_the_published_cost():
    p = labelled((4, 4), margin=-100.0)
    p = replace(p, before=torch.full((4,), -200.0))
    DdimGuidance().propose(p)
    cost = spent(p)
    assert cost["unet_forward"] == [75 + 150] * 4
    assert cost["unet_backward"] == cost["classifier_backward"] == [0] * 4
    assert cost["classifier"] == [1] * 4


def test_rows_that_convince_leave():
    p = problem()
    p = replace(p, goal=Goal(torch.tensor([1.0, 100.0, 1.0, 1.0])))
    found = replace(SHORT, classifier_scales=(0.01, 3.0, 5.0)).propose(p)
    assert (found.strength[[0, 2, 3]] == 3).all()
    rungs = torch.tensor([2, 3, 2, 2])
    cost = spent(p)
    assert cost["unet_forward"] == (10 + 10 * rungs).tolist()
    assert cost["classifier_backward"] == (10 * rungs).tolist()
    assert cost["classifier"] == (11 * rungs).tolist()


@pytest.mark.parametrize("space", SPACES)
def test_laws(space):
    laws(SHORT, space)


@pytest.mark.parametrize("space", SPACES)
def test_labels_do_not_depend_on_the_batch(space):
    whole = labelled(space, margin=3.0)
    found = SHORT.propose(whole)
    for rows in ([2], [3, 0]):
        got = SHORT.propose(part(whole, rows))
        torch.testing.assert_close(got.image, found.image[rows], atol=1e-5, rtol=0)
        assert torch.equal(got.strength, found.strength[rows])


@pytest.mark.parametrize("make", [labelled, problem])
def test_without_guidance_the_image_comes_back_the_nearer_the_more_steps(make):
    p = make()
    error = []
    for steps in (10, 100):
        method = DdimGuidance(steps=steps)
        times = p.diffusion.schedule.times(steps, start=p.diffusion.schedule.time_of(0.998))
        back = method._decode(p, times, p.everyone, method._invert(p, times), 0.0)
        error.append((back - p.x).square().mean().sqrt())
    assert error[1] < 0.3 * error[0]
    assert error[1] < 0.03


def test_labels_lead_to_the_target_class():
    p = labelled(margin=1e-3)
    found = DdimGuidance(scales=(1.0,)).propose(p)
    assert (p.judge.margin(found.image, p.target) > 0).all()
    means = class_means((8, 8))
    change = found.image - p.x
    step = means[p.target] - means[p.source]
    cosine = torch.nn.functional.cosine_similarity(change.flatten(1), step.flatten(1))
    assert (cosine > 0.9).all()


@pytest.mark.parametrize("make", [labelled, problem])
def test_more_scale_more_margin(make):
    p = make(margin=1000.0)
    scales = (0.3, 3.0)
    found = [replace(SHORT, scales=(s,), classifier_scales=(s,)).propose(p).image for s in scales]
    weak, strong = (p.judge.margin(image, p.target) for image in found)
    assert (p.before < weak).all()
    assert (weak < strong).all()


def test_guidance_by_the_classifier_moves_the_noise_as_on_the_page():
    p = problem()
    t, scale, x_t = 300, 2.0, 0.7 * p.x
    free = p.posterior(p.everyone, x_t, t)
    q = SHORT._guided(p, p.everyone, x_t, t, scale)
    g = p.log_gradient(p.everyone, free.mean.clamp(-1, 1))
    torch.testing.assert_close(q.eps, free.eps - scale * free.sigma * g, atol=1e-5, rtol=0)


def test_normalised_scales_what_is_too_large():
    x0 = torch.linspace(0, 2, 101).view(1, 1, 101)
    x0 = torch.cat([x0, 0.5 * x0, -x0])
    out = normalised(x0, 0.9)
    limit = float(x0[0, 0, 90])  # the 91st of 101 values
    torch.testing.assert_close(out[0], (x0[0] / limit).clamp(max=1))
    assert torch.equal(out[1], x0[1])
    torch.testing.assert_close(out[2], -out[0])


def test_nan_is_named():
    p = problem(generator=Breaks((8, 8)))
    found = SHORT.propose(p)
    bad = p.generator.generator.bad
    assert torch.equal(found.finite, ~bad)
    assert torch.equal(found.image[bad], p.x[bad])
    healthy = SHORT.propose(problem())
    torch.testing.assert_close(found.image[~bad], healthy.image[~bad], atol=1e-5, rtol=0)
    assert set(p.meter.unet_forward[bad].tolist()) == {20}
    assert not SHORT.propose(problem(classifier=Cliff((8, 8)))).finite.any()


def test_refuses_what_is_no_diffusion_model():
    with pytest.raises(InputError, match="expected a diffusion model, got str"):
        DdimGuidance().propose(replace(problem(), generator="vae"))

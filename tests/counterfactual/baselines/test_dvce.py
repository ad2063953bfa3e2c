"""DVCE: what it costs, its norm matching, its copies, its cone, and its gradient through the generator."""

import math

import pytest
import torch

from cfx.core.broadcast import each, rms, unit
from cfx.core.errors import InputError
from cfx.counterfactual.baselines.dvce import Dvce, onto_cone, shifted
from cfx.counterfactual.baselines.respaced import Reverse
from tests.counterfactual.baselines.problems import Still, assert_names_nan, laws, part, problem, spent
from tests.counterfactual.toys import ClassGaussian, Fragile, Quadratic, class_means

SHORT = Dvce(steps=8, copies=3)


@pytest.mark.parametrize("robust", [None, Quadratic(class_means((4, 4)))])
def test_one_published_scale_costs_100_evaluations_and_200_or_300_back(robust):
    p = part(problem((4, 4), margin=100.0), [0])
    Dvce(scales=(0.1,), robust=robust).propose(p)
    nets = 1 if robust is None else 2
    assert p.meter.unet_forward.tolist() == [100]
    assert p.meter.unet_backward.tolist() == [100 * (nets + 1)]
    assert p.meter.classifier_backward.tolist() == [1600 * nets]
    assert p.meter.classifier.tolist() == [1600 * nets + 1]


def test_rows_that_convince_leave():
    p = problem(margin=-1.0)
    found = SHORT.propose(p)
    scales = torch.tensor([1 + [0.1, 0.2, 0.4].index(round(s, 3)) if s else 3 for s in found.strength.tolist()])
    cost = spent(p)
    assert cost["unet_forward"] == (scales * 8).tolist()
    assert cost["unet_backward"] == (scales * 16).tolist()
    assert cost["classifier_backward"] == (scales * 24).tolist()


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_laws(space):
    laws(SHORT, space)


def test_nan_is_named():
    assert_names_nan(SHORT)


def test_refuses_a_generator_without_gradient():
    with pytest.raises(InputError, match="generator: expected a posterior with a gradient"):
        SHORT.propose(problem(generator=Still(problem().x)))


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_the_direction_is_the_gradient_of_the_loss_as_long_as_the_noise(space):
    """Against automatic differentiation of the whole, in one go."""
    p = problem(space, classifier=Quadratic(class_means(space)))
    rows, method = torch.tensor([3, 1]), Dvce(copies=3, steps=8)
    reverse = Reverse(p, 0.96, 8)
    z = reverse.noised(rows, 0).requires_grad_(True)
    x0, g = method._guidance(reverse, rows, z, 0, 0.3)

    q = ClassGaussian(class_means(space), conditional=False)(z, reverse.times[0])
    shifts = method._shifts(p, rows, reverse.times[0])
    assert (shifts[:, 0] == 0).all()
    every = rows.repeat_interleave(3)
    logits = p.judge.logits(shifted(q.mean, shifts).clamp(-1, 1))
    score = logits.log_softmax(1).gather(1, p.target[every][:, None]).sum() / 3
    (towards,) = torch.autograd.grad(score, z, retain_graph=True)
    (away,) = torch.autograd.grad((q.mean - p.x[rows]).abs().sum(), z)
    torch.testing.assert_close(x0, q.mean.detach())
    expected = each(rms(q.eps.detach()), q.mean) * (0.3 * unit(towards) - 0.15 * unit(away))
    torch.testing.assert_close(g, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("axes", [2, 3])
def test_shifts_move_whole_images(axes):
    x = torch.rand(2, 2, *[5] * axes, generator=torch.Generator().manual_seed(0))
    shifts = torch.zeros(2, 3, axes, dtype=torch.long)
    shifts[1, 1, 0], shifts[1, 2, -1] = 2, -1
    moved = shifted(x, shifts).view(2, 3, *x.shape[1:])
    assert torch.equal(moved[0], x[0].expand(3, *x.shape[1:]))
    assert torch.equal(moved[1, 1, :, 2:], x[1, :, :-2])
    assert torch.equal(moved[1, 1, :, :2], x[1, :, :1].expand_as(x[1, :, :2]))
    assert torch.equal(moved[1, 2, ..., :-1], x[1, ..., 1:])


def test_shifts_are_spread_evenly_up_to_their_limit():
    p = problem((20, 20))
    shifts = Dvce(copies=400)._shifts(p, p.everyone, 7)[:, 1:].flatten()
    counts = torch.bincount(shifts + 2)
    assert len(counts) == 5
    assert counts.min() > 0.8 * counts.float().mean()


def test_the_cone():
    generator = torch.Generator().manual_seed(0)
    around, g = torch.randn(2, 40, 1, 3, 3, generator=generator, dtype=torch.float64)
    g = g + torch.linspace(0, 4, 40, dtype=torch.float64).view(-1, 1, 1, 1) * around
    near = torch.nn.functional.cosine_similarity
    before, out = near(g.flatten(1), around.flatten(1)), onto_cone(g, around, 30.0)
    after = near(out.flatten(1), around.flatten(1))
    inside = before >= math.cos(math.pi / 6)
    assert inside.any()
    assert not inside.all()
    assert torch.equal(out[inside], g[inside])
    torch.testing.assert_close(after[~inside], torch.full_like(after[~inside], math.cos(math.pi / 6)))
    # nearest in angle: the three directions lie in one plane, so the angles add up
    turned = near(out.flatten(1), g.flatten(1))[~inside].acos()
    torch.testing.assert_close(turned, before[~inside].acos() - math.pi / 6, atol=1e-6, rtol=0)


def test_more_scale_goes_further_and_a_robust_classifier_matters():
    p = problem(margin=100.0)
    weak, strong = (Dvce(scales=(s,), copies=2, steps=25).propose(p).image for s in (0.1, 0.4))
    assert (p.judge.margin(strong, p.target) > p.judge.margin(weak, p.target)).all()
    other = Dvce(scales=(0.4,), copies=2, steps=25, robust=Fragile((8, 8))).propose(p).image
    assert (other - strong).abs().max() > 1e-3

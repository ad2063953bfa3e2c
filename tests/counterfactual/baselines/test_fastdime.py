"""FastDiME and FastDiME-2: what they cost, their masks, and that nothing changes outside them."""

from dataclasses import replace

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual.baselines.fastdime import FastDime, FastDime2
from cfx.counterfactual.baselines.respaced import Reverse
from tests.counterfactual.baselines.problems import Indifferent, Still, assert_names_nan, laws, part, problem, spent

SHORT = FastDime(steps=12, warmup=6)
SHORT2 = FastDime2(steps=12)


@pytest.mark.parametrize(("method", "passes"), [(FastDime(scales=(8.0,)), 1), (FastDime2(scales=(8.0,)), 2)])
def test_one_published_scale_costs_60_evaluations_a_pass(method, passes):
    p = part(problem((4, 4), margin=100.0), [0])
    method.propose(p)
    assert p.meter.unet_forward.tolist() == [60 * passes]
    assert p.meter.unet_backward.tolist() == [0]
    assert p.meter.classifier_backward.tolist() == [60 * passes]
    assert p.meter.classifier.tolist() == [60 * passes + 1]


def test_names():
    assert (FastDime.name, FastDime2.name, FastDime2().passes) == ("fastdime", "fastdime-2", 2)
    with pytest.raises(InputError, match="passes: expected at least 1, got 0"):
        FastDime(passes=0)


@pytest.mark.parametrize("method", [SHORT, SHORT2])
def test_rows_that_convince_leave(method):
    p = problem()
    found = method.propose(p)
    scales = 1 + torch.tensor([method.scales.index(s) for s in found.strength.tolist()])
    cost = spent(p)
    assert cost["unet_forward"] == cost["classifier_backward"] == (scales * 12 * method.passes).tolist()


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
@pytest.mark.parametrize("method", [SHORT, SHORT2, replace(SHORT, medical=True)])
def test_laws(space, method):
    laws(method, space)


@pytest.mark.parametrize("method", [SHORT, SHORT2])
def test_nan_is_named(method):
    assert_names_nan(method)


@pytest.mark.parametrize("method", [SHORT, SHORT2])
def test_no_change_is_an_empty_mask_not_nan(method):
    p = problem(margin=100.0, classifier=Indifferent())
    p = problem(margin=100.0, classifier=Indifferent(), generator=Still(p.x))
    walked = method.propose(p)
    assert walked.finite.all()
    assert torch.equal(walked.image, p.x)


def test_the_mask_is_the_dilated_large_change():
    x = torch.zeros(2, 1, 12, 12)
    edited = x.clone()
    edited[0, 0, 3, 3], edited[0, 0, 9, 9] = 1.0, -0.1
    edited[1, 0, 9, 9] = -1e-3
    mask = SHORT._changed(x, edited)
    expected = torch.zeros_like(mask)
    expected[0, 0, 1:6, 1:6] = True
    expected[1, 0, 7:12, 7:12] = True
    assert torch.equal(mask, expected)


@pytest.mark.parametrize("method", [SHORT, SHORT2])
def test_nothing_changes_outside_the_mask(method):
    """The generator sees the images with one bright voxel, so the mask is known; guidance pulls everywhere."""
    space = (12, 12)
    edited = problem(space).x.clone()
    edited[:, 0, 3, 4] = 1.0
    p = problem(space, generator=Still(edited), margin=100.0)
    image = replace(method, scales=(8.0,)).propose(p).image
    better = p.judge.margin(image, p.target) > p.before  # else the unchanged image is the closest
    assert better.any()
    inside = torch.zeros_like(image, dtype=torch.bool)
    inside[:, :, 1:6, 2:7] = True
    assert torch.equal(image[~inside], p.x[~inside])
    torch.testing.assert_close(image[better][:, 0, 3, 4], edited[better][:, 0, 3, 4], atol=0.1, rtol=0)


def test_the_medical_program_descends_its_own_loss():
    p = problem(margin=100.0)
    method = FastDime(scales=(2.0,), l1=0.3, steps=1, warmup=1, medical=True)
    reverse = Reverse(p, 0.5, 1)
    z = reverse.noised(p.everyone, 0)
    x0 = reverse.estimate(p.everyone, z, 0)
    g = 2.0 * (0.3 * (x0 - p.x).sign() - p.log_gradient(p.everyone, x0))
    walked = method._walk(reverse, p.everyone, z, 2.0, 1, None)
    assert g.abs().max() > 0
    torch.testing.assert_close(walked, reverse.mean(x0, z, 0, g))


def test_outside_the_mask_the_walk_keeps_the_level_of_the_step():
    """Where nothing is inside, every state is a draw of q(x, t) and the end is x itself."""
    p = problem(margin=100.0, classifier=Indifferent())
    seen = []

    class Watched(Still):
        def __call__(self, x_t, t, label=None):
            seen.append((t, x_t))
            return super().__call__(x_t, t, label)

    p = replace(p, generator=Watched(p.x))
    reverse = Reverse(p, 0.774, 4)
    end = replace(SHORT, warmup=0)._walk(reverse, p.everyone, reverse.noised(p.everyone, 0), 8.0, 0, None)
    assert torch.equal(end, p.x)
    for i, (_, x_t) in list(enumerate(seen))[1:]:
        before = reverse.times[i - 1]
        eps = (x_t - reverse.schedule.alpha(before, x_t) * p.x) / reverse.schedule.sigma(before, x_t)
        assert float(eps.std()) == pytest.approx(1.0, abs=0.15)


@pytest.mark.parametrize("kind", [FastDime, FastDime2])
def test_reaches_the_margin(kind):
    p = problem(margin=3.0)
    found = kind(steps=30, warmup=15).propose(p)
    assert (p.judge.margin(found.image, p.target) >= 3).all()

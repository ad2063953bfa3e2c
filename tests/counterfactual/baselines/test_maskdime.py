"""MaskDiME: what it costs, its two masks, and that only the least noise is left outside the outer one."""

import pytest
import torch

from cfx.counterfactual.baselines.maskdime import MaskDime
from cfx.counterfactual.baselines.respaced import Reverse
from tests.counterfactual.baselines.problems import Indifferent, assert_names_nan, laws, part, problem, spent
from tests.counterfactual.toys import Linear

SHORT = MaskDime(steps=12)


def test_one_published_scale_costs_60_evaluations():
    p = part(problem((4, 4), margin=1000.0), [0])
    MaskDime(scales=(8.0,)).propose(p)
    assert p.meter.unet_forward.tolist() == [60]
    assert p.meter.unet_backward.tolist() == [0]
    assert p.meter.classifier_backward.tolist() == [60]
    assert p.meter.classifier.tolist() == [61]


def test_rows_that_convince_leave():
    p = problem(margin=3.0)
    found = SHORT.propose(p)
    scales = 1 + torch.tensor([SHORT.scales.index(s) for s in found.strength.tolist()])
    cost = spent(p)
    assert cost["unet_forward"] == cost["classifier_backward"] == (scales * 12).tolist()


@pytest.mark.parametrize("space", [(8, 8), (6, 6, 6)])
def test_laws(space):
    laws(SHORT, space)


def test_nan_is_named():
    assert_names_nan(SHORT)


def least_noise(p, steps=12):
    """The level that the last step leaves where nothing is guided, and a bound of eight standard deviations."""
    schedule = p.diffusion.schedule
    t = schedule.times(steps, start=schedule.time_of(0.774))[-2]
    return 1 - float(schedule.alpha(t, p.x)) + 8 * float(schedule.sigma(t, p.x))


def walked(method, p):
    """z_0 of the first scale, whatever it is worth."""
    reverse = Reverse(p, method.start_sigma, method.steps)
    return method._walk(reverse, p.everyone, reverse.noised(p.everyone, 0), method.scales[0])


def test_without_a_gradient_only_the_least_noise_is_left():
    p = problem(margin=100.0, classifier=Indifferent())
    away = (walked(SHORT, p) - p.x).abs()
    assert 0 < away.max() < least_noise(p)


class Corner(Linear):
    """A linear classifier has one gradient, so the masks are known."""

    def forward(self, x):
        weight = torch.zeros(x.shape[1:])
        weight[0, 2, 3] = 9.0
        weight[0, 8, 8:10] = 2.0
        weight[0, 0, 12] = 1.0
        return (weight * x).flatten(1).sum(1)


def test_only_the_outer_mask_is_guided():
    p = problem((16, 16), classifier=Corner((16, 16)), margin=1.0)
    # 3 of 256 voxels are guided (2, and one that is as strong), dilated by one voxel
    away = (walked(MaskDime(steps=12, share=2 / 256, width=3), p) - p.x).abs()
    guided = torch.zeros_like(away, dtype=torch.bool)
    guided[:, :, 1:4, 2:5] = True
    guided[:, :, 7:10, 7:11] = True
    assert away[~guided].max() < least_noise(p)
    assert away[guided].max() > 2 * least_noise(p)


def test_no_noise_inside_the_mask_and_one_factor_on_both_gradients():
    p = problem((16, 16), classifier=Corner((16, 16)), margin=1.0)
    method = MaskDime(scales=(2.0,), boost=3.0, l1=0.1, steps=12, share=1 / 256, width=1)
    reverse = Reverse(p, method.start_sigma, method.steps)
    z = reverse.noised(p.everyone, 0)
    states = []
    step = reverse.mean
    reverse.mean = lambda *a: states.append((a, step(*a))) or states[-1][1]
    method._walk(reverse, p.everyone, z, 2.0)
    _, z_t, _, g = states[0][0]
    slope = p.gradient(p.everyone, p.x)
    expected = 3.0 * (0.1 * (z_t - p.x).sign() - 2.0 / reverse.schedule.alpha(reverse.times[0], p.x) * slope)
    torch.testing.assert_close(g, expected)
    # the next state is the mean itself in the one voxel that is guided
    assert torch.equal(states[1][0][1][..., 2, 3], states[0][1][..., 2, 3])
    assert (states[1][0][1] != states[0][1]).sum() == 4 * 255


def test_the_classifier_sees_this_step_s_estimate_inside_the_inner_mask():
    p = problem((16, 16), classifier=Corner((16, 16)), margin=1.0)
    method = MaskDime(scales=(2.0,), steps=3, share=2 / 256, ratio=0.5, width=1)
    seen, estimates = [], []
    judge, gradient = p, p.judge.gradient
    reverse = Reverse(p, method.start_sigma, method.steps)
    estimate = reverse.estimate
    reverse.estimate = lambda *a: estimates.append(estimate(*a)) or estimates[-1]
    p.judge.gradient = lambda image, *a: seen.append(image) or gradient(image, *a)
    method._walk(reverse, judge.everyone, reverse.noised(p.everyone, 0), 2.0)
    assert torch.equal(seen[0], p.x)
    for image, x0 in zip(seen[1:], estimates[1:], strict=True):
        expected = p.x.clone()
        expected[..., 2, 3] = x0[..., 2, 3]
        assert torch.equal(image, expected)


def test_reaches_the_margin():
    p = problem(margin=3.0)
    found = MaskDime(steps=30).propose(p)
    assert (p.judge.margin(found.image, p.target) >= 3).all()

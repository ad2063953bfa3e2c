"""MaskDiME: what it costs, its two masks, and that nothing changes outside the inner one."""

import pytest
import torch

from cfx.counterfactual.baselines.maskdime import MaskDime
from tests.counterfactual.baselines.problems import Indifferent, assert_names_nan, laws, part, problem, spent
from tests.counterfactual.toys import Linear

SHORT = MaskDime(steps=40, depth=12)


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


def test_without_a_gradient_nothing_changes():
    p = problem(margin=100.0, classifier=Indifferent())
    found = SHORT.propose(p)
    assert found.finite.all()
    assert torch.equal(found.image, p.x)


def test_only_the_inner_mask_changes():
    """A linear classifier has one gradient, so the mask is known."""

    class Corner(Linear):
        def forward(self, x):
            weight = torch.zeros(x.shape[1:])
            weight[0, 2, 3] = 9.0
            weight[0, 8, 8:10] = 2.0
            weight[0, 0, 12] = 1.0
            return (weight * x).flatten(1).sum(1)

    p = problem((16, 16), classifier=Corner((16, 16)), margin=1.0)
    # 1 of 256 voxels is pasted, 2 of 256 (3, because two are equally strong) are guided
    found = MaskDime(steps=40, depth=12, share=2 / 256, ratio=0.5, width=3).propose(p)
    changed = found.image != p.x
    assert changed.any(0)[0, 1:4, 2:5].all()
    changed[:, :, 1:4, 2:5] = False
    assert not changed.any()


def test_reaches_the_margin():
    p = problem(margin=3.0)
    found = MaskDime(steps=100, depth=30).propose(p)
    assert (p.judge.margin(found.image, p.target) >= 3).all()

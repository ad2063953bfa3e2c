"""The least strength that convinces: certified at the boundary, a whole change at depth typical."""

import torch

from cfx.counterfactual import explain
from cfx.counterfactual.minimal import Minimal
from cfx.models.judge import Judge
from tests.counterfactual.toys import ClassGaussian, Linear, Projection, class_means, cohort


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


class Flat(Projection):
    """Never much surer than 2.9 of its class, and a little in favour of stripes."""

    def forward(self, x):
        stripes = torch.tensor([1.0, -1.0]).repeat(x.shape[-1] // 2)
        return 2.9 * torch.tanh(12 * self.u(x) + 1) + 1.5 * (x * stripes).mean((1, 2, 3))


def test_a_near_miss_is_touched_up_without_another_replay():
    """Whole edits miss 2.944 on the flat by a hair."""
    means = class_means((8, 8))
    data = cohort(means, 24)
    strict, touched = (
        explain(data, Flat((8, 8)), ClassGaussian(means), 1 - data.y, method=Minimal(trials=1, tolerance=t))
        for t in (0.0, 0.3)
    )
    mended = touched.flipped & (touched.margin_after >= touched.margin) & (strict.margin_after < strict.margin)
    assert mended.sum() >= 4
    assert (strict.margin_after >= strict.margin).sum() >= 4  # whole edits that convince
    assert (touched.margin_after >= strict.margin_after - 1e-6).all()
    assert torch.equal(touched.nfe_unet_forward, strict.nfe_unet_forward)
    assert torch.equal(touched.strength[mended], torch.ones(int(mended.sum())))
    change = (touched.x_cf - strict.x_cf)[mended].flatten(1)
    whole = (strict.x_cf - strict.x)[mended].flatten(1)
    assert (change.square().mean(1) < 0.4**2 * whole.square().mean(1)).all()  # 0.2 of it, and what pasting then keeps

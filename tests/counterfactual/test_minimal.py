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


class Proposed(Minimal):
    """Keeps what it proposes, before anything of it is taken back."""

    def propose(self, problem):
        found = super().propose(problem)
        IMAGES.setdefault(self.tolerance, {}).update(zip(problem.row.tolist(), found.image, strict=True))
        return found


IMAGES: dict[float, dict[int, torch.Tensor]] = {}


def test_a_near_miss_is_touched_up_without_another_replay():
    """Whole edits miss 2.944 on the flat by a hair."""
    means = class_means((8, 8))
    data = cohort(means, 24)
    strict, touched = (
        explain(data, Flat((8, 8)), ClassGaussian(means), 1 - data.y, method=Proposed(trials=1, tolerance=t))
        for t in (0.0, 0.3)
    )
    mended = touched.reached & ~strict.reached
    assert mended.sum() >= 4
    assert strict.reached.sum() >= 4  # whole edits that convince
    assert (touched.margin_after >= strict.margin_after - 1e-6).all()
    replays = [r.nfe_unet_forward - r.reached.long() for r in (strict, touched)]  # what is reached is noised once more
    assert torch.equal(*replays)
    assert torch.equal(touched.strength[mended], torch.ones(int(mended.sum())))
    long, short = (torch.stack([IMAGES[t][i] for i in range(24)]) for t in (0.3, 0.0))
    change, whole = (v[mended].flatten(1) for v in (long - short, short - strict.x))
    assert (change.square().mean(1) < 0.4**2 * whole.square().mean(1)).all()  # 0.2 of it, and what pasting then keeps

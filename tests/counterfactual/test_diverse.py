"""Further explanations use other means, are verified by themselves, and fail by name where there are none."""

from dataclasses import replace

import pytest
import torch

from cfx.core.errors import InputError
from cfx.counterfactual import Minimal, diverse, explain
from cfx.counterfactual.diverse import strongest
from cfx.counterfactual.metrics import diversity
from tests.counterfactual.metrics.hand_made import result_of
from tests.counterfactual.toys import ClassGaussian, Linear, Projection, assert_same, class_means, cohort, tensors

QUICK = Minimal(steps=6, trials=6)


def three(space=(8, 8), conditional=False):
    means = class_means(space)
    return cohort(means, 5), Linear(space), ClassGaussian(means, conditional)


@pytest.mark.parametrize("space", [(8, 8), (8, 8, 8)])
def test_every_run_leaves_alone_what_the_earlier_ones_used(space):
    runs = diverse(*three(space), 3, depth="boundary", method=QUICK)
    assert len(runs) == 3
    x = runs[0].x
    for j, run in enumerate(runs):
        assert torch.equal(run.target, runs[0].target)
        assert run.validity == 1.0
        for earlier in runs[:j]:
            used = strongest(earlier)
            assert used.flatten(1).any(1).all()
            assert torch.equal(run.x_cf[used.expand_as(x)], x[used.expand_as(x)])
    # edits that share no voxel of a quarter of each other's energy are apart by at least half a size, in root squares
    size = torch.stack([(r.x_cf - x).square().flatten(1).mean(1).sqrt() for r in runs]).amin(0)
    assert (diversity(runs) > 0.5 * size).all()
    seeds = [explain(*three(space), depth="boundary", method=QUICK, seed=s) for s in range(3)]
    assert (diversity(runs) > 2 * diversity(seeds)).all()


def test_the_first_is_the_ordinary_explanation():
    (first,) = diverse(*three(), 1, seed=4, method=QUICK)
    assert_same(tensors(first), tensors(explain(*three(), seed=4, method=QUICK)), tolerance=0)


def test_rows_do_not_depend_on_the_batch():
    whole, apart = (diverse(*three(conditional=True), 2, method=QUICK, batch_size=n) for n in (5, 2))
    for a, b in zip(whole, apart, strict=True):
        assert_same(tensors(a), tensors(b))


def test_what_the_user_keeps_stays_in_all_runs():
    keep = torch.zeros(5, 1, 8, 8, dtype=torch.bool)
    keep[..., :4] = True
    for run in diverse(*three(), 2, depth="boundary", keep=keep, method=QUICK):
        assert torch.equal(run.x_cf[keep], run.x[keep])


class OnePixel(Projection):
    """Looks at one pixel only, so there is one way and no other."""

    def forward(self, x):
        return 20 * x[:, 0, 4, 4]


def test_a_row_without_another_way_fails_and_what_it_tried_is_not_forbidden():
    data, _, generator = three()
    runs = diverse(data, OnePixel((8, 8)), generator, 3, 1, depth="boundary", method=QUICK)
    there = torch.tensor([v == "already" for v in runs[0].verdicts])
    assert 0 < there.sum() < 5
    assert runs[0].validity == 1.0
    for run in runs[1:]:
        assert [v == "budget" for v in run.verdicts] == (~there).tolist()
        assert torch.equal(run.x_cf[:, 0, 4, 4], run.x[:, 0, 4, 4])
    assert not strongest(runs[1]).any()


def test_the_strongest_voxels_are_the_fewest_that_hold_a_quarter():
    x = torch.zeros(3, 2, 2, 2)
    e = torch.tensor([[2.0, 1.0], [1.0, 0.0]]).sqrt() / 4
    result = result_of(x, torch.stack([e, e, 0 * e])[:, None] * torch.tensor([0.6, -0.8]).view(1, 2, 1, 1))
    found = strongest(replace(result, margin_after=torch.tensor([1.5, 0.5, 1.5])))
    assert found[:, 0].tolist() == [[[True, False], [False, False]]] + 2 * [[[False, False], [False, False]]]
    even = result_of(x, torch.full_like(x, 0.1))
    assert strongest(even).flatten(1).sum(1).tolist() == [1, 1, 1]


def test_none_asked_for_is_refused():
    with pytest.raises(InputError, match="k: expected at least one explanation, got 0"):
        diverse(*three(), 0)

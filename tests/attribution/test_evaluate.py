"""Figures of maps: known answers on models and maps that are known."""

import pytest
import torch

from cfx.attribution import attribute
from cfx.attribution.evaluate import curves, infidelity, localisation, max_sensitivity, ranks, unexplained
from cfx.core.errors import InputError
from tests.attribution.networks import Linear, images


def corner(x: torch.Tensor) -> torch.Tensor:
    """Sure of class 1 as long as the first of sixteen voxels is bright."""
    return 50 * torch.stack([-x.flatten(1)[:, 0], x.flatten(1)[:, 0]], 1)


@pytest.mark.parametrize("space", [(4, 4), (2, 2, 4)])
def test_the_map_of_the_one_voxel_that_counts_is_best_and_its_opposite_worst(space):
    x = torch.ones(1, 1, *space)
    a = torch.zeros_like(x).flatten()
    a[0] = 1
    a, fill, target = a.view_as(x), -x, torch.tensor([1])
    best, worst = (curves(corner, x, sign * a, fill, target) for sign in (1, -1))
    assert best.deletion[0].tolist() == pytest.approx([1] + 16 * [0], abs=1e-6)
    assert best.insertion[0].tolist() == pytest.approx([0] + 16 * [1], abs=1e-6)
    assert float(worst.areas["deletion"]) == pytest.approx(15.5 / 16)
    assert float(best.areas["deletion"]) == pytest.approx(0.5 / 16)


def test_ties_go_by_their_place_and_channels_are_summed():
    a = torch.tensor([[[[1.0, 3.0], [1.0, 0.0]], [[0.0, 0.0], [0.0, 5.0]]]])
    assert ranks(a).flatten().tolist() == [2, 1, 3, 0]


def test_weights_predict_a_linear_model_wholly_and_noise_not_at_all():
    f, x, target = Linear(), images(3), torch.tensor([0, 1, 2])
    w = f.w.detach()
    assert float(infidelity(f, x, 3 * w, target).max()) < 1e-6  # whatever the scale
    assert float(infidelity(f, x, images(3, seed=9), target, draws=200).min()) > 0.8
    said = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    assert unexplained(said, torch.tensor([[1.0, 1.0], [2.0, 0.0]])).tolist() == [0.5, 1.0]


def test_sensitivity_is_that_of_the_map():
    x = images(2).clamp(-0.9, 0.9)
    still = max_sensitivity(lambda v: attribute(Linear(), v, 1, method="saliency"), x)
    assert still.tolist() == [0.0, 0.0]
    moved = max_sensitivity(lambda v: attribute(Linear(), v, 1, method="input-x-gradient"), x, radius=0.1)
    assert 0 < float(moved.min()) < float(moved.max()) < 0.5


def test_a_map_of_the_truth_finds_it_and_no_truth_is_no_number():
    truth = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    truth[0, 0, 1, 1] = truth[0, 0, 2, 2] = True
    found = localisation(-2.0 * truth, truth)
    assert {k: v[0].item() for k, v in found.items()} == {
        "auprc": 1.0, "auprc_base": 0.125, "pointing": 1.0, "share_inside": 1.0,
    }  # fmt: skip
    assert all(bool(v[1].isnan()) for v in found.values())


@pytest.mark.parametrize(
    ("a", "fill", "target", "said"),
    [
        (torch.zeros(2, 1, 4, 4), None, torch.zeros(2).long(), "a: expected maps"),
        (None, torch.zeros(2, 1, 4, 4), torch.zeros(2).long(), "fill: expected"),
        (None, None, torch.zeros(3).long(), "target: expected one class"),
    ],
)
def test_what_is_of_other_images_is_refused(a, fill, target, said):
    x = images(2)
    with pytest.raises(InputError, match=said):
        curves(Linear(), x, x if a is None else a, x if fill is None else fill, target)

"""The score is proper for masks, and a network trained by it draws as the readers do."""

import pytest
import torch

from cfx.core.errors import InputError
from cfx.core.overlap import overlaps
from cfx.models.registry import build
from cfx.models.samplers import Draw
from cfx.models.samplers.energy import energy_score, tanimoto_distance


def masks(n, side=6, seed=0):
    """Random masks, one of them empty."""
    drawn = torch.rand((n, 1, side * side), generator=torch.Generator().manual_seed(seed)) < 0.4
    drawn[0] = False
    return drawn


def test_the_distance_of_masks_is_one_less_their_iou_but_for_half_a_voxel():
    a, b = masks(7), masks(5, seed=1)
    found = tanimoto_distance(a[None].double(), b[None].double())[0]
    counts = overlaps(a[:, 0][None], b[:, 0][None])
    both = counts.both.double()
    expected = 1 - (both + 0.5) / (counts.a + counts.b - both + 0.5)
    torch.testing.assert_close(found, expected[0])
    assert float(found[0, 0]) == 0  # two empty ones


def test_one_less_the_distance_is_a_positive_definite_kernel_also_of_soft_masks():
    soft = torch.cat([torch.rand((12, 1, 9), generator=torch.Generator().manual_seed(2)), masks(8, side=3).float()])
    kernel = 1 - tanimoto_distance(soft[None].double(), soft[None].double())[0]
    assert float(torch.linalg.eigvalsh(kernel).min()) > -1e-9


def test_no_other_distribution_scores_better_than_the_readers_own():
    values = masks(6).double()
    distance = tanimoto_distance(values[None], values[None])[0]
    truth = torch.rand(6, generator=torch.Generator().manual_seed(3)).double().softmax(0)

    def score(q):
        return q @ distance @ truth - q @ distance @ q / 2

    others = torch.rand((500, 6), generator=torch.Generator().manual_seed(4)).double().mul(6).softmax(1)
    assert float(torch.stack([score(q) for q in others]).min()) > float(score(truth))


def test_the_estimate_is_that_of_all_pairs_and_has_no_bias_in_the_number_of_draws():
    values, readers = masks(6).double(), masks(4, seed=5).double()
    weight = torch.tensor([[1.0, 0.0, 1.0, 1.0]]).double()
    across, among = (tanimoto_distance(values[None], other[None])[0] for other in (readers, values))
    expected = (weight[0] * (across.mean(0) - among.sum() / 60)).mean()
    torch.testing.assert_close(energy_score(values[None], readers[None], weight)[0], expected)
    pairs = torch.combinations(torch.arange(6))
    of_two = energy_score(values[pairs], readers.expand(len(pairs), -1, -1, -1), weight.expand(len(pairs), -1))
    torch.testing.assert_close(of_two.mean(), expected)


def test_it_learns_how_often_readers_draw_nothing_and_how_their_outlines_move_together():
    """Readers draw a square of side 4 or 8 as often, nothing in a quarter of the cases."""
    square = torch.zeros(4, 16, 16, dtype=torch.uint8)
    square[0, 6:10, 6:10], square[1, 4:12, 4:12], square[2, 4:12, 4:12] = 1, 1, 1
    square[1, 5:11, 5:11] = 1
    readings = torch.stack([square[0], square[1], square[0], square[1], square[0], square[1], square[3], square[3]])
    x = torch.zeros(16, 1, 16, 16)
    torch.manual_seed(0)
    net = build("mask-energy", spatial_dims=2, in_channels=1, channels=[8, 16], attention=[False, False], scales=[8])
    optimizer = torch.optim.Adam(net.parameters(), lr=4e-3)
    for step in range(150):
        loss, _ = net(x, readings.expand(16, -1, -1, -1), Draw(0, torch.arange(16) + 16 * step))
        optimizer.zero_grad()
        loss.mean().backward()
        optimizer.step()
    code = tuple(v[:1].repeat_interleave(400, 0) for v in net.encode(x))
    with torch.no_grad():
        drawn = net.draw(code, seed=1, row=torch.arange(400)) != 0
    known = torch.stack([square[0], square[1], square[3]])[None] != 0
    iou = overlaps(drawn[None], known).iou[0]
    best, which = iou.max(1)
    share = which.bincount(minlength=3) / 400
    assert float(best.mean()) > 0.85
    torch.testing.assert_close(share, torch.tensor([0.375, 0.375, 0.25]), atol=0.1, rtol=0)


def test_one_draw_has_no_pair():
    with pytest.raises(InputError, match="draws: expected two at least, got 1"):
        build("mask-energy", spatial_dims=2, in_channels=1, draws=1)

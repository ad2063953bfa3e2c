"""A known classifier reads what it is said to read: nothing else moves it, and its gradient is zero elsewhere."""

import pytest
import torch

from cfx.commands.bench.known import SPREAD, Centred, Dark, Exchanged, Sum, Weighted, class_gap, margin, patches
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.models import build

SPACES = [(16, 16), (12, 12, 12)]


def images(space, n=24, seed=0):
    """Noise whose second half, class 1, is darker in the middle."""
    x = 0.3 * torch.randn(n, 1, *space, generator=torch.Generator().manual_seed(seed))
    y = torch.arange(n) % 2
    middle = tuple(slice(k // 4, 3 * k // 4) for k in space)
    x[(slice(None), slice(None), *middle)] -= 0.4 * y.view(-1, 1, *[1] * len(space))
    return Cohort(x.clamp(-1, 1), y=y)


def slope(network, x):
    x = x.clone().requires_grad_(True)
    return torch.autograd.grad(margin(network, x).sum(), x)[0]


def spot(space):
    weight = torch.zeros(1, *space)
    weight[(0, *(slice(2, 5) for _ in space))] = -1.0
    return weight


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("side", [1, 3])
def test_a_patch_is_of_its_side_where_the_classes_differ_and_apart_from_the_others(space, side):
    cohort = images(space)
    found = patches(cohort, side, 2, seed=5)
    assert [int(f.reads.sum()) for f in found] == 2 * [side ** len(space)]
    assert int(sum(f.reads.int() for f in found).max()) == 1
    gap = class_gap(cohort)
    for f in found:
        assert float((gap * f.weight).sum()) > 0  # a larger logit is more like class 1
        assert (
            float((gap * f.weight).sum()) / side ** len(space)
            >= 0.5 * torch.nn.functional.__dict__[f"avg_pool{len(space)}d"](gap[None], side, 1).abs().max() - 1e-6
        )


def test_the_seed_chooses_the_places():
    cohort = images((16, 16))
    a, b, again = (patches(cohort, 1, 4, seed)[0].weight for seed in (1, 2, 1))
    assert torch.equal(a, again)
    assert not torch.equal(a, b)


def test_places_there_are_not_and_classes_there_are_not_are_refused():
    cohort = images((16, 16))
    with pytest.raises(InputError, match="places where the classes differ"):
        patches(cohort, 3, 99, seed=0)
    with pytest.raises(InputError, match="classes 0 and 1"):
        class_gap(cohort.replace(y=torch.zeros(24, dtype=torch.long)))


@pytest.mark.parametrize("space", SPACES)
def test_nothing_outside_what_is_read_moves_it_or_has_a_gradient(space):
    x, weight = images(space).x, spot(space)
    for network in (Weighted(weight), Dark(-weight, -0.9, 0.9), Centred.on(Weighted(weight), x)):
        reads = weight != 0
        elsewhere = torch.where(reads, x, torch.rand_like(x))
        assert torch.equal(network(elsewhere), network(x))
        g = slope(network, x)
        assert g[:, ~reads].abs().max() == 0
        assert (g[:, reads] != 0).flatten(1).any(1).all()


def test_dark_is_blind_to_what_is_brighter_and_counts_what_is_darker_in_full():
    network = Dark(torch.ones(1, 2, 2), low=-0.5, high=-0.2)
    levels = torch.tensor([-1.0, -0.5, -0.35, -0.2, 0.9])
    x = levels.view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    torch.testing.assert_close(network(x)[:, 0], torch.tensor([4.0, 4.0, 2.0, 0.0, 0.0]))
    assert slope(network, x)[-1].abs().max() == 0


@pytest.mark.parametrize("space", SPACES)
def test_a_sum_is_the_sum_of_the_margins(space):
    torch.manual_seed(0)
    x = images(space).x
    two = build("cnn", spatial_dims=len(space), in_channels=1, out_channels=2, channels=[8]).eval()
    both = Sum([Weighted(spot(space)), two], [2.0, -0.5])
    torch.testing.assert_close(margin(both, x), 2 * margin(Weighted(spot(space)), x) - 0.5 * margin(two, x))
    torch.testing.assert_close(slope(both, x), 2 * slope(Weighted(spot(space)), x) - 0.5 * slope(two, x))


def test_exchanged_columns_turn_the_margin_round_and_change_nothing_else():
    torch.manual_seed(1)
    x = images((16, 16)).x
    two = build("cnn", spatial_dims=2, in_channels=1, out_channels=2, channels=[8]).eval()
    torch.testing.assert_close(margin(Exchanged(two), x), -margin(two, x))
    torch.testing.assert_close(Exchanged(two)(x).sum(1), two(x).sum(1))


def test_centred_is_zero_in_the_middle_and_spread_as_asked_with_the_same_order_of_images():
    x = images((16, 16)).x
    network = Weighted(spot((16, 16)))
    found = Centred.on(network, x)
    m = margin(found, x)
    assert float(m.median()) == pytest.approx(0, abs=1e-5)
    assert float(m.std()) == pytest.approx(SPREAD, rel=1e-5)
    assert torch.equal(m.argsort(), margin(network, x).argsort())


def test_a_network_that_says_the_same_of_all_cannot_be_centred():
    with pytest.raises(InputError, match="same logit for all"):
        Centred.on(Weighted(torch.zeros(1, 16, 16)), images((16, 16)).x)

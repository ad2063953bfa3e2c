"""The network that reads masks: honest folds, one seed one result, and what no linear reader of pixels can see."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from cfx.confounder.probes.network import Network
from cfx.core.errors import InputError
from cfx.core.random import uniform

N = 40
FOLD = torch.arange(N) % 4
QUICK = {"channels": (4, 8), "steps": 40, "rate": 0.02}


def dots() -> tuple[Tensor, Tensor]:
    """Two dots at random places: beside each other or apart. Every pixel alone is as likely in both."""
    y = (torch.arange(N) // 4 % 2).double()
    u = (uniform((2,), seed=2, row=torch.arange(N), stream=0) * 12).long()
    x = -torch.ones(N, 1, 16, 16)
    for i in range(N):
        r, c = u[i].tolist()
        x[i, 0, r : r + 4, c : c + 2 + 2 * int(y[i])] = 1
    return x, y


def test_it_tells_a_pattern_wherever_it_is() -> None:
    x, y = dots()
    found = Network(x, **QUICK)(y[None], FOLD, binary=True)[0]
    assert float(((found > 0) == (y == 1)).double().mean()) > 0.85


def test_numbers_are_predicted_less_their_mean_in_their_own_units() -> None:
    """What a reader adds to the mean of the training rows; a target in other units is the same target."""
    x, y = dots()
    found = Network(x, **QUICK)(torch.stack([y, 1000 + 10 * y]), FOLD, binary=False)
    assert float(torch.corrcoef(torch.stack([found[0], y]))[0, 1]) > 0.7
    assert found[1] == pytest.approx(10 * found[0], rel=1e-2, abs=0.05)
    assert float((found[0] - (y - 0.5)).square().mean()) < 0.5 * 0.25


def test_a_row_is_predicted_by_a_network_that_has_seen_none_of_its_fold() -> None:
    x, y = dots()
    moved, seen = x.clone(), FOLD == 1
    moved[seen] = -x[seen]
    few = {"channels": (2, 4), "steps": 3}
    whole, other = (Network(v, **few)(y[None], FOLD, binary=True)[0] for v in (x, moved))
    assert not torch.equal(whole[~seen], other[~seen])
    flipped = Network(x, **few)(torch.where(seen, 1 - y, y)[None], FOLD, binary=True)[0]
    assert torch.equal(flipped[seen], whole[seen])
    assert not torch.equal(flipped[~seen], whole[~seen])


def test_targets_do_not_see_each_other_and_the_global_generator_stays() -> None:
    x, y = dots()
    network = Network(x, channels=(2, 4), steps=3)
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    both = network(torch.stack([y, 1 - y]), FOLD, binary=True)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert torch.equal(network((1 - y)[None], FOLD, binary=True)[0], both[1])
    assert not torch.equal(replace(network, seed=1)(y[None], FOLD, binary=True)[0], both[0])


def test_masks_are_read_as_the_share_of_each_cell() -> None:
    mask = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    mask[0, 0, :4] = True
    mask[1, 0, ::2] = True
    network = Network.of_mask(mask, cells=4)
    assert len(network) == 2
    assert network.image.shape == (2, 1, 4, 4)
    assert network.image[0, 0, :, 0].tolist() == [1, 1, -1, -1]
    assert (network.image[1] == 0).all()


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(InputError, match=r"image: expected values in \[-1, 1\]"):
        Network(torch.full((2, 1, 8, 8), 7.0))

"""Averaged gradients of networks whose gradient is known, at rest."""

import pytest
import torch
from torch import nn

from cfx.confounder.observed.sensitivity import smooth_gradients
from cfx.core.errors import InputError
from tests.confounder.linear import Linear, dropping


def images(n: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.rand(n, 1, 4, 4, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return x, torch.arange(n) % 2


def test_the_map_of_linear_networks_is_their_mean_weight() -> None:
    found = smooth_gradients([Linear(4.0, 2.0), Linear(2.0, -4.0)], *images())
    expected = torch.zeros(5, 1, 4, 4)
    expected[..., 0, 0], expected[..., -1, -1] = 3.0, 1.0
    torch.testing.assert_close(found.map, expected)
    assert torch.equal(found.row, torch.arange(5))


def test_neither_batches_nor_training_mode_change_a_map() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(64, 2))
    whole = smooth_gradients([network], *images()).map
    torch.testing.assert_close(smooth_gradients([network], *images(), batch_size=2).map, whole)
    assert torch.equal(smooth_gradients([dropping(network)], *images()).map, whole)
    assert whole.std() > 0
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_no_network_is_refused() -> None:
    with pytest.raises(InputError, match="classifiers: expected at least one"):
        smooth_gradients([], *images())

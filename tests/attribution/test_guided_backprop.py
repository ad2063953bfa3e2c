"""Guided backpropagation lets through what is positive, at every activation."""

import torch
from torch import nn

from cfx.attribution import attribute
from tests.attribution.networks import images


def test_negative_gradients_stop_at_an_activation():
    f = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False), nn.ReLU(), nn.Linear(2, 2, bias=False))
    f[1].weight.data = torch.tensor([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 4.0]])
    f[3].weight.data = torch.tensor([[1.0, -1.0], [0.0, 0.0]])
    x = images(1, (2, 2)).abs()
    found = attribute(f, x, 0, method="guided-backprop")
    torch.testing.assert_close(found.map.flatten(), torch.tensor([1.0, 2.0, 0.0, 0.0]))
    plain = attribute(f, x, 0, method="saliency")
    torch.testing.assert_close(plain.map.flatten(), torch.tensor([1.0, 2.0, 3.0, 4.0]))

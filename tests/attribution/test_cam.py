"""CAM: maps weighted by the last layer's weights, for networks that end so."""

import pytest
import torch
from torch import nn

from cfx.attribution import attribute, build_attribution
from cfx.core.errors import InputError
from tests.attribution.networks import Rectified, images, weighted


def test_a_margin_is_weighted_by_the_difference_of_weights():
    f, x = weighted(Rectified()), images(2)
    one = attribute(f, x, 1, method="cam", output="margin").map
    logits = f(x).detach()
    other = logits.scatter(1, torch.ones(2, 1).long(), -torch.inf).argmax(1)
    for k in range(2):
        both = [attribute(f, x[k : k + 1], c, method="cam").map[0] for c in (1, int(other[k]))]
        torch.testing.assert_close(one[k], both[0] - both[1], rtol=1e-4, atol=1e-5)


def test_networks_that_end_otherwise_are_refused():
    x = images(1)
    flat = weighted(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)))
    with pytest.raises(InputError, match="means over places are what the last linear layer reads"):
        attribute(flat, x, 1, method="cam")
    with pytest.raises(InputError, match="cam: expected a network that ends with a linear layer"):
        attribute(weighted(nn.Sequential(nn.Conv2d(1, 2, 8), nn.Conv2d(2, 2, 1), nn.Flatten())), x, 1,
                  method=build_attribution("cam", layer="0"))  # fmt: skip

"""The difference map needs no classifier, but what to compare with."""

import torch

from cfx.attribution import attribute
from tests.attribution.networks import Linear, images


def test_it_is_the_size_of_the_change():
    x, b = images(2), images(2, seed=1)
    found = attribute(Linear(), x, 0, method="difference", baseline=b)
    torch.testing.assert_close(found.map, (x - b).abs())
    assert found.baseline == "images"
    assert found.nfe_classifier_backward.tolist() == [0, 0]

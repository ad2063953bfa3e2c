"""Saliency of a linear model is the size of its weights, whatever the image."""

import torch

from cfx.attribution import attribute
from tests.attribution.networks import Linear, images


def test_it_is_the_size_of_the_gradient():
    f, x = Linear(), images(2)
    found = attribute(f, x, 2, method="saliency")
    torch.testing.assert_close(found.map, f.w[2].detach().abs().expand_as(x))
    assert found.verdicts == ("undefined", "undefined")
    assert found.remark == ("no sum is promised",) * 2

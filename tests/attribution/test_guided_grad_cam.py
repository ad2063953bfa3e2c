"""Guided Grad-CAM is the product of its two parts."""

import torch

from cfx.attribution import attribute
from tests.attribution.networks import Rectified, images, weighted


def test_it_is_the_product():
    f, x = weighted(Rectified()), images(2)
    whole, one, two = (attribute(f, x, 1, method=m).map for m in ("guided-grad-cam", "guided-backprop", "grad-cam"))
    torch.testing.assert_close(whole, one * two)

"""Grad-CAM: of a network that ends with a mean it is CAM, and an operation in place does not reach the map."""

import pytest
import torch

from cfx.attribution import attribute, build_attribution
from cfx.attribution.grad_cam import resized
from cfx.core.errors import InputError
from tests.attribution.networks import Rectified, images, weighted


@pytest.mark.parametrize("dims", [2, 3])
def test_at_the_last_layer_it_is_cam_over_the_number_of_places(dims):
    f, x = weighted(Rectified(dims=dims)), images(2, (6,) * dims)
    cam = attribute(f, x, 1, method="cam")
    grad = attribute(f, x, 1, method=build_attribution("grad-cam", positive=False))
    torch.testing.assert_close(grad.map * 6**dims, cam.map, rtol=1e-3, atol=1e-5)
    mean = cam.map.flatten(1).mean(1) + f.head.bias[1].detach()
    torch.testing.assert_close(mean, cam.value, rtol=1e-3, atol=1e-5)
    kept = attribute(f, x, 1, method="grad-cam").map
    torch.testing.assert_close(kept, grad.map.clamp_min(0), rtol=1e-4, atol=1e-6)


def test_the_map_of_a_layer_is_that_before_what_works_in_place_behind_it():
    x = images(2)
    maps = [
        attribute(weighted(Rectified(how)), x, 1, method=build_attribution("grad-cam", layer="one", positive=False)).map
        for how in ("module", "inplace")
    ]
    torch.testing.assert_close(*maps)


def test_sizes_are_linear():
    assert resized(torch.tensor([[[[0.0, 4.0]]]]), (1, 4)).flatten().tolist() == [0.0, 1.0, 3.0, 4.0]


@pytest.mark.parametrize(
    ("layer", "said"),
    [("acts.1", "acts.1 to run once, it ran 0 times"), ("head", r"expected a map \(b, c, \*space\) of head")],
)
def test_layers_that_are_no_map_are_refused(layer, said):
    how = "reused" if layer == "acts.1" else "module"
    with pytest.raises(InputError, match=said):
        attribute(weighted(Rectified(how)), images(1), 1, method=build_attribution("grad-cam", layer=layer))

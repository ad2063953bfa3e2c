"""captum's methods through the adapter, and ours against captum's; a stand-in where captum is not installed."""

import warnings
from functools import partial

import pytest
import torch

from cfx.attribution import Captum, attribute, build_attribution
from cfx.core.errors import InputError
from tests.attribution.networks import Linear, Rectified, images, weighted


class Doubled:
    """What a method of captum looks like: twice the gradient times the input."""

    def __init__(self, forward_func) -> None:
        self.forward_func = forward_func

    def attribute(self, inputs, baselines=None, additional_forward_args=None, factor=2.0):
        if factor < 0:
            raise ValueError("no such factor")
        total = self.forward_func(inputs, *additional_forward_args).sum()
        return factor * torch.autograd.grad(total, inputs)[0] * (inputs - baselines)


def test_a_method_is_asked_about_the_output_and_its_completeness_is_measured():
    f, x, b = Linear(), images(3), images(3, seed=2)
    twice = attribute(f, x, [0, 1, 2], method=Captum(Doubled), baseline=b)
    torch.testing.assert_close(twice.map, 2 * f.w.detach() * (x - b))
    assert twice.verdicts == ("incomplete",) * 3
    once = attribute(f, x, [0, 1, 2], method=Captum(Doubled, {"factor": 1.0}), baseline=b)
    assert once.verdicts == ("complete",) * 3
    with pytest.raises(InputError, match="captum: Doubled: no such factor"):
        attribute(f, x, 0, method=Captum(Doubled, {"factor": -1.0}))


RIEMANN = {"n_steps": 300, "method": "riemann_middle"}
PAIRS = [
    ("Saliency", "saliency", {}, {}, 1e-9),
    ("InputXGradient", "input-x-gradient", {}, {}, 1e-9),
    ("GuidedBackprop", "guided-backprop", {}, {}, 1e-9),
    ("DeepLift", "deeplift", {}, {}, 5e-9),
    (
        "IntegratedGradients",
        "integrated-gradients",
        {"n_steps": 300, "method": "riemann_middle"},
        {"steps": 300, "most": 0},
        1e-6,
    ),
    ("Occlusion", "occlusion", {"sliding_window_shapes": 4, "strides": 3}, {"patch": 4, "stride": 3}, 1e-7),
]


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize(("theirs", "ours", "given", "settings", "tolerance"), PAIRS)
def test_ours_are_captum_s(theirs, ours, given, settings, tolerance, dims):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    f, x = weighted(Rectified(dims=dims, norm=True)), images(2, (6,) * dims)
    if theirs == "Occlusion":
        given = {k: (1, *[v] * dims) for k, v in given.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wanted = getattr(attr, theirs)(f).attribute(x.clone().requires_grad_(True), target=1, **given).detach()
    found = attribute(f, x, 1, method=build_attribution(ours, **settings)).map
    torch.testing.assert_close(found, wanted, rtol=0, atol=tolerance)


@pytest.mark.parametrize("dims", [2, 3])
def test_grad_cam_is_captum_s(dims):
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    from cfx.attribution.grad_cam import resized

    f, x = weighted(Rectified(dims=dims)), images(2, (6,) * dims)
    wanted = attr.LayerGradCam(f, f.two).attribute(x, target=1, relu_attributions=True).detach()
    found = attribute(f, x, 1, method=build_attribution("grad-cam", layer="two")).map
    torch.testing.assert_close(found, resized(wanted, (6,) * dims), rtol=0, atol=1e-7)


def test_the_adapter_takes_captum_s_own():
    attr = pytest.importorskip("captum.attr", reason="captum is not installed")
    f, x = weighted(Rectified(norm=True)), images(2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = attribute(f, x, 1, method=Captum(attr.DeepLift))
        path = attribute(f, x, 1, method=Captum(partial(attr.IntegratedGradients), {"n_steps": 200}))
    assert int(path.nfe_classifier[0]) > 200
    torch.testing.assert_close(found.map, attribute(f, x, 1, method="deeplift").map, rtol=1e-4, atol=1e-7)

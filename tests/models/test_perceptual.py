"""Feature distances: zero only for equal features, and never called what they are not."""

import sys

import pytest
import torch

from cfx.core.errors import CheckpointError, InputError
from cfx.models import build
from cfx.models.perceptual import FeatureDistance, Lpips


@pytest.fixture
def distance():
    torch.manual_seed(0)
    return FeatureDistance(build("cnn", spatial_dims=2, in_channels=1, out_channels=2, channels=(8, 16)))


def test_it_is_a_symmetric_distance_that_grows_with_the_change(distance):
    x, d = torch.rand(4, 1, 16, 16), torch.randn(4, 1, 16, 16)
    assert torch.equal(distance(x, x), torch.zeros(4))
    assert torch.allclose(distance(x, x + d), distance(x + d, x))
    assert (distance(x, x + 0.01 * d) < distance(x, x + 0.3 * d)).all()


def test_gradients_reach_the_image_and_not_the_classifier(distance):
    x = torch.rand(2, 1, 16, 16, requires_grad=True)
    distance(x, torch.zeros_like(x)).sum().backward()
    assert x.grad.abs().sum() > 0
    assert all(p.grad is None for p in distance.parameters())


def test_one_stage_by_hand(distance):
    a, b = torch.rand(1, 1, 16, 16), torch.rand(1, 1, 16, 16)
    total = 0.0
    for u, v in zip(distance.maps(a), distance.maps(b), strict=True):
        u, v = torch.nn.functional.normalize(u, dim=1), torch.nn.functional.normalize(v, dim=1)
        total += float((u - v).square().sum(1).mean())
    assert float(distance(a, b)) == pytest.approx(total, rel=1e-4)


def test_a_network_without_feature_maps_is_refused():
    with pytest.raises(InputError, match="expected a network with feature maps"):
        FeatureDistance(torch.nn.Flatten())


@pytest.mark.parametrize("failure", [ImportError("no torchvision"), RuntimeError("operator torchvision::nms")])
def test_a_missing_or_broken_torchvision_is_one_clear_error(monkeypatch, failure):
    class Broken:
        def find_spec(self, name, path=None, target=None):
            if name == "lpips":
                raise failure

    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(CheckpointError, match=r"LPIPS: expected the packages lpips and torchvision.*cfx\[perceptual\]"):
        Lpips()


def test_lpips_without_trained_weights_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("cfx.models.perceptual._import_lpips", lambda: None)
    with pytest.raises(CheckpointError, match=r"expected a local file, got .*none\.pth"):
        Lpips(weights=tmp_path / "none.pth")
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(CheckpointError, match="nothing in the torch hub cache"):
        Lpips()

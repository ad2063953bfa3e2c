"""Feature maps are what the layers return, and their means what the head reads."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models import adapt, build
from cfx.models.features import FeatureMaps, Penultimate, PooledFeatures, last_layer
from cfx.models.perceptual import FeatureDistance


def images(n=3):
    return torch.rand(n, 1, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def network(name, **more):
    torch.manual_seed(0)
    sizes = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    return build(name, **sizes, **more).eval()


class Foreign(nn.Module):
    """A network of another package, which changes its images in place."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU())
        self.body = nn.Conv2d(3, 5, 3)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.tokens = nn.Flatten(2)
        self.head = nn.Linear(5, 2)
        self.unused = nn.Identity()

    def forward(self, x):
        h = self.body(self.stem(x.mul_(0.5)))
        self.tokens(h)
        return self.head(self.pool(h)) + self.head(torch.zeros(5))


@pytest.mark.parametrize("name", ["cnn", "convnext", "densenet"])
def test_of_our_networks_the_pooled_features_are_what_the_head_reads(name):
    net, x, seen = network(name), images(), []
    handle = net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    net(x)
    handle.remove()
    torch.testing.assert_close(PooledFeatures(net)(x), seen[0])
    for ours, stage in zip(FeatureMaps(net)(x), net.stages(x), strict=True):
        assert torch.equal(ours, stage)


def test_layers_by_name_give_what_they_return_and_leave_the_images_alone():
    net, x = Foreign(), images()
    before = x.clone()
    maps = FeatureMaps(net, ("body", "stem.1"))(x)
    stem = net.stem(0.5 * x)
    assert torch.equal(maps[1], stem)
    assert torch.equal(maps[0], net.body(stem))
    torch.testing.assert_close(PooledFeatures(net, "body")(x), net.body(stem).mean((2, 3)))
    torch.testing.assert_close(PooledFeatures(net, "pool")(x), net.body(stem).mean((2, 3)))
    assert torch.equal(x, before)
    assert not any(m._forward_hooks for m in net.modules())


def test_features_have_a_gradient_to_the_image():
    x = images().requires_grad_(True)
    (g,) = torch.autograd.grad(PooledFeatures(Foreign(), "body")(x).sum(), x)
    assert g.abs().sum() > 0


def test_the_distance_in_stages_by_name_is_that_in_the_stages():
    net, a = network("cnn", channels=(8, 16)), images()
    b = a + 0.3 * torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    names = [f"blocks.{i}" for i in range(len(net.blocks))]
    torch.testing.assert_close(FeatureDistance(net, layers=names)(a, b), FeatureDistance(net)(a, b))
    vectors = FeatureDistance(Foreign(), layers=("pool",))
    u, v = (nn.functional.normalize(vectors.maps(x)[0], dim=1) for x in (a, b))
    torch.testing.assert_close(vectors(a, b), (u - v).square().sum(1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (("body", "middle"), r"layers: expected some of \['stem', 'stem.0', .*\], got \['middle'\]"),
        (("unused",), "layers: expected unused to run once an image, it ran 0 times"),
        (("head",), "layers: expected head to run once an image, it ran 2 times"),
        (("tokens",), r"expected a map \(3, c, \*space\) or a vector \(3, d\) of tokens, got \(3, 5, 144\)"),
        ((), r"classifier: expected a network with feature maps .* or layers=... of another, got Foreign"),
    ],
)
def test_what_is_no_map_is_refused(layers, message):
    with pytest.raises(InputError, match=message):
        FeatureMaps(Foreign(), layers)(images())


class TestPenultimate:
    @pytest.mark.parametrize("name", ["cnn", "convnext", "densenet"])
    def test_of_our_networks_it_is_what_the_head_reads(self, name):
        net, x = network(name, head="cosine"), images()
        torch.testing.assert_close(Penultimate(net)(x), PooledFeatures(net)(x))

    def test_of_others_it_is_what_the_last_linear_layer_reads(self):
        net, x = nn.Sequential(nn.Flatten(), nn.Linear(256, 5), nn.ReLU(), nn.Linear(5, 2)), images()
        torch.testing.assert_close(Penultimate(net)(x), net[:3](x))
        assert last_layer(net) is net[3]
        assert not any(m._forward_pre_hooks for m in net.modules())

    def test_whatever_is_wrapped_round_it(self):
        net, x = network("cnn"), images()
        wrapped = adapt(net, pixels={"range": (0, 1)}, output={"activation": "none"})
        torch.testing.assert_close(Penultimate(wrapped)(x), PooledFeatures(net)((x + 1) / 2))

    @pytest.mark.parametrize("classifier", [nn.Conv2d(1, 2, 3), lambda x: x])
    def test_without_a_linear_layer_there_are_none(self, classifier):
        assert last_layer(classifier) is None
        with pytest.raises(InputError, match=r"features: expected features=... beside a classifier"):
            Penultimate(classifier)

    def test_a_layer_that_runs_twice_or_on_maps_is_refused(self):
        with pytest.raises(InputError, match=r"to read a vector an image, got \[\(3, 5\), \(5,\)\]"):
            Penultimate(Foreign())(images())
        with pytest.raises(InputError, match=r"to read a vector an image, got \[\(3, 1, 16, 16\)\]"):
            Penultimate(nn.Linear(16, 2))(images())

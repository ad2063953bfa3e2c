"""Heads are the formulas of their page, in every network that takes one, and come back from a checkpoint."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cfx.core.errors import InputError
from cfx.models import open_network, save
from cfx.models.heads import QUOTIENTS, Quotient, Rbf, head
from tests.models.networks import SPACE, keywords, small


def features(n=5, d=4):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(1))


class TestQuotient:
    @pytest.mark.parametrize("kind", QUOTIENTS)
    def test_the_numerator_by_hand(self, kind):
        torch.manual_seed(0)
        layer, z = Quotient(kind, 4, 3), features()
        w = layer.weight
        expected = {
            "inner": z @ w.T + (0 if layer.bias is None else layer.bias),
            "cosine": torch.stack([functional.cosine_similarity(z, w[k : k + 1]) for k in range(3)], 1),
            "euclidean": -torch.cdist(z, w).square(),
        }[kind]
        torch.testing.assert_close(layer.h(z), expected, atol=1e-5, rtol=1e-5)

    @pytest.mark.parametrize("kind", QUOTIENTS)
    def test_it_is_divided_by_a_probability(self, kind):
        layer, z = Quotient(kind, 4, 3).eval(), features()
        v, norm = layer.g[0], layer.g[1]
        with torch.no_grad():
            norm.running_mean.fill_(0.3)
            norm.running_var.fill_(2.0)
        g = (((z @ v.weight.T + v.bias) - 0.3) / (2.0 + norm.eps) ** 0.5).sigmoid()
        torch.testing.assert_close(layer(z), layer.h(z) / g)

    def test_with_a_divisor_of_one_it_is_a_linear_layer(self):
        layer, z = Quotient("inner", 4, 3), features()
        layer.g = nn.Sequential(nn.Linear(4, 1), nn.Flatten())
        nn.init.zeros_(layer.g[0].weight)
        nn.init.ones_(layer.g[0].bias)
        torch.testing.assert_close(layer(z), functional.linear(z, layer.weight, layer.bias))


class TestRbf:
    def test_the_kernel_by_hand(self):
        torch.manual_seed(0)
        layer, z = Rbf(4, 3, width=6, sigma=0.5), features()
        layer.centroids.copy_(torch.randn(3, 6))
        for k in range(3):
            away = (z @ layer.weight[k].T - layer.centroids[k]).square().sum(1)
            torch.testing.assert_close(layer(z)[:, k].exp(), torch.exp(-away / (6 * 2 * 0.5**2)))

    def test_at_a_centroid_it_is_one_and_far_away_none(self):
        layer, z = Rbf(4, 2, width=3, sigma=0.1), features(1)
        layer.centroids.copy_(layer.embed(z)[0].detach())
        assert torch.equal(layer(z).exp(), torch.ones(1, 2))
        assert layer(z + 100).max() < -100

    def test_without_a_length_scale_everything_is_near(self):
        """sigma to infinity: all kernels are one."""
        torch.testing.assert_close(Rbf(4, 2, sigma=1e6)(features()).exp(), torch.ones(5, 2))

    def test_the_length_scale_is_positive(self):
        with pytest.raises(InputError, match="sigma: expected a positive length scale, got -1"):
            Rbf(4, 2, sigma=-1.0)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("name", ["cnn", "convnext", "densenet"])
@pytest.mark.parametrize("spec", ["cosine", {"name": "rbf", "width": 5, "sigma": 0.2}])
def test_every_network_takes_one_and_a_checkpoint_keeps_it(tmp_path, name, dims, spec):
    net = small(name, dims, head=spec).eval()
    for k, t in net.head.named_buffers():
        if k == "centroids":
            t.normal_()
    save(tmp_path / "c", net, name=name, config=keywords(name, dims) | {"head": spec})
    x = torch.randn(2, 1, *SPACE[dims])
    assert torch.equal(open_network(tmp_path / "c")(x), net(x))
    assert net(x).shape == (2, 3)


def test_the_linear_one_is_the_default():
    assert type(head("linear", 4, 3)) is nn.Linear
    assert small("cnn").state_dict().keys() == small("cnn", head="linear").state_dict().keys()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("cosines", r"head: expected one of \['cosine', 'euclidean', 'inner', 'linear', 'rbf'\], got 'cosines'"),
        ({"width": 3}, "head: expected one of .*, got None"),
        ({"name": "rbf", "length": 3}, r"head rbf: unknown keys \['length'\]; expected some of \['width', 'sigma'\]"),
        ({"name": "cosine", "width": 3}, r"head cosine: unknown keys \['width'\]"),
    ],
)
def test_what_is_no_head_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        small("cnn", head=spec)

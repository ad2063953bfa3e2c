"""Masks at test time: torch's dropout, with one draw for all images."""

import pytest
import torch
from torch import nn

from cfx.core.errors import InputError
from cfx.models.dropout import dropouts, dropped
from tests.models.kinds import KINDS, images, plain

MODULES = [nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout]


def through(module, x, pattern=0, seed=0):
    net = nn.Sequential(module).eval()
    with dropped(net, seed, pattern):
        return net(x)


@pytest.mark.parametrize("kind", MODULES)
def test_values_become_what_torch_makes_of_them(kind):
    """The values that occur, and how often, are those of the module itself in training."""
    axes = {nn.Dropout1d: 3, nn.Dropout2d: 4}.get(kind, 5)
    module, x = kind(0.3), torch.full((1, 4000, 2, 2, 2)[:axes], 0.7)
    torch.manual_seed(0)
    theirs = module.train()(x)
    mine = through(module, x)
    torch.testing.assert_close(mine.unique(), theirs.unique(), atol=1e-6, rtol=1e-6)
    lost = [float((v == v.unique()[0]).double().mean()) for v in (mine, theirs)]
    assert lost == pytest.approx([0.3, 0.3], abs=0.03)
    channels = [bool((v.flatten(2) == v.flatten(2)[:, :, :1]).all()) for v in (mine, theirs)]
    assert channels[0] == channels[1] == (kind not in (nn.Dropout, nn.AlphaDropout))


def test_all_images_lose_the_same():
    x = torch.rand(5, 3, 4, 4) + 1
    lost = through(nn.Dropout(0.5), x) == 0
    assert torch.equal(lost, lost[:1].expand_as(lost))
    assert torch.equal(through(nn.Dropout(0.5), x)[2:3], through(nn.Dropout(0.5), x[2:3]))
    assert not torch.equal(lost, through(nn.Dropout(0.5), x, pattern=1) == 0)
    assert not torch.equal(lost, through(nn.Dropout(0.5), x, seed=1) == 0)


def test_each_dropout_of_a_pass_has_a_mask_of_its_own():
    seen = []
    net = nn.Sequential(first := nn.Dropout(0.5), second := nn.Dropout(0.5)).eval()
    with dropped(net, 0, 0):
        for m in (first, second):
            m.register_forward_hook(lambda _, i, out: seen.append(out == 0))
        net(torch.ones(1, 64))
    assert not torch.equal(*seen)


def test_moments_of_a_linear_layer_behind_dropout():
    """Mean w'x, variance p / (1 - p) sum_i (w_i x_i)^2."""
    g = torch.Generator().manual_seed(0)
    w, x = torch.randn(1, 30, generator=g), torch.randn(1, 30, generator=g)
    net = nn.Sequential(nn.Dropout(0.25), nn.Linear(30, 1, bias=False)).eval()
    net[1].weight.data = w
    found = []
    for t in range(1000):
        with torch.no_grad(), dropped(net, 0, t):
            found.append(net(x).item())
    found, variance = torch.tensor(found), float((w * x).square().sum() / 3)
    assert found.mean().item() == pytest.approx((w * x).sum().item(), abs=4 * (variance / 1000) ** 0.5)
    assert found.var().item() == pytest.approx(variance, rel=0.2)


def test_nothing_else_changes_its_mode():
    net = plain().eval()
    with dropped(net, 0, 0):
        assert not any(m.training for m in net.modules())
        torch.testing.assert_close(net(images())[1:2], _again(net, images()[1:2]))
    assert not any(m._forward_hooks for m in net.modules())


def _again(net, x):
    with dropped(net, 0, 0):
        net[3]._forward_hooks.popitem(last=False)  # the mask of the pass before
        return net(x)


def test_without_anything_left_nothing_is_left():
    assert (through(nn.Dropout(1.0), torch.ones(2, 3)) == 0).all()


@pytest.mark.parametrize(
    "network",
    [
        lambda: nn.Linear(2, 2),
        lambda: nn.Dropout(0.0),
        lambda: lambda x: x,
        lambda: KINDS["script from a file"](plain()),
        lambda: KINDS["exported"](plain()),
    ],
    ids=["none", "idle", "function", "script", "exported"],
)
@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_a_network_whose_dropout_cannot_be_reached_is_told_so(network):
    with pytest.raises(InputError, match="classifier: expected a network with dropout modules"):
        dropouts(network())


def test_dropout_that_does_not_run_is_no_dropout():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout = nn.Dropout(0.5)

        def forward(self, x):
            return x

    with pytest.raises(InputError, match="expected its dropout modules to run"), dropped(net := Unused(), 0, 0):
        net(torch.ones(1, 2))

"""One override of what goes backward: the same map however an activation is written, and the laws of each rule."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cfx.attribution import attribute
from cfx.attribution.override import Override, Plain, Ratio, Secant, derivative
from tests.attribution.networks import Rectified, images, weighted

WAYS = ("functional", "method", "clamp", "functional-inplace", "reused", "inplace")
RULED = ("guided-backprop", "deeplift", "epsilon-lrp", "fullgrad")


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("method", RULED)
def test_however_an_activation_is_written_the_map_is_the_same(method, dims):
    x = images(2, (6,) * dims)
    maps = [attribute(weighted(Rectified(how, dims)), x, 1, method=method).map for how in ("module", *WAYS)]
    assert float(maps[0].abs().max()) > 0
    for found in maps[1:]:
        torch.testing.assert_close(found, maps[0], rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    "act", [F.relu, F.leaky_relu, F.elu, F.gelu, F.silu, F.softplus, F.hardswish, torch.tanh, torch.sigmoid]
)
def test_a_plain_override_is_the_gradient_itself(act):
    x = images(2).requires_grad_(True)
    (own,) = torch.autograd.grad((act(3 * x + 1) ** 2).sum(), x)
    with Override(Plain()) as mode:
        (found,) = torch.autograd.grad((act(3 * x + 1) ** 2).sum(), x)
    torch.testing.assert_close(found, own)
    assert mode.seen >= 1


@pytest.mark.parametrize("act", [F.gelu, torch.tanh, F.softplus])
def test_secants_of_an_activation_give_its_change(act):
    a, b = images(2), images(2, seed=1)
    x = torch.cat([a, b]).requires_grad_(True)
    with Override(Secant()):
        (g,) = torch.autograd.grad(act(x * 1.0).sum(), x)
    torch.testing.assert_close(g[:2] * (a - b), act(a) - act(b), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(g[2:], g[:2])


def test_ratios_of_an_activation_give_its_value_and_its_slope_at_zero():
    z = torch.tensor([[-2.0, 0.0, 3.0]]).requires_grad_(True)
    with Override(Ratio(1e-9)):
        (g,) = torch.autograd.grad(torch.tanh(z * 1.0).sum(), z)
    torch.testing.assert_close(g, torch.tensor([[0.48201379, 1.0, 0.33168495]]))


@pytest.mark.parametrize(("dims", "pool"), [(1, F.max_pool1d), (2, F.max_pool2d), (3, F.max_pool3d)])
def test_a_maximum_hands_its_whole_change_to_one_number(dims, pool):
    a, b = images(3, (6,) * max(dims, 2))[..., :6], images(3, (6,) * max(dims, 2), seed=1)
    if dims == 1:
        a, b = a.flatten(2), b.flatten(2)
    x = torch.cat([a, b]).requires_grad_(True)
    with Override(Secant()):
        out = pool(x * 1.0, 3, 2)  # overlapping windows
        (g,) = torch.autograd.grad(out[:3].sum(), x)
    change = (pool(a, 3, 2) - pool(b, 3, 2)).flatten(1).sum(1)
    torch.testing.assert_close((g[:3] * (a - b)).flatten(1).sum(1), change)
    assert float(g.min()) >= 0


def test_what_has_no_rule_is_named():
    z = images(2).requires_grad_(True)
    with Override(Secant()) as mode:
        y = F.group_norm(z * 1.0, 1)
        y = F.softmax(y.flatten(1) @ y.flatten(1).T, dim=1)
    assert mode.foreign == {"group_norm", "product", "softmax"}
    with Override(Secant()) as mode:
        nn.Conv2d(1, 2, 3)(z * 1.0) * torch.ones(1)
    assert mode.foreign == set()


def test_the_mode_ends_with_its_block_also_after_an_error():
    x = images(1).requires_grad_(True)
    with pytest.raises(ZeroDivisionError), Override(Ratio(1.0)):
        1 / 0  # noqa: B018
    (g,) = torch.autograd.grad(F.relu(x).sum(), x)
    torch.testing.assert_close(g, (x > 0).float())


def test_derivatives_are_those_of_autograd():
    z = torch.tensor([-1.0, 0.5])
    torch.testing.assert_close(derivative(torch.square, z), 2 * z)

"""Radii and radial flows that are known in closed form."""

import inspect
import math

import pytest
import torch

from cfx.core import geometry, radial
from cfx.core.errors import InputError
from cfx.core.scores import dice

GRIDS = [(64, 60), (40, 44, 42)]
AXES = (1.0, 1.25, 0.85)


def ellipsoid(space, size, shift=0.0):
    """An ellipsoid of semi-axes `size * AXES` around the grid's middle."""
    middle = torch.tensor([(n - 1) / 2 + shift for n in space]).view(1, -1, *[1] * len(space))
    scale = torch.tensor(AXES[: len(space)]).view(middle.shape) * size
    return ((geometry.identity(space, torch.zeros(())) - middle) / scale).square().sum(1, keepdim=True) <= 1


def middle(space):
    return torch.tensor([[(n - 1) / 2 for n in space]])


@pytest.mark.parametrize("space", GRIDS)
def test_the_centroid_is_the_middle_of_a_symmetric_body(space):
    assert torch.allclose(radial.centroid(ellipsoid(space, 12.0)), middle(space), atol=1e-4)


@pytest.mark.parametrize("space", GRIDS)
def test_radii_of_an_ellipsoid_are_known(space):
    size = 12.0
    r = radial.radii(ellipsoid(space, size), middle(space))[0]
    d = len(space)
    azimuth = torch.linspace(-math.pi, math.pi, r.shape[1])
    polar = torch.linspace(0, math.pi, r.shape[0])[:, None] if d == 3 else torch.full((1, 1), math.pi / 2)
    w = [polar.sin() * azimuth.cos(), polar.sin() * azimuth.sin(), polar.cos().expand(-1, len(azimuth))][:d]
    known = sum((c / (size * a)).square() for c, a in zip(w, AXES[:d], strict=True)) ** -0.5
    assert (r - known).abs().max() < 0.8  # the voxels' own jags
    assert (r - known).mean().abs() < 0.1


@pytest.mark.parametrize("space", GRIDS)
def test_the_flow_of_two_balls_is_the_formula(space):
    """On every ray rho -> 1 / (1 / rho - a), a = 1 / R_B - 1 / R_A, up to the jags of the voxelised balls."""
    rho = (geometry.identity(space, torch.zeros(())) - middle(space).view(1, -1, *[1] * len(space))).double()
    rho = rho.square().sum(1, keepdim=True).sqrt()
    r_a, r_b = 15.0, 12.0
    v = radial.transfer(rho <= r_a, rho <= r_b).double()
    u = geometry.exponential(v, largest_step=0.02)
    offset = geometry.identity(space, u) - middle(space).view(1, -1, *[1] * len(space)).double()
    moved = (offset + u).square().sum(1, keepdim=True).sqrt()
    known = 1 / (1 / rho - (1 / r_b - 1 / r_a))
    within = (rho > 3) & (rho < 11.5)
    assert (known - rho)[within].max() > 2
    assert (moved - known)[within].abs().max() < 0.7
    assert (moved - known)[within].abs().mean() < 0.15
    assert (moved - known)[within].mean().abs() < 0.1


@pytest.mark.parametrize("space", GRIDS)
def test_a_body_takes_the_shape_of_another_and_comes_back(space):
    a, b = ellipsoid(space, 14.0), ellipsoid(space, 12.0, 1.5).flip(2)
    v = radial.transfer(a, b)
    there, back = geometry.exponential(v), geometry.exponential(-v)
    assert dice(a, b) < 0.87
    assert dice(geometry.warp(a.float(), there) >= 0.5, b) > 0.975
    assert dice(geometry.warp(b.float(), back) >= 0.5, a) > 0.975
    assert dice(geometry.warp(a.float(), geometry.compose(there, back)) >= 0.5, a) > 0.995
    assert geometry.jacobian_determinant(there).min() > 0


def test_the_inside_is_kept_and_the_far_outside_too():
    space = (80, 80)
    v = radial.transfer(ellipsoid(space, 15.0), ellipsoid(space, 12.0))
    speed = v.square().sum(1).sqrt()[0]
    surface = speed[40, 26:30].max()
    assert speed[39:41, 39:41].max() < 0.02 * surface
    assert speed[0, 0] < 0.02 * surface


@pytest.mark.parametrize("space", GRIDS)
def test_a_shape_is_its_own_transfer(space):
    a = ellipsoid(space, 13.0)
    assert torch.equal(radial.transfer(a, a), torch.zeros(1, len(space), *space))


def test_rows_do_not_depend_on_their_batch():
    a = torch.cat([ellipsoid((64, 60), r) for r in (10.0, 12.0, 14.0)])
    b = a.flip(0)
    assert torch.allclose(radial.transfer(a, b)[1:2], radial.transfer(a[1:2], b[1:2]), atol=1e-5)


def test_other_shapes_are_refused_by_name():
    a = ellipsoid((64, 60), 12.0)
    with pytest.raises(InputError, match=r"mask_b: expected the shape of mask_a"):
        inspect.unwrap(radial.transfer)(a, a[..., :-1])
    with pytest.raises(InputError, match=r"centre: expected shape \(1, 2\)"):
        inspect.unwrap(radial.radii)(a, torch.zeros(1, 3))

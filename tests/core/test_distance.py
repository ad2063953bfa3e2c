"""Signed distances known in closed form, and bodies with known holes."""

import inspect

import pytest
import torch

from cfx.core import distance
from cfx.core.errors import InputError
from cfx.core.geometry import gradient, identity

GRIDS = [(40, 36), (22, 24, 20)]


def ball(space, radius, shift=0.0):
    """Distance from the surface of a ball around the grid's middle, and its mask."""
    middle = torch.tensor([(n - 1) / 2 + shift for n in space]).view(1, -1, *[1] * len(space))
    rho = (identity(space, torch.zeros(())) - middle).square().sum(1, keepdim=True).sqrt()
    return rho - radius, rho <= radius


@pytest.mark.parametrize("space", GRIDS)
@pytest.mark.parametrize("axis", [0, 1])
def test_a_flat_face_is_measured_exactly(space, axis):
    p = identity(space, torch.zeros(()))[:, axis : axis + 1]
    assert torch.equal(distance.signed_distance(p <= 9), p - 9.5)


@pytest.mark.parametrize("space", GRIDS)
def test_a_ball_is_measured_to_half_a_voxel(space):
    known, mask = ball(space, 8.3, 0.2)
    error = distance.signed_distance(mask) - known
    assert error.abs().max() < 0.75
    assert error.mean().abs() < 0.2


@pytest.mark.parametrize("space", GRIDS)
def test_the_sign_is_the_mask_and_the_slope_is_one(space):
    mask = torch.cat([ball(space, r)[1] for r in (3.0, 7.5)])
    s = distance.signed_distance(mask)
    assert torch.equal(s <= 0, mask)
    assert s.abs().min() == 0.5
    away = (s.abs() > 2) & (ball(space, 0.0)[0] > 2)
    assert (gradient(s[:1]).square().sum(1, keepdim=True).sqrt()[away[:1]] - 1).abs().max() < 0.15


def test_the_complement_has_the_other_sign():
    mask = ball((30, 30), 9.0)[1]
    assert torch.equal(distance.signed_distance(~mask), -distance.signed_distance(mask))


@pytest.mark.parametrize("space", GRIDS)
def test_solid_fills_holes_and_keeps_the_largest_body(space):
    whole = ball(space, 8.0)[1]
    dented = whole & ~ball(space, 3.0)[1]
    dented[..., *[slice(0, 2)] * len(space)] = True
    assert torch.equal(distance.solid(torch.cat([dented, whole])), torch.cat([whole, whole]))


def test_a_bay_that_opens_on_the_border_is_no_hole():
    mask = ball((30, 30), 9.0)[1]
    mask[..., 14:16, :15] = False
    assert torch.equal(distance.solid(mask), mask)


@pytest.mark.parametrize(
    ("mask", "says"),
    [
        (torch.zeros(2, 1, 8, 8), "mask: expected a boolean"),
        (torch.zeros(2, 2, 8, 8, dtype=torch.bool), r"mask: expected \(n, 1, h, w\).*got shape \(2, 2, 8, 8\)"),
        (torch.zeros(2, 1, 8, 8, dtype=torch.bool), r"empty or full masks in rows \[0, 1\]"),
        (torch.ones(1, 1, 8, 8, dtype=torch.bool), r"empty or full masks in rows \[0\]"),
    ],
)
def test_what_is_no_mask_is_refused_by_name(mask, says):
    for f in (distance.solid, distance.signed_distance):
        with pytest.raises(InputError, match=says):
            inspect.unwrap(f)(mask)


def test_a_shell_that_fills_the_grid_has_no_outside():
    mask = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    mask[..., 4, 4] = False
    with pytest.raises(InputError, match="expected an inside and an outside"):
        distance.solid(mask)

"""Laws of deformations, and flows that are known in closed form."""

import inspect
import math
import re
from itertools import product

import numpy as np
import pytest
import torch
from scipy import ndimage

from cfx.core import geometry
from cfx.core.errors import InputError

GRIDS = [(64, 64), (24, 24, 24)]
DOUBLE = torch.zeros((), dtype=torch.float64)


def centred(space):
    """Coordinates from the grid's centre, `(1, d, *space)`."""
    middle = torch.tensor([(n - 1) / 2 for n in space], dtype=torch.float64)
    return geometry.identity(space, DOUBLE) - middle.view(1, -1, *[1] * len(space))


def waves(space, amplitude):
    """A smooth field, `amplitude` of the grid's edge, whose component across each border is 0 there."""
    q = 2 * math.pi * geometry.identity(space, DOUBLE) / (space[0] - 1)
    parts = [torch.sin(q[:, [(k + 1) % len(space)]] + k) * torch.sin(q[:, [k]] / 2) for k in range(len(space))]
    return amplitude * space[0] * torch.cat(parts, 1)


def random(shape, sigma=0.0, seed=0):
    """Uniform noise, smoothed."""
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return geometry.smooth(noise, sigma)


def inside(x, margin):
    """All but the outer `margin` pixels."""
    return x[..., *[slice(margin, -margin)] * (x.ndim - 2)]


@pytest.mark.parametrize("space", GRIDS)
@pytest.mark.parametrize(("step", "tolerance"), [(0.25, 0.1), (0.06, 0.025)])
def test_exp_of_minus_v_undoes_exp_of_v(space, step, tolerance):
    """To a tenth of a pixel for flows of several pixels, and the better the shorter the first step."""
    v = waves(space, 0.05)
    there, back = (geometry.exponential(s * v, largest_step=step) for s in (1, -1))
    assert there.abs().max() > 1
    assert geometry.compose(there, back).abs().max() < tolerance
    assert geometry.compose(back, there).abs().max() < tolerance


@pytest.mark.parametrize("space", GRIDS)
def test_the_inverse_error_shrinks_with_resolution_and_smoothness(space):
    def error(space, amplitude):
        v = waves(space, amplitude)
        return geometry.compose(geometry.exponential(v), geometry.exponential(-v)).abs().max() / space[0]

    coarse = error(space, 0.05)
    assert error(tuple(2 * n for n in space), 0.05) < 0.6 * coarse
    assert error(space, 0.005) < 0.2 * coarse


@pytest.mark.parametrize("space", GRIDS)
def test_exp_of_a_constant_is_a_translation(space):
    shift = torch.tensor([3.7, -2.2, 1.3][: len(space)], dtype=torch.float64)
    v = shift.view(1, -1, *[1] * len(space)).expand(1, -1, *space)
    assert torch.allclose(geometry.exponential(v), v, atol=1e-12)


@pytest.mark.parametrize("space", [(41, 41), (21, 21, 21)])
@pytest.mark.parametrize(("step", "tolerance"), [(0.25, 1e-2), (0.01, 4e-4)])
def test_exp_of_a_linear_field_is_the_matrix_exponential(space, step, tolerance):
    """Displacements of 1 to 2 pixels; away from the border, over which the flow carries points."""
    d = len(space)
    a = 0.6 * torch.tensor([[0.1, -0.3, 0.05], [0.2, -0.1, 0.1], [0.0, 0.15, 0.05]], dtype=torch.float64)[:d, :d]
    p = centred(space)
    known = torch.einsum("ij,bj...->bi...", torch.linalg.matrix_exp(a) - torch.eye(d, dtype=torch.float64), p)
    flow = geometry.exponential(torch.einsum("ij,bj...->bi...", a, p), largest_step=step)
    assert inside(known, space[0] // 4).abs().max() > 1
    assert inside(flow - known, space[0] // 4).abs().max() < tolerance


def test_exp_of_nothing_is_the_identity():
    assert torch.equal(geometry.exponential(torch.zeros(1, 2, 8, 8)), torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_exp_refuses_what_is_not_finite(bad):
    v = torch.zeros(1, 2, 8, 8)
    v[0, 1, 3, 3] = bad
    with pytest.raises(InputError, match=r"v: expected finite"):
        geometry.exponential(v)


def test_compose_is_two_warps_in_that_order():
    x = random((2, 1, 64, 64), 4.0)
    u, w = (60 * (random((2, 2, 64, 64), 4.0, seed) - 0.5) for seed in (1, 2))
    twice = geometry.warp(geometry.warp(x, u), w)
    error = inside(twice - geometry.warp(x, geometry.compose(u, w)), 8).square().mean().sqrt()
    swapped = inside(twice - geometry.warp(x, geometry.compose(w, u)), 8).square().mean().sqrt()
    assert error < swapped / 5
    assert error < 0.05 * x.std()


def test_compose_of_translations_is_exact():
    u, w = (torch.tensor(s, dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 9, 9) for s in ([1.5, 0.25], [-1, 2.0]))
    assert torch.allclose(geometry.compose(u, w), u + w, atol=1e-12)


@pytest.mark.parametrize("matrix", [[[1.2, 0.3], [-0.1, 0.8]], [[1.1, 0.2, 0], [0, 0.9, -0.3], [0.1, 0, 1.3]]])
def test_the_jacobian_of_an_affine_map_is_exact(matrix):
    a = torch.tensor(matrix, dtype=torch.float64)
    space = (7, 9, 6)[: len(a)]
    u = torch.einsum("ij,bj...->bi...", a - torch.eye(len(a), dtype=torch.float64), centred(space)) + 3
    found = geometry.jacobian_determinant(u)
    assert torch.allclose(found, torch.linalg.det(a).expand(1, *(n - 1 for n in space)), atol=1e-12)


def test_a_mirror_is_a_fold():
    u = torch.zeros(1, 2, 6, 6, dtype=torch.float64)
    u[:, :1] = -2 * centred((6, 6))[:, :1]
    assert torch.allclose(geometry.jacobian_determinant(u), torch.tensor(-1.0, dtype=torch.float64))


def test_the_jacobian_sees_a_checkerboard_that_central_differences_miss():
    p = geometry.identity((8, 8), DOUBLE)
    u = 0.6 * torch.cat([(-1) ** p.sum(1, keepdim=True), torch.zeros(1, 1, 8, 8)], 1)
    central = torch.stack(torch.gradient(u, dim=(2, 3)), 2) + torch.eye(2).view(1, 2, 2, 1, 1)
    assert (torch.linalg.det(central[..., 1:-1, 1:-1].movedim((1, 2), (-2, -1))) == 1).all()
    assert (geometry.jacobian_determinant(u) < 0).double().mean() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("shift", [(2, -1), (1, 0, -2)])
def test_a_whole_shift_moves_pixels_unchanged(shift):
    """(x o phi)(p) = x(p + u): content moves by -u; what comes from outside is 0, or the border's value."""
    space = (6, 7, 5)[: len(shift)]
    x = random((2, 3, *space))
    u = torch.tensor(shift, dtype=torch.float64).view(1, -1, *[1] * len(shift)).expand(2, -1, *space)
    source = [torch.arange(n) + s for n, s in zip(space, shift, strict=True)]
    held = [s.clamp(0, n - 1) for s, n in zip(source, space, strict=True)]
    known = x[:, :, *torch.meshgrid(*held, indexing="ij")]
    assert torch.allclose(geometry.warp(x, u), known, atol=1e-12)
    grids = torch.meshgrid(*[s == h for s, h in zip(source, held, strict=True)], indexing="ij")
    within = torch.stack(grids).all(0)
    assert torch.allclose(geometry.warp(x, u, padding="zeros"), known * within, atol=1e-12)


def test_half_a_pixel_is_the_mean_of_two():
    x = random((1, 1, 5, 6))
    u = torch.tensor([0.0, 0.5], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, 5, 6)
    assert torch.allclose(geometry.warp(x, u)[..., :-1], (x[..., :-1] + x[..., 1:]) / 2, atol=1e-12)


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 2, 5, 4), (1, 2, 4, 5)])
def test_warp_names_the_shape_it_expected(shape):
    warp = inspect.unwrap(geometry.warp)  # the shape checker of the test run, which users have not, would speak first
    with pytest.raises(InputError, match=r"u: expected shape \(2, 2, 4, 5\) .* got " + re.escape(str(shape))):
        warp(torch.zeros(2, 1, 4, 5), torch.zeros(shape))


@pytest.mark.parametrize("space", [(20, 30), (8, 9, 10)])
def test_smoothing_keeps_constants_and_the_integral(space):
    flat = torch.full((2, 3, *space), 0.7, dtype=torch.float64)
    assert torch.allclose(geometry.smooth(flat, 2.0), flat, atol=1e-14)
    spot = torch.zeros(1, 1, *space, dtype=torch.float64)
    spot[..., *[slice(4, 5)] * len(space)] = 5.0
    assert geometry.smooth(spot, 1.0).sum() == pytest.approx(5.0)  # its reach of 3 pixels stays inside


def test_smoothing_spreads_a_point_by_sigma():
    spot = torch.zeros(1, 1, 41, 41, dtype=torch.float64)
    spot[..., 20, 20] = 1
    for axis in (2, 3):
        profile = geometry.smooth(spot, 2.5).sum(axis).flatten()
        variance = ((torch.arange(41) - 20) ** 2 * profile).sum()
        assert variance == pytest.approx(2.5**2, rel=0.05)  # cut off at three sigma
    assert geometry.smooth(spot, 0.0) is spot


@pytest.mark.parametrize("slope", [[2.0, -3.0], [1.0, -2.0, 0.5]])
def test_the_gradient_of_a_linear_map_is_its_slope(slope):
    space = (5, 6, 7)[: len(slope)]
    a = torch.tensor(slope, dtype=torch.float64).view(1, -1, *[1] * len(slope))
    found = geometry.gradient((a * centred(space)).sum(1, keepdim=True) + 4)
    assert torch.allclose(found, a.expand(1, -1, *space), atol=1e-12)


def test_the_flow_of_a_row_does_not_depend_on_its_batch():
    v = torch.cat([waves((32, 32), 0.02), waves((32, 32), 0.2)])
    assert torch.allclose(geometry.exponential(v)[:1], geometry.exponential(v[:1]), atol=1e-9)


@pytest.mark.parametrize("space", [(33, 40), (16, 18, 14)])
def test_the_spline_is_that_of_scipy_at_any_place(space):
    g = torch.Generator().manual_seed(0)
    x = torch.rand(2, 2, *space, generator=g)
    u = 3 * torch.randn(2, len(space), *space, generator=g)  # many of these end outside the grid
    p = geometry.identity(space, u) + u
    out = geometry.spline(x, u)
    for row, channel in product(range(2), range(2)):
        wide = np.pad(x[row, channel].double().numpy(), 20, mode="edge")
        at = [(p[row, i].clamp(0, n - 1) + 20).double().numpy() for i, n in enumerate(space)]
        theirs = ndimage.map_coordinates(wide, at, order=3)
        assert np.abs(theirs - out[row, channel].numpy()).max() < 1e-5


def test_the_spline_goes_through_the_voxels_and_keeps_what_a_line_loses():
    x = torch.rand(1, 1, 24, 24, generator=torch.Generator().manual_seed(0))
    nowhere, half = torch.zeros(1, 2, 24, 24), torch.full((1, 2, 24, 24), 0.5)
    assert torch.allclose(geometry.spline(x, nowhere), x, atol=1e-5)
    wave = torch.cos(torch.arange(24) * torch.pi / 2).expand(1, 1, 24, 24)  # four voxels a period
    inner = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    spline, line = (float(f(wave, half)[inner].abs().max()) for f in (geometry.spline, geometry.warp))
    assert line == pytest.approx(0.5, abs=1e-4)
    assert spline == pytest.approx(math.cos(math.pi / 4), abs=0.03)
    with pytest.raises(InputError, match=r"u: expected shape \(1, 2, 24, 24\)"):
        inspect.unwrap(geometry.spline)(x, torch.zeros(1, 3, 24, 24))

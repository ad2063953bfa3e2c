"""Shapes are reached without folds, undone and dosed; images keep what no body ever touched."""

import inspect
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cfx.core import geometry
from cfx.core.distance import signed_distance, solid
from cfx.core.errors import InputError
from cfx.core.random import normal
from cfx.core.registration import EDGE, LIMIT, fill, match, reshape
from cfx.core.scores import dice
from cfx.data.brain import BrainConfig, Confounder, load_brain

SHAPE = (Confounder(kind="shape", q=0.5),)


@pytest.fixture(scope="module")
def slices():
    return load_brain(BrainConfig(n=24, confounders=SHAPE))


@pytest.fixture(scope="module")
def found(slices):
    """Masks A and B and the velocities between them."""
    a, b = solid(slices.mask).split(12)
    return a, b, match(a, b)


def carried(mask, u):
    return geometry.warp(mask.float(), u) >= 0.5


def ball(space, radius):
    middle = torch.tensor([(n - 1) / 2 for n in space]).view(1, -1, *[1] * len(space))
    return (geometry.identity(space, torch.zeros(())) - middle).square().sum(1, keepdim=True) <= radius**2


def check(a, b, v, overlap):
    there, back = geometry.exponential(v), geometry.exponential(-v)
    j = geometry.jacobian_determinant(there)
    assert j.min() >= 1 / LIMIT
    assert j.max() <= LIMIT
    assert geometry.jacobian_determinant(back).min() > 0
    assert dice(carried(a, there), b).min() >= overlap
    assert dice(carried(a, geometry.compose(there, back)), a).min() >= 0.99


def bumpy(seed, shift=(0, 0, 0)):
    """A ball with bumps in a large volume, off the middle by some voxels."""
    space = (68, 72, 66)
    knots = normal((1, 5, 5, 5), seed=seed, row=torch.tensor([0]), stream=0)
    bumps = F.interpolate(knots, size=space, mode="trilinear", align_corners=True)
    middle = torch.tensor([33.5, 35.5, 32.5]) + torch.tensor(shift)
    p = geometry.identity(space, torch.zeros(())) - middle.view(1, 3, 1, 1, 1)
    return p.square().sum(1, keepdim=True).sqrt() <= 24 + 3 * bumps


def with_stump(mask):
    """A thin rod that no body without one can take on within the limits of volume."""
    rod = torch.zeros_like(mask)
    rod[..., 2:34, 34:38, 31:35] = True
    return mask | rod


@pytest.fixture(scope="module")
def large():
    """Pairs of large volumes, the second beside the middle, and their velocities."""
    a, b = (torch.cat([bumpy(k), bumpy(k + 2, (4.0, -6.0, 5.0))]) for k in (0, 1))
    return a, b, match(a, b)


def test_simulated_brains_take_each_others_shape(found):
    a, b, v = found
    assert dice(a, b).mean() < 0.93
    check(a, b, v, 0.99)


def test_volumes_take_each_others_shape():
    mask = solid(load_brain(BrainConfig(n=2, size=48, dims=3, confounders=SHAPE)).mask)
    check(mask[:1], mask[1:], match(mask[:1], mask[1:]), 0.985)


def test_large_volumes_take_each_others_shape(large):
    a, b, v = large
    assert dice(a, b).max() < 0.96
    check(a, b, v, 0.998)


def test_large_volumes_depend_on_neither_batch_nor_call(large):
    a, b, v = large
    for k in range(2):
        assert torch.equal(match(a[k : k + 1], b[k : k + 1]), v[k : k + 1])


@pytest.mark.parametrize("way", [1, -1])
def test_a_part_that_only_one_has_is_given_up_not_folded(way):
    a, b = (with_stump(bumpy(0)), bumpy(1))[::way]
    check(a, b, match(a, b), 0.98)


def test_a_large_body_may_touch_the_border():
    a, b = (bumpy(k, (-12.0, 14.0, 0.0)) for k in (0, 1))
    assert a[:, :, 0].any()
    assert b[:, :, :, -1].any()
    check(a, b, match(a, b), 0.99)


def test_a_rigid_part_of_a_large_volume_moves_without_strain(large):
    a, b = (m[:1] for m in large[:2])
    part = torch.zeros_like(a)
    part[..., 12:18, 32:38, 30:36] = True
    assert (part & a).sum() == part.sum()
    v = match(a, b, rigid=part)
    u = geometry.exponential(v)
    assert abs(float(geometry.warp(part.float(), u).sum() / part.sum()) - 1) < 0.05
    check(a, b, v, 0.98)


def test_masks_of_large_volumes_that_do_not_fit_are_refused_by_name():
    a, raw = bumpy(0), inspect.unwrap(match)
    with pytest.raises(InputError, match="mask_b: expected an inside and an outside"):
        match(a, torch.zeros_like(a))
    with pytest.raises(InputError, match="mask_b: expected the shape of mask_a"):
        raw(a, a[..., :-1])


@pytest.mark.realdata
def test_real_brains_take_each_others_shape(realdata):
    z = np.load(realdata / "brain_masks_2mm_70.npz", allow_pickle=False)
    names = [(m["dataset"], m["subject"]) for m in json.loads(str(z["meta"]))]
    rows = [names.index(("LJ-MS-3T", "patient05")), names.index(("SynthSeg-FS", "05"))]
    bits = np.unpackbits(z["packed"][rows], axis=1)[:, : np.prod(z["shape"][1:])]
    a, b = torch.from_numpy(bits.reshape(2, 1, 1, *z["shape"][1:]).astype(bool))
    assert dice(a, b) < 0.9
    check(a, b, match(a, b), 0.979)


def test_a_dose_is_on_the_way(found):
    """Each quarter of the way is nearer to B, by distance of the surfaces."""
    a, b, v = found
    s_a, s_b = (signed_distance(m).clamp(-4, 4) for m in (a, b))
    gap = [
        (geometry.warp(s_a, geometry.exponential(t * v)) - s_b).square().flatten(1).mean(1)
        for t in (0, 0.25, 0.5, 0.75, 1)
    ]
    for nearer, further in zip(gap[1:], gap[:-1], strict=True):
        assert (nearer < further).all()


def test_a_shape_is_its_own_match(found):
    assert match(found[0], found[0]).abs().max() < 1e-4


def test_rows_do_not_depend_on_their_batch(found):
    a, b, v = found
    assert torch.allclose(match(a[3:4], b[3:4]), v[3:4], atol=1e-3)


def test_a_rigid_part_moves_without_strain(found):
    a, b, free = found
    part = torch.zeros_like(a)
    part[..., 24:29, 16:21] = True
    v = match(a, b, rigid=part)
    change = []
    for field in (free, v):
        volume = geometry.warp(part.float(), geometry.exponential(field)).flatten(1).sum(1)
        change.append((volume / 25 - 1).abs())
    assert change[0].max() > 0.1
    assert change[1].max() < 0.02
    assert geometry.exponential(v)[..., 24:29, 16:21].abs().amax((1, 2, 3)).max() > 0.5  # it does move
    check(a, b, v, 0.98)


def test_nothing_rigid_is_no_constraint(found):
    a, b, v = found
    assert torch.equal(match(a, b, rigid=torch.zeros_like(a)), v)


@pytest.mark.parametrize("space", [(48, 48), (24, 24, 24)])
def test_a_flat_body_stays_flat_and_a_tag_stays_bit_for_bit(space):
    """No background bleeds in, the support is B exactly, what lies beyond the edge of both is untouched."""
    a, b = (ball(space, r * space[0]) for r in (0.36, 0.26))
    x = torch.full((1, 2, *space), -0.8)
    x = torch.where(a, torch.tensor([0.7, 0.2]).view(1, 2, *[1] * len(space)), x)
    noise = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    far = signed_distance(a) > EDGE * len(space) ** 0.5 + 1
    x = torch.where(far & (noise > 0.9), noise, x)
    for mask_a, mask_b in ((a, b), (b, a)):
        body = torch.where(mask_a, x[:, :, *[n // 2 for n in space]].view(1, 2, *[1] * len(space)), x)
        body = torch.where(a & ~mask_a, -0.8, body)
        out = reshape(body, mask_a, mask_b, geometry.exponential(match(mask_a, mask_b)))
        flat = body[:, :, *[n // 2 for n in space]].view(1, 2, *[1] * len(space))
        assert torch.allclose(out, torch.where(mask_b, flat, torch.where(far, x, -0.8)), atol=1e-5)
        assert torch.equal(out[far.expand_as(out)], x[far.expand_as(out)])


def test_a_soft_edge_moves_with_its_body():
    """Left behind, it would draw the old outline."""
    space = (64, 64)
    a, b = ball(space, 24.0), ball(space, 16.0)
    soft = 2 * torch.sigmoid(-signed_distance(a) / 0.5) - 1
    soft = torch.where(signed_distance(a) > EDGE, -1.0, soft)
    out = reshape(soft, a, b, geometry.exponential(match(a, b)))
    s = signed_distance(b)
    assert (out[s > 2 * EDGE] == -1).all()
    ring = (s > 0) & (s < 0.9)
    assert out[ring].mean() > -0.8
    assert out[ring].mean() < 0


def test_no_change_of_shape_is_no_change(slices):
    mask = solid(slices.mask)
    out = reshape(slices.x, mask, mask, torch.zeros(24, 2, 64, 64))
    assert (out - slices.x).abs().max() < 5e-5


def test_filling_continues_the_known_within_its_range():
    known = ball((30, 30), 6.0)
    wanted = ball((30, 30), 11.0)
    ramp = geometry.identity((30, 30), torch.zeros(()))[:, :1] / 30
    out = fill(torch.where(known, ramp, 9.0), known, wanted)
    assert torch.equal(out[known], ramp[known])
    assert out[wanted].min() >= ramp[known].min() - 1e-6
    assert out[wanted].max() <= ramp[known].max() + 1e-6
    assert out[0, 0, 5, 15] < out[0, 0, 24, 15] - 0.2  # each side continues its own


def test_what_does_not_fit_is_refused_by_name():
    a = ball((24, 24), 6.0)
    u = torch.zeros(1, 2, 24, 24)
    x = torch.zeros(1, 1, 24, 24)
    raw = inspect.unwrap(reshape)
    with pytest.raises(InputError, match=r"mask_b: expected shape \(1, 1, 24, 24\), got \(2, 1, 24, 24\)"):
        raw(x, a, torch.cat([a, a]), u)
    with pytest.raises(InputError, match="mask_a: expected an inside and an outside"):
        raw(x, torch.zeros_like(a), a, u)
    with pytest.raises(InputError, match=r"known: expected known pixels in every row, got none in rows \[0\]"):
        reshape(x, a, a, u + 100)
    with pytest.raises(InputError, match="rigid: expected the shape of mask_a"):
        inspect.unwrap(match)(a, a, rigid=a[..., :-1])

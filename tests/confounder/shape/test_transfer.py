"""One pipeline for every arm: what each changes, what it keeps, and what it reports of itself."""

import inspect
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from cfx.confounder.shape.transfer import Transfer, random_velocity
from cfx.core import geometry
from cfx.core.distance import plausible_volumes, signed_distance, solid
from cfx.core.errors import InputError
from cfx.core.registration import EDGE, LIMIT, reshape
from cfx.core.scores import dice
from cfx.data.brain import BrainConfig, Confounder, load_brain

N = 10
PLANTED = (Confounder(kind="shape", q=0.5), Confounder(kind="tag", q=0.5), Confounder(kind="ruler", q=0.5))


@pytest.fixture(scope="module")
def cohort():
    return load_brain(BrainConfig(n=2 * N, confounders=PLANTED))


@pytest.fixture(scope="module")
def pair(cohort):
    """Images, their masks and the donors' masks."""
    mask = solid(cohort.mask)
    return cohort.x[:N], mask[:N], mask[N:]


@pytest.fixture(scope="module")
def given(pair):
    return Transfer()(*pair)


def far_from(*masks):
    """Voxels that no arm may touch."""
    return torch.stack([signed_distance(m) > 2 * EDGE for m in masks]).all(0)


def test_other_images_of_the_same_bodies_are_taken_the_same_way(pair, given):
    x, mask, donor = pair
    assert torch.equal(given.along(x), given.x)
    other = 0.5 * x - 0.2
    assert torch.equal(given.along(other), Transfer().deform(other, mask, given.v, support=donor).x)


def test_a_transfer_forces_the_donors_support_and_knows_its_quality(pair, given):
    _, mask, donor = pair
    assert torch.equal(given.mask, donor)
    assert torch.equal(given.source, mask)
    assert given.ok.all()
    assert not given.folded.any()
    assert given.dice.min() > 0.98
    assert torch.equal(given.dice, dice(geometry.warp(mask.float(), given.u) >= 0.5, donor))
    j = geometry.jacobian_determinant(given.u).flatten(1)
    assert torch.equal(given.jacobian_min, j.amin(1))
    assert torch.equal(given.jacobian_max, j.amax(1))
    assert ((given.blur > 0.4) & (given.blur < 1.2)).all()
    assert len(given) == N


def test_the_support_can_be_read_from_the_image(cohort, pair, given):
    """With the skull stripped, the new image is brain exactly where the donor's mask is."""
    x, mask, donor = pair
    bare = torch.where(mask, x.clamp_min(-0.9), -1.0)
    out = Transfer().deform(bare, mask, given.v, support=donor)
    assert torch.equal(out.x > -1, donor)


def test_tags_and_rulers_stay_bit_for_bit(pair, given):
    x, mask, donor = pair
    rest = far_from(mask, donor)
    assert x[rest].max() > 0.5  # there is something to keep
    assert torch.equal(given.x[rest], x[rest])


def test_identity_changes_nothing_but_roundings(pair):
    x, mask, _ = pair
    out = Transfer().identity(x, mask)
    assert (out.x - x).abs().max() < 5e-5
    assert out.ok.all()
    assert torch.allclose(out.blur, torch.ones(N), atol=1e-3)
    assert out.dice.min() == 1


def test_there_and_back_is_nearly_the_image(pair, given):
    x, mask, _ = pair
    back = given.back()
    moved = (given.x - x).square().mean()
    assert (back - x).square().mean() < 0.01 * moved
    rest = far_from(mask, given.mask, given.middle_mask)
    assert torch.equal(back[rest], x[rest])


def test_a_transfer_and_its_way_back_are_interpolated_alike(pair, given):
    """Halves of one flow, the first in common, the second as long: the control is blurred as what it controls."""
    x, mask, donor = pair
    half = geometry.exponential(given.v / 2)
    assert torch.equal(given.u, geometry.compose(half, half))
    middle = reshape(x, mask, given.middle_mask, half)
    assert torch.equal(given.middle, middle)
    assert torch.equal(given.x, reshape(middle, given.middle_mask, donor, half))
    assert torch.equal(given.back(), reshape(middle, given.middle_mask, mask, geometry.exponential(-given.v / 2)))
    steps = [geometry.exponential(w * given.v / 2).square().sum(1).sqrt().flatten(1).mean(1) for w in (1, -1)]
    assert torch.allclose(*steps, rtol=0.05)
    smooth = x - geometry.smooth(x, 1.0)
    inside = signed_distance(mask) < -3
    left = (given.back() - geometry.smooth(given.back(), 1.0))[inside].square().mean() / smooth[inside].square().mean()
    assert left > 0.8


def test_doses_lead_from_the_image_to_the_transfer(pair, given):
    x, mask, donor = pair
    nothing = Transfer().deform(x, mask, given.v, dose=0.0)
    assert (nothing.x - x).abs().max() < 5e-5
    half = Transfer().deform(x, mask, given.v, dose=0.5)
    assert (dice(half.mask, donor) > dice(mask, donor)).all()
    assert (dice(half.mask, mask) > dice(donor, mask)).all()
    assert torch.equal(half.v, 0.5 * given.v)
    whole = Transfer().deform(x, mask, given.v, support=donor)
    assert torch.equal(whole.x, given.x)
    assert torch.equal(Transfer()(x[:2], mask[:2], donor[:2], dose=0.5).mask, half.mask[:2])


def test_a_lesion_moves_but_keeps_its_volume(cohort, pair, given):
    x, mask, donor = pair
    lesion = cohort.lesion[:N]
    rows = lesion.flatten(1).any(1)
    assert rows.sum() > 3
    free = Transfer().deform(x, mask, given.v, support=donor, lesion=lesion)
    held = Transfer()(x, mask, donor, lesion=lesion)
    assert (free.lesion_volume_change[rows].abs() >= 0.1).any()
    assert torch.equal(free.ok, free.lesion_volume_change.abs() < 0.1)
    assert held.lesion_volume_change.abs().max() < 0.1
    assert held.ok.all()
    assert (held.lesion_volume_change[~rows] == 0).all()


def test_random_warps_keep_the_outline_and_match_the_size(pair, given):
    x, mask, _ = pair
    out = Transfer().random(x, mask, given.v, seed=3, row=torch.arange(N))
    assert torch.equal(out.mask, mask)
    assert out.dice.min() > 0.99

    def size(v):
        squared = geometry.log_jacobian(geometry.exponential(v)).square() * mask
        return (squared.flatten(1).sum(1) / mask.flatten(1).sum(1)).sqrt()

    assert torch.allclose(size(out.v), size(given.v), rtol=0.02)
    assert (out.v * ~mask == 0).all()
    assert (out.x - x).abs().flatten(1).mean(1).min() > 0.01  # the inside does change


def test_what_a_row_receives_depends_on_its_counter_alone(pair, given):
    _, mask, _ = pair
    every = random_velocity(given.v, mask, seed=3, row=torch.arange(N))
    some = random_velocity(given.v[4:6], mask[4:6], seed=3, row=torch.tensor([4, 5]))
    assert torch.allclose(every[4:6], some, atol=1e-4)
    other = random_velocity(given.v[4:6], mask[4:6], seed=4, row=torch.tensor([4, 5]))
    assert (other - some).abs().max() > 0.1


def test_each_reason_alone_makes_a_row_not_ok(given):
    one = torch.ones(N)
    for change in (
        {"dice": 0.9 * one},
        {"jacobian_min": 0.9 / LIMIT * one},
        {"jacobian_max": 1.1 * LIMIT * one},
        {"folded": one.bool()},
        {"lesion_volume_change": -0.2 * one},
        {"plausible": ~one.bool()},
    ):
        assert given.ok.all()
        assert not replace(given, **change).ok.any()


def test_an_outlying_volume_is_flagged(pair):
    x, mask, donor = pair
    volumes = plausible_volumes(torch.cat([mask, donor]))
    low, high = volumes
    found = mask.flatten(1).sum(1)
    assert ((low < found) & (found < high)).all()
    bad = signed_distance(mask[:1]) <= -8
    out = Transfer(volumes=volumes).identity(x[:2], torch.cat([bad, mask[1:2]]))
    assert out.plausible.tolist() == [False, True]
    assert out.ok.tolist() == [False, True]


def test_one_bad_mask_does_not_hide_itself():
    sizes = [20, 21, 20, 22, 21, 20, 21, 30]
    masks = torch.stack([torch.arange(40) < s for s in sizes]).view(-1, 1, 40, 1).expand(-1, 1, 40, 9).clone()
    masks[..., 0] = False
    low, high = plausible_volumes(masks)
    volume = masks.flatten(1).sum(1)
    assert ((volume < low) | (volume > high)).tolist() == [False] * 7 + [True]


@pytest.mark.realdata
def test_the_failed_skull_strip_is_flagged_and_no_one_else(realdata):
    z = np.load(realdata / "brain_masks_2mm_70.npz", allow_pickle=False)
    names = [(m["dataset"], m["subject"]) for m in json.loads(str(z["meta"]))]
    bits = np.unpackbits(z["packed"], axis=1)[:, : np.prod(z["shape"][1:])]
    masks = torch.from_numpy(bits.reshape(-1, 1, *z["shape"][1:]).astype(bool))
    low, high = plausible_volumes(masks)
    volume = masks.flatten(1).sum(1)
    flagged = ((volume < low) | (volume > high)).nonzero().flatten().tolist()
    assert [names[i] for i in flagged] == [("LJ-MS-1.5T", "patient19")]


def test_volumes_go_through_the_same_pipeline():
    cohort = load_brain(BrainConfig(n=2, size=48, dims=3, confounders=PLANTED[:1]))
    mask = solid(cohort.mask)
    out = Transfer()(cohort.x[:1], mask[:1], mask[1:])
    assert out.ok.all()
    assert out.dice.min() > 0.98
    assert torch.equal(out.mask, mask[1:])
    assert (out.back() - cohort.x[:1]).square().mean() < 0.03 * (out.x - cohort.x[:1]).square().mean()


def test_large_volumes_are_carried_to_within_their_surface():
    """Ellipsoids of other axes; a ramp stays a ramp within its range."""
    space = (66, 72, 66)
    p = geometry.identity(space, torch.zeros(())) - torch.tensor([32.5, 35.5, 32.5]).view(1, 3, 1, 1, 1)
    axes = torch.tensor([[22.0, 26.0, 23.0], [25.0, 24.0, 21.0]]).view(2, 3, 1, 1, 1)
    mask, donor = ((p / axes).square().sum(1, keepdim=True) <= 1).split(1)
    x = torch.where(mask, p[:, :1] / 50, -1.0)
    out = Transfer()(x, mask, donor)
    assert out.ok.all()
    assert out.dice.min() > 0.995
    assert out.jacobian_min.min() > 0
    inside = out.x[donor]
    assert inside.min() >= x[mask].min() - 1e-6
    assert inside.max() <= x[mask].max() + 1e-6
    assert torch.corrcoef(torch.stack([inside, p[:, :1][donor]]))[0, 1] > 0.99


def test_what_does_not_fit_is_refused_by_name(pair):
    x, mask, donor = pair
    call, deform = (inspect.unwrap(f) for f in (Transfer.__call__, Transfer.deform))
    v = torch.zeros(N, 2, 64, 64)
    with pytest.raises(InputError, match=r"x: expected values in \[-1, 1\]"):
        call(Transfer(), 3 * x, mask, donor)
    with pytest.raises(InputError, match=r"donor: expected shape \(10, 1, 64, 64\), got \(3, 1, 64, 64\)"):
        call(Transfer(), x, mask, donor[:3])
    with pytest.raises(InputError, match="mask: expected an inside and an outside"):
        call(Transfer(), x, torch.zeros_like(mask), donor)
    with pytest.raises(InputError, match="donor: expected an inside and an outside"):
        call(Transfer(), x, mask, torch.ones_like(mask))
    with pytest.raises(InputError, match=r"lesion: expected shape"):
        call(Transfer(), x, mask, donor, lesion=donor[:3])
    with pytest.raises(InputError, match=r"dose: expected a number in \[0, 1\], got 1.5"):
        deform(Transfer(), x, mask, v, dose=1.5)
    with pytest.raises(InputError, match="masks: expected at least five"):
        plausible_volumes(mask[:4])

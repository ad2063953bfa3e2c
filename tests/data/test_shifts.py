"""Shifts of the distribution: none at strength 0, known answers, and more change the stronger they are."""

import math

import pytest
import torch

from cfx.core import geometry
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.data.shifts import SHIFTS, Draws, Shift, apply, bias_field

SPACES = [(24, 20), (12, 14, 10)]
EVERY = sorted(SHIFTS)
IMAGES = ("x", "x_true")
MASKS = ("mask", "lesion", "readings")


def cohort(space=(24, 20), n=6, channels=1) -> Cohort:
    """Smooth objects in air, with all that can move."""
    g = torch.Generator().manual_seed(0)
    p = geometry.identity(space, torch.zeros(1))
    centre = (torch.tensor(space) - 1) / 2
    radius = ((p - centre.view(1, -1, *[1] * len(space))) / centre.view(1, -1, *[1] * len(space))).norm(dim=1)
    mask = (radius < 0.8)[:, None].expand(n, 1, *space).clone()
    texture = geometry.smooth(torch.rand(n, channels, *space, generator=g), 1.0)
    x = torch.where(mask, 1.2 * texture - 0.5, -1.0).clamp(-1, 1)
    lesion = mask & (texture[:, :1] > 0.55)
    return Cohort(
        x=x, y=torch.arange(n) % 2, ids=tuple(f"s{i}" for i in range(n)), mask=mask, lesion=lesion,
        x_true=(x * 0.9).clamp(-1, 1), readings=lesion.expand(n, 2, *space).clone(),
        covariates={"age": torch.arange(n)}, classes=["a", "b"],
    )  # fmt: skip


def constant(value, space=(24, 20), n=6, **more) -> Cohort:
    return Cohort(x=torch.full((n, 1, *space), value), **more)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", EVERY)
def test_no_strength_is_no_change(name, space):
    before = cohort(space)
    after = apply(Shift(name, 0.0), before, seed=3)
    for key, value in before.parts().items():
        assert after.parts()[key] is value


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"flip", "crop", "resolution", "lesion"}))
def test_a_hair_of_strength_is_a_hair_of_change(name):
    before = cohort()
    assert 0 < (apply(Shift(name, 1e-3 if name != "blur" else 0.2), before).x - before.x).abs().max() < 0.01


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("name", EVERY)
def test_more_strength_is_more_change_of_the_image_alone(name, space):
    before, changes = cohort(space, n=24), []
    for strength in {"flip": (0.25, 0.5, 1.0), "crop": (2.0, 3.0, 4.0)}.get(name, (0.5, 1.0, 2.0)):
        after = apply(Shift(name, strength), before, seed=1)
        assert after.x.dtype == before.x.dtype
        assert (after.ids, after.classes) == (before.ids, before.classes)
        assert after.y.equal(before.y)
        assert after.covariates["age"].equal(before.covariates["age"])
        if name not in ("flip", "crop"):
            assert all(getattr(after, k).equal(getattr(before, k)) for k in MASKS)
        changes.append(float((after.x - before.x).abs().mean()))
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("name", EVERY)
def test_a_row_changes_alike_whatever_stands_beside_it(name):
    before, shift = cohort(n=7, channels=2), Shift(name, 0.8)
    whole, some = apply(shift, before, seed=5)[[6, 1, 2]], apply(shift, before[[6, 1, 2]], seed=5)
    for key in IMAGES:
        torch.testing.assert_close(getattr(some, key), getattr(whole, key), atol=1e-6, rtol=0)
    assert all(getattr(some, key).equal(getattr(whole, key)) for key in MASKS)
    twin = apply(shift, before.replace(x=before.x_true), seed=5)
    assert twin.x.equal(apply(shift, before, seed=5).x_true)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"blur", "resolution", "crop"}))
def test_the_seed_decides(name):
    before, shift = cohort(n=16), Shift(name, 0.5)
    assert not apply(shift, before, seed=1).x.equal(apply(shift, before, seed=2).x)
    assert apply(shift, before, seed=1).x.equal(apply(shift, before, seed=1).x)


@pytest.mark.parametrize("space", SPACES)
def test_a_bias_field_has_mean_one_and_the_asked_spread(space):
    draws = Draws(0, torch.arange(50), 0)
    field = bias_field(space, 1.0, draws)
    torch.testing.assert_close(field.flatten(1).mean(1), torch.ones(50))
    torch.testing.assert_close(field.log().flatten(1).std(1), torch.full((50,), 0.25))
    torch.testing.assert_close(bias_field(space, 2.0, draws).log().flatten(1).std(1), torch.full((50,), 0.5))
    steps = [field.diff(dim=axis).abs().max() for axis in range(2, field.ndim)]
    assert max(steps) < 8 / min(space)  # smooth: low cosines only
    grey = apply(Shift("bias", 0.5), constant(-0.5, space))
    torch.testing.assert_close(((grey.x + 1) / 2).flatten(1).mean(1), torch.full((6,), 0.25))


def test_gamma_of_a_constant_image():
    before = constant(0.0, n=200)
    after = (apply(Shift("gamma", 1.5), before).x + 1) / 2
    brighter, darker = 0.5 ** math.exp(-0.6), 0.5 ** math.exp(0.6)
    assert after.flatten(1).std(1).max() < 1e-6
    found = after[:, 0, 0, 0]
    share = (found > 0.5).float().mean()
    assert 0.4 < share < 0.6
    torch.testing.assert_close(found, torch.where(found > 0.5, brighter, darker))
    for end in (-1.0, 1.0):
        assert apply(Shift("gamma", 1.5), constant(end)).x.equal(constant(end).x)


@pytest.mark.parametrize("strength", [0.3, 1.0])
def test_noise_has_the_asked_deviation(strength):
    before = constant(0.1, (40, 40), n=20)
    change = apply(Shift("noise", strength), before).x - before.x
    assert float(change.std()) == pytest.approx(0.1 * strength, rel=0.02)
    assert abs(float(change.mean())) < 0.001
    rows = change.flatten(1)
    assert abs(float(torch.corrcoef(rows[:2])[0, 1])) < 0.1


@pytest.mark.parametrize("space", [(31, 31), (21, 21, 21)])
def test_blur_of_a_point_is_the_kernel(space):
    sigma, dims = 1.7, len(space)
    x = torch.full((1, 1, *space), -1.0)
    x[(0, 0, *[n // 2 for n in space])] = 1.0
    after = (apply(Shift("blur", sigma), Cohort(x=x)).x[0, 0] + 1) / 2
    offset = torch.arange(space[0]) - space[0] // 2
    line = torch.exp(-offset.square() / (2 * sigma**2)) * (offset.abs() <= math.ceil(3 * sigma))
    line = line / line.sum()
    kernel = line
    for _ in range(dims - 1):
        kernel = kernel[..., None] * line
    torch.testing.assert_close(after, kernel, atol=1e-6, rtol=0)


@pytest.mark.parametrize("space", [(24, 24), (12, 12, 12)])
def test_resolution_keeps_what_is_coarse_and_loses_what_is_fine(space):
    p = geometry.identity(space, torch.zeros(1))
    ramp = (p[:, :1] / space[0] - 0.5).expand(2, 1, *space).contiguous()
    after = apply(Shift("resolution", 1.0), Cohort(x=ramp)).x
    torch.testing.assert_close(after[:, :, 1:-1], ramp[:, :, 1:-1])
    board = 0.5 * (1 - 2 * (p.sum(1, keepdim=True) % 2))
    assert apply(Shift("resolution", 1.0), Cohort(x=board)).x.abs().max() < 1e-6
    assert apply(Shift("resolution", 0.01), Cohort(x=board)).x.equal(board)  # no voxel fewer


@pytest.mark.parametrize("space", SPACES)
def test_motion_keeps_the_mean_and_smears_along_the_first_axis(space):
    before = cohort(space)
    after = apply(Shift("motion", 1.0), before)
    means = [((c.x + 1) / 2).flatten(1).mean(1) for c in (before, after)]
    torch.testing.assert_close(means[1], means[0], atol=0.02, rtol=0)  # k-space is still at its middle
    outside = ~before.mask
    assert (after.x[outside] + 1).mean() > 0.005  # ghosts in the air
    still = apply(Shift("motion", 1.0), constant(-1.0, space))
    torch.testing.assert_close(still.x, constant(-1.0, space).x)


@pytest.mark.parametrize("space", SPACES)
def test_crop_is_air_beyond_the_margin(space):
    before = cohort(space)
    after = apply(Shift("crop", 1.0), before)
    kept = tuple(slice(round(n / 10), n - round(n / 10)) for n in space)
    inside = torch.zeros(space, dtype=torch.bool)
    inside[kept] = True
    for key in IMAGES:
        assert getattr(after, key)[..., inside].equal(getattr(before, key)[..., inside])
        assert (getattr(after, key)[..., ~inside] == -1).all()
    for key in MASKS:
        assert getattr(after, key).equal(getattr(before, key) & inside)
    least = apply(Shift("crop", 100.0), before).x
    assert 0 < int((least > -1).flatten(1).any(0).sum()) <= 2 ** len(space)


@pytest.mark.parametrize("space", SPACES)
def test_flipping_all_twice_returns_them(space):
    before = cohort(space)
    once = apply(Shift("flip", 1.0), before)
    assert once.x.equal(before.x.flip(-1))
    assert once.lesion.equal(before.lesion.flip(-1))
    twice = apply(Shift("flip", 1.0), once)
    assert all(getattr(twice, key).equal(getattr(before, key)) for key in (*IMAGES, *MASKS))


def test_a_share_of_the_rows_is_flipped_whole():
    before = cohort(n=200)
    after = apply(Shift("flip", 0.3), before)
    there = (after.x == before.x).flatten(1).all(1)
    mirrored = (after.x == before.x.flip(-1)).flatten(1).all(1)
    assert (there ^ mirrored).all()
    assert float(mirrored.float().mean()) == pytest.approx(0.3, abs=0.1)
    assert after.mask.equal(torch.where(mirrored.view(-1, 1, 1, 1), before.mask.flip(-1), before.mask))


def test_left_and_right_are_where_the_affine_says():
    before = cohort((12, 14, 10))
    affine = torch.diag(torch.tensor([-2.0, 2.0, 2.0, 1.0])).expand(6, 4, 4)
    after = apply(Shift("flip", 1.0), before.replace(affine=affine))
    assert after.x.equal(before.x.flip(2))
    assert after.affine.equal(affine)


@pytest.mark.parametrize("space", [(48, 40), (20, 22, 24)])
def test_a_foreign_lesion_is_a_disc_in_the_mask(space):
    before = cohort(space, n=40)
    after = apply(Shift("lesion", 1.5), before)
    changed = after.x != before.x
    assert not (changed & ~before.mask).any()
    assert changed.flatten(1).any(1).all()
    radius, dims = 1.5 / 16 * min(space) + 0.5, len(space)
    ball = {2: math.pi, 3: 4 / 3 * math.pi}[dims] * radius**dims
    volume = changed.flatten(1).sum(1)
    assert volume.max() < 1.15 * ball
    assert volume.float().quantile(0.8) > 0.8 * ball
    p = geometry.identity(space, after.x)
    for image, there in zip(after.x, changed, strict=True):
        assert max(image[there].max(), -image[there].min()) > 0.99  # the middle is all bright or all dark
        place = p[0][:, there[0]].T
        assert (place[:, None] - place[None]).norm(dim=-1).max() < 2 * radius + 1
    ends = {float(image[there].median().sign()) for image, there in zip(after.x, changed, strict=True)}
    assert ends == {-1.0, 1.0}
    assert (after.x_true != before.x_true).equal(changed)


def test_without_a_mask_the_lesion_is_not_in_air():
    before = cohort(n=40).replace(mask=None)
    air = before.x <= -0.9
    changed = apply(Shift("lesion", 1.0), before).x != before.x
    assert changed.flatten(1).any(1).all()
    assert not (changed & air).any()
    assert apply(Shift("lesion", 1.0), constant(-1.0)).x.equal(constant(-1.0).x)  # nowhere to be


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("fog", 1.0, "name: expected one of .*bias.* got 'fog'"),
        ("blur", -1.0, r"strength: expected a number in \[0, inf\] for blur, got -1.0"),
        ("blur", float("nan"), "got nan"),
        ("flip", 1.5, r"in \[0, 1\] for flip, got 1.5"),
    ],
)
def test_what_means_nothing_is_refused(name, strength, message):
    with pytest.raises(InputError, match=message):
        Shift(name, strength)

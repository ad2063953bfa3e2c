"""The template against its own geometry and against textbook anatomy (world coordinates in mm, RAS)."""

import pytest
import torch

from cfx.core import geometry
from cfx.data import template
from cfx.data.template import CENTRE, CHANNELS, FIELD_OF_VIEW, LEVELS

T1, GM, WM, DISTANCE, PRIOR = range(len(CHANNELS))


def pixel(size, dims, world):
    """Nearest pixel of a world point in a slice (or volume) through it."""
    matrix = template.affine(size, dims, float(world[2])).double()
    place = torch.linalg.solve(matrix, torch.tensor([*world, 1.0], dtype=torch.float64))
    return tuple(place.round().long()[:dims].tolist())


def look(size, dims, world):
    """The five map values at a world point."""
    maps = template.template(size, dims).at(torch.tensor([float(world[2])]))[0]
    return maps[:, *pixel(size, dims, world)]


@pytest.mark.parametrize("size", [32, 63, 64])
def test_the_affine_maps_the_middle_of_the_field_to_its_centre(size):
    middle = (size - 1) / 2
    flat = template.affine(size, 2, 17.0) @ torch.tensor([middle, middle, 0, 1])
    assert torch.allclose(flat, torch.tensor([*CENTRE[:2], 17.0, 1]), atol=1e-4)
    solid = template.affine(size, 3) @ torch.tensor([middle, middle, middle, 1])
    assert torch.allclose(solid, torch.tensor([*CENTRE, 1]), atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
def test_the_affine_keeps_scale_and_handedness(dims):
    matrix = template.affine(64, dims)[:3, :3]
    lengths = torch.tensor([3.2, 3.2, 1.0] if dims == 2 else [3.2] * 3)
    assert torch.allclose(matrix.norm(dim=0), lengths)
    assert torch.det(matrix) > 0


def test_rows_run_to_the_back_and_columns_to_the_right():
    step = template.affine(64, 2)
    assert (step[:3, 0].tolist(), step[:3, 1].tolist()) == (
        pytest.approx([0, -FIELD_OF_VIEW / 64, 0]),
        pytest.approx([FIELD_OF_VIEW / 64, 0, 0]),
    )


@pytest.mark.parametrize(("size", "dims"), [(96, 2), (64, 3)])
def test_anatomy_lies_where_the_atlas_has_it(size, dims):
    ventricle, white, cortex, air = (
        look(size, dims, world) for world in [(6, 0, 20), (26, -32, 24), (0, 52, 10), (90, 60, 20)]
    )
    assert ventricle[DISTANCE] < 0 < min(white[DISTANCE], cortex[DISTANCE])
    assert white[WM] > 0.8 > ventricle[WM]
    assert cortex[GM] > cortex[WM]
    assert white[T1] > cortex[T1] > ventricle[T1] > air[T1] == 0
    assert air[DISTANCE] > 60


@pytest.mark.parametrize("dims", [2, 3])
def test_the_template_is_symmetric(dims):
    """The ICBM average is the symmetric one, and x = 0 is the middle of the field."""
    maps = template.template(32, dims).maps
    mirrored = maps.flip(-1) if dims == 2 else maps.flip(2)
    for channel, tolerance in ((T1, 0.02), (GM, 0.05), (WM, 0.05)):
        assert (maps - mirrored)[:, channel].abs().max() < tolerance


def test_slices_agree_with_the_volume():
    """One world point has one value, whichever grid and axis order it is read from (up to the through-plane blur)."""
    volume = template.template(64, 3)
    level = float((template.affine(64, 3) @ torch.tensor([0.0, 0, pixel(64, 3, (0, 0, 12))[2], 1]))[2])
    flat = template.template(64, 2).at(torch.tensor([level]))[0]
    cut = volume.maps[0, :, :, :, pixel(64, 3, (0, 0, level))[2]].flip(2).transpose(1, 2)
    for channel in (T1, GM, WM, DISTANCE):
        a, b = flat[channel].flatten(), cut[channel].flatten()
        assert torch.corrcoef(torch.stack([a, b]))[0, 1] > 0.98
    assert (flat[T1] - cut[T1]).abs().mean() < 0.01


def test_the_ventricle_distance_is_a_distance():
    """Its slope is one mm a mm, but for the ridges midway between the walls."""
    grid = template.template(64, 3)
    slope = (geometry.gradient(grid.maps[:, DISTANCE : DISTANCE + 1]) / grid.spacing).norm(dim=1)
    near = (grid.maps[:, DISTANCE] > 6) & (grid.maps[:, DISTANCE] < 40)
    assert slope[near].median() == pytest.approx(1, abs=0.02)
    assert slope.max() < 1.15


@pytest.mark.parametrize(("size", "dims"), [(64, 2), (32, 3)])
def test_lesions_can_start_in_white_matter_near_the_ventricles_only(size, dims):
    maps = template.template(size, dims).maps
    prior, wm, distance = maps[:, PRIOR], maps[:, WM], maps[:, DISTANCE]
    assert (prior.flatten(1).max(1).values > 0.3).all()  # every level has room for them
    weight = prior / prior.sum()
    assert float((weight * wm).sum()) > 0.8
    assert float((weight * distance).sum()) == pytest.approx(8, abs=2)
    assert float(weight[(distance < 0) | (distance > 22)].sum()) < 0.01


def test_between_levels_the_maps_are_interpolated_and_beyond_them_held():
    grid = template.template(32, 2)
    below, between, above = grid.at(torch.tensor([8.0, 8.5, 10.0]))
    assert torch.allclose(between, 0.75 * below + 0.25 * above, atol=1e-4)
    out = grid.at(torch.tensor([LEVELS[0] - 9, LEVELS[0], LEVELS[1] + 2, LEVELS[1] + 9]))
    assert torch.equal(out[0], out[1])
    assert torch.equal(out[2], out[3])


def test_every_level_cuts_the_ventricles():
    grid = template.template(64, 2)
    inside = (grid.at(torch.linspace(*LEVELS, 23))[:, DISTANCE] < 0).flatten(1).sum(1) * grid.spacing**2
    assert inside.min() > 100  # mm2

"""Voxel grids: world coordinates never move, and what is copied is copied exactly."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from cfx.core.errors import InputError
from cfx.data.grid import AXES, Volume, resample, slice_at, target_grid


def volume(data, affine=None, mask=None):
    return Volume(np.asarray(data, np.float32), mask, np.eye(4) if affine is None else np.asarray(affine), "v")


def test_crop_and_pad_copy_voxels_exactly():
    rng = np.random.default_rng(1)
    volume = Volume(rng.uniform(-1, 1, (7, 8, 9)).astype(np.float32), None, np.diag([2.0, 2, 2, 1]), "v")
    larger = resample(volume, (10, 11, 9), np.full(3, 2.0))
    assert np.isin(volume.data, larger.data).all()
    assert (larger.data == -1).sum() == 10 * 11 * 9 - 7 * 8 * 9
    back = resample(larger, (7, 8, 9), np.full(3, 2.0))
    assert np.array_equal(back.data, volume.data)
    assert np.allclose(back.affine, volume.affine)


@given(st.floats(0.4, 3), st.tuples(*[st.integers(5, 16)] * 3))
@settings(max_examples=25, deadline=None)
def test_a_linear_ramp_reads_its_world_coordinate_on_any_grid(spacing, shape):
    affine = np.array([[1.5, 0, 0, -9], [0, 2, 0, 4], [0, 0, 1, -3], [0, 0, 0, 1.0]])
    index = np.stack(np.meshgrid(*map(np.arange, (24, 18, 30)), indexing="ij"), -1)
    ramp = (index @ affine[:3, :3].T + affine[:3, 3]) @ (0.01, -0.008, 0.006)
    new = resample(Volume(ramp.astype(np.float32), None, affine, "v"), shape, np.full(3, spacing))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = index @ new.affine[:3, :3].T + new.affine[:3, 3]
    old = (places - affine[:3, 3]) @ np.linalg.inv(affine[:3, :3]).T
    # Away from the border, where neither padding nor the blur's reflection reaches.
    inside = ((old > 4) & (old < np.array([24, 18, 30]) - 5)).all(-1)
    assert inside.any()
    assert np.allclose(new.data[inside], (places @ (0.01, -0.008, 0.006))[inside], atol=1e-4)


def test_axial_rows_run_to_the_back_and_columns_to_the_right():
    data = np.zeros((4, 5, 3), np.float32)
    data[3, 4, 1] = 1
    flat = slice_at(Volume(data, data > 0, np.eye(4), "v"), "axial", None)
    assert flat.data.shape == (5, 4)
    assert flat.data[0, 3] == 1
    assert np.array_equal(flat.mask, flat.data > 0)


def test_spacing_is_the_length_of_a_step_along_each_axis():
    turn = np.array([[0.8, -0.6, 0, 3], [0.6, 0.8, 0, 5], [0, 0, 1, 7], [0, 0, 0, 1]])
    assert volume(np.zeros((2, 3, 4)), turn @ np.diag([2.0, 3, 5, 1])).spacing == pytest.approx((2, 3, 5))


@pytest.mark.parametrize(
    ("shape", "spacing", "expected", "steps"),
    [
        (None, None, (10, 20, 30), (2, 1, 0.5)),  # as it is
        (None, 1.0, (20, 20, 15), (1, 1, 1)),  # the field of view of 20 x 20 x 15 mm
        (None, 3.0, (7, 7, 5), (3, 3, 3)),  # covered, not cut
        ((8, 8, 8), 3.0, (8, 8, 8), (3, 3, 3)),
        ((10, 10, 5), None, (10, 10, 5), (3, 3, 3)),  # the finest at which all 15 mm fit into 5 voxels
    ],
)
def test_the_grid_that_is_asked_for(shape, spacing, expected, steps):
    found = target_grid(volume(np.zeros((10, 20, 30)), np.diag([2, 1, 0.5, 1])), shape, spacing)
    assert found[0] == expected
    assert found[1].tolist() == pytest.approx(steps)


def test_rounding_of_a_header_adds_no_voxel():
    rounded = np.diag([*np.float32([1.9999999, 2.0000002, 2]).astype(float), 1])
    assert target_grid(volume(np.zeros((91, 109, 91)), rounded), None, 1.0)[0] == (182, 218, 182)


def test_the_same_grid_is_the_same_volume():
    given = volume(np.random.default_rng(0).uniform(-1, 1, (4, 5, 6)))
    assert resample(given, *target_grid(given, None, None)) is given


def test_coarser_voxels_have_the_blur_of_their_size():
    """A point on a grid k times coarser: the Gaussian of full width at half maximum sqrt(k^2 - 1), so its variance."""
    data = -np.ones((65, 65, 65), np.float32)
    data[32, 32, 32] = 1
    point = resample(volume(data), (65, 65, 65), np.full(3, 1.0)).data + 1
    blurred = ndimage.gaussian_filter(point, 3**0.5 / (8 * np.log(2)) ** 0.5)
    found = resample(volume(data), (33, 33, 33), np.full(3, 2.0)).data + 1
    assert found == pytest.approx(blurred[::2, ::2, ::2], abs=1e-6)


def test_a_mask_is_half_covered_and_nothing_outside():
    mask = np.zeros((6, 6, 6), bool)
    mask[1:5] = True
    found = resample(volume(np.zeros((6, 6, 6)), mask=mask), (10, 6, 6), np.full(3, 1.0))
    assert found.mask[:, 0, 0].tolist() == [False] * 3 + [True] * 4 + [False] * 3
    assert found.data[:, 0, 0].tolist() == [-1] * 2 + [0] * 6 + [-1] * 2


@given(st.sampled_from(AXES), st.integers(0, 3), st.integers(0, 4), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_every_pixel_of_a_slice_is_its_voxel(axis, i, j, k):
    """The affine of the slice takes a pixel to where the affine of the volume takes its voxel."""
    affine = np.array([[2.0, 0, 0, -3], [0, 3, 0, 4], [0, 0, 5, 1], [0, 0, 0, 1]])
    data = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    across = AXES.index(axis)
    place = affine @ (i, j, k, 1)
    flat = slice_at(volume(data, affine, data > 50), axis, float(place[across]))
    (pixel,) = np.argwhere(flat.data == data[i, j, k])
    assert flat.affine @ (*pixel, 0, 1) == pytest.approx(place)
    assert flat.mask[tuple(pixel)] == (data[i, j, k] > 50)


def test_the_nearest_slice_is_taken_and_the_middle_without_a_coordinate():
    data = np.broadcast_to(np.arange(5.0), (3, 3, 5))
    affine = np.diag([1.0, 1, 2, 1])  # slices at 0, 2, 4, 6, 8 mm
    for mm, expected in ((None, 2), (3.1, 2), (2.9, 1), (8.9, 4), (-0.9, 0)):
        assert (slice_at(volume(data, affine), "axial", mm).data == expected).all()
    with pytest.raises(InputError, match=r"slice_mm: 9.1 mm lies outside v, which spans 0.0 to 8.0 mm"):
        slice_at(volume(data, affine), "axial", 9.1)


FIELDS = [((32, 32, 1), (1.0, 1, 5)), ((7, 9, 5), (1.0, 2, 3)), ((1, 1, 1), (4.0, 4, 4)), ((40, 3, 11), (0.7, 5, 1.3))]


@pytest.mark.parametrize(("shape", "steps"), FIELDS)
@pytest.mark.parametrize(
    ("new", "spacing"),
    [(None, 0.5), (None, 0.7), (None, 2.0), (None, 5.0), ((16, 16, 16), None), ((33, 20, 41), None), ((6, 50, 9), 1.1)],
)
def test_a_uniform_volume_stays_uniform_up_to_the_ends_of_its_field_of_view(shape, steps, new, spacing):
    """Every voxel whose centre lies inside is 1, every other -1; the mask is the inside."""
    given = volume(np.ones(shape), np.diag([*steps, 1]), np.ones(shape, bool))
    found = resample(given, *target_grid(given, new, spacing))
    index = np.stack(np.meshgrid(*map(np.arange, found.data.shape), indexing="ij"), -1)
    place = (index @ found.affine[:3, :3].T + found.affine[:3, 3]) / steps
    inside = ((place > -0.5 - 1e-3) & (place < np.array(shape) - 0.5 + 1e-3)).all(-1)
    assert found.data[inside] == pytest.approx(1, abs=1e-6)
    assert (found.data[~inside] == -1).all()
    assert np.array_equal(found.mask, inside)
    if new is None:
        assert inside.all()


def test_edges_are_those_of_the_outermost_voxels():
    """Half a voxel beyond the last centre a ramp has the last voxel's value."""
    ramp = np.broadcast_to(np.linspace(-1, 1, 5)[:, None, None], (5, 3, 3))
    found = resample(volume(ramp), (10, 6, 6), np.full(3, 0.5)).data[:, 0, 0]
    assert found == pytest.approx(np.interp((np.arange(10) - 0.5) / 2, np.arange(5), np.linspace(-1, 1, 5)), abs=1e-6)


def test_a_grid_without_a_place_in_memory_is_refused():
    with pytest.raises(InputError, match=r"spacing: 0.001 mm makes 10000 x 10000 x 10000 voxels of v"):
        target_grid(volume(np.zeros((10, 10, 10))), None, 0.001)

"""Back into the original file: what was not changed is the file to the last bit, and what was is x_cf."""

import hashlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from cfx.core.errors import InputError
from cfx.data.config import load_cohort
from cfx.data.native import Native
from cfx.data.nifti import NiftiConfig

# A few voxels, blurred by going coarser, may be nearly alike: no reason to doubt the window here.
pytestmark = pytest.mark.filterwarnings("ignore:images. all pixels lie in")

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [12, -17, 31], degrees=True).as_matrix() * (-1.1, 0.9, 3)
OBLIQUE[:3, 3] = (-40, 12, 7)
AFFINES = {
    "RAS": np.diag([1.0, 1, 1, 1]),
    "LAS": np.array([[-1.0, 0, 0, 9], [0, 1, 0, 3], [0, 0, 1, 2], [0, 0, 0, 1]]),
    "LPS": np.array([[-1.0, 0, 0, 9], [0, -1, 0, 3], [0, 0, 1, 2], [0, 0, 0, 1]]),
    "PIR": np.array([[0, 0, 1.5, -9], [-1, 0, 0, 3], [0, -2, 0, 2], [0, 0, 0, 1]]),
    "oblique": OBLIQUE,
    "anisotropic": np.diag([0.5, 0.7, 4, 1]),
}
SHAPE = (11, 9, 7)


def volume(dtype, shape=SHAPE):
    return (np.random.default_rng(0).normal(size=shape) * 300 + 200).astype(dtype)


def save(path, data, affine, slope=None, inter=None, kind=nibabel.Nifti1Image):
    image = kind(data, affine)
    image.header.set_slope_inter(slope, inter)
    image.header["descrip"] = b"a scanner"
    image.header["cal_max"] = 900
    nibabel.save(image, path)
    return path


def native(folder, **settings):
    """The cohort of a folder of one file, and that row's place in it."""
    cohort = load_cohort(NiftiConfig(path=folder, **settings))
    sha, affine = bytes(cohort.sha256[0].tolist()), cohort.affine[0].numpy()
    return cohort, Native.of(Path(cohort.file[0]), sha, affine, cohort.space, tuple(cohort.intensity[0].tolist()))


def edit(cohort, seed=0):
    """A blob of the image moved by up to 1, its change and its region."""
    rng = np.random.default_rng(seed)
    space = cohort.space
    index = np.stack(np.meshgrid(*map(np.arange, space), indexing="ij"), -1)
    middle = rng.uniform(0.3, 0.7, len(space)) * space
    where = torch.from_numpy((((index - middle) / (np.array(space) / 4)) ** 2).sum(-1) < 1)
    x = cohort.x[0, 0]
    x_cf = torch.where(where, torch.from_numpy(rng.uniform(-1, 1, space)).float(), x)
    return x_cf, (x_cf - x), x_cf != x


STORED = [
    ("int16", 0.1, -1000.0),
    ("int16", None, None),
    ("uint8", 2.0, 0.0),
    ("float32", None, None),
    ("float64", None, None),
]


@pytest.mark.parametrize(("dtype", "slope", "inter"), STORED)
@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_an_unchanged_row_is_the_file(tmp_path, name, dtype, slope, inter, suffix):
    """Grid, affine, both forms, units and every intensity, whatever was clipped on the way in."""
    data = np.abs(volume(dtype)) if dtype == "uint8" else volume(dtype)
    path = save(tmp_path / f"v{suffix}", data, AFFINES[name], slope, inter)
    cohort, place = native(tmp_path)
    zero = torch.zeros(cohort.space)
    place.save(place.changed(zero, zero != 0), tmp_path / "out.nii.gz")
    old, new = nibabel.load(path), nibabel.load(tmp_path / "out.nii.gz")
    assert new.shape == old.shape
    assert np.array_equal(new.affine, old.affine)
    assert np.array_equal(new.get_fdata(), old.get_fdata())
    for key in ("sform_code", "qform_code", "pixdim", "xyzt_units", "descrip", "srow_x", "quatern_b", "cal_max"):
        assert np.array_equal(new.header[key], old.header[key]), key
    small = dtype == "float32" or ((slope or 1.0).is_integer() and dtype != "float64")
    assert new.get_data_dtype() == (np.float32 if small else np.float64)


@pytest.mark.parametrize("name", AFFINES)
@pytest.mark.parametrize("settings", [{"percentiles": (5, 90)}, {"window": (0, 300)}], ids=["percentiles", "window"])
def test_reading_what_was_written_gives_x_cf(tmp_path, name, settings):
    """Without resampling, also where voxels were clipped: the law that says that nothing is lost."""
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    save(tmp_path / "in" / "v.nii", volume("int16"), AFFINES[name])
    cohort, place = native(tmp_path / "in", **settings)
    x_cf, change, where = edit(cohort)
    place.save(place.changed(change, where), tmp_path / "out" / "v.nii")
    again = load_cohort(NiftiConfig(path=tmp_path / "out", window=tuple(cohort.intensity[0].tolist())))
    assert torch.allclose(again.x[0, 0], x_cf, atol=1e-5)
    assert torch.allclose(again.affine, cohort.affine, atol=1e-5)
    written, data = nibabel.load(tmp_path / "out" / "v.nii").get_fdata(), volume("int16")
    edited = place.edited(where)
    assert edited.sum() == where.sum()
    assert np.array_equal(written[~edited], data[~edited])
    assert (written[edited] != data[edited]).all()


RESAMPLED = [
    {"spacing": 0.6},
    {"spacing": 2.0},
    {"shape": (6, 6, 6)},
    {"shape": (20, 20, 20)},
    {"spacing": 1.3, "shape": (7, 12, 9)},
]


@pytest.mark.parametrize("settings", RESAMPLED, ids=str)
@pytest.mark.parametrize("name", AFFINES)
def test_a_resampled_row_changes_only_where_the_edit_lies(tmp_path, name, settings):
    save(tmp_path / "v.nii", volume("float32"), AFFINES[name])
    cohort, place = native(tmp_path, window=(-1000, 1500), **settings)
    _, change, where = edit(cohort)
    data, written, edited = volume("float32"), place.changed(change, where), place.edited(where)
    assert np.array_equal(written[~edited], data[~edited])
    # A place of the file whose own voxel and all that touch it in the image are unedited keeps its value.
    index = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)
    to_image = np.linalg.solve(cohort.affine[0].numpy(), AFFINES[name])
    place_in_image = index @ to_image[:3, :3].T + to_image[:3, 3]
    reach = np.maximum(np.abs(to_image[:3, :3]).max(1), 1) / 2 + 1e-3
    edits = torch.nonzero(where).numpy()
    near = (np.abs(place_in_image[..., None, :] - edits) <= reach).all(-1).any(-1)
    assert not (edited & ~near).any()
    assert edited.any()


@pytest.mark.parametrize("settings", RESAMPLED[:4], ids=str)
@pytest.mark.parametrize("name", ["LPS", "oblique", "anisotropic"])
def test_a_change_that_is_the_same_everywhere_is_the_same_in_the_file(tmp_path, name, settings):
    """A step of 0.2 in the image is a step of 0.2 half windows in every voxel of the field of view."""
    save(tmp_path / "v.nii", volume("float32"), AFFINES[name])
    cohort, place = native(tmp_path, window=(-3000, 3000), **settings)
    step = torch.full(cohort.space, 0.2)
    written = place.changed(step, step > 0)
    assert written - volume("float32") == pytest.approx(0.2 * 3000, rel=1e-5)


@pytest.mark.parametrize(("axis", "across"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
@pytest.mark.parametrize("spacing", [None, 0.5, 2.0])
@pytest.mark.parametrize("name", ["RAS", "LPS", "PIR", "anisotropic"])
def test_a_slice_changes_the_voxels_of_that_slice(tmp_path, name, spacing, axis, across):
    save(tmp_path / "v.nii", volume("float32"), AFFINES[name])
    cohort, place = native(tmp_path, window=(-1000, 1500), slice_axis=axis, spacing=spacing)
    where = torch.ones(cohort.space, dtype=torch.bool)
    edited = place.edited(where)
    index = np.argwhere(edited)
    world = index @ AFFINES[name][:3, :3].T + AFFINES[name][:3, 3]
    plane = cohort.affine[0].numpy() @ (0, 0, 0, 1)
    step = np.abs(AFFINES[name][across, :3]).max()
    assert len(index) > 0
    assert (np.abs(world[:, across] - plane[across]) <= max(step, spacing or step) / 2 + 1e-3).all()
    thick = len(np.unique(world[:, across].round(4)))
    assert thick == (1 if spacing is None or spacing <= step else pytest.approx(spacing / step, abs=1))
    planes = np.moveaxis(edited, int(np.abs(AFFINES[name][across, :3]).argmax()), 0)
    assert all(plane.all() or not plane.any() for plane in planes)


@pytest.mark.parametrize("seed", range(24))
def test_whatever_was_read_however_nothing_else_changes(tmp_path, seed):
    """Random shapes (axes of one voxel too), places, types, slopes, byte orders, units and settings."""
    rng = np.random.default_rng(seed)
    shape = tuple(int(rng.integers(least, 12)) for least in (1, 3, 3))
    affine = np.eye(4)
    affine[:3, :3] = Rotation.random(random_state=rng).as_matrix() * rng.uniform(0.3, 6, 3) * rng.choice([-1, 1], 3)
    affine[:3, 3] = rng.normal(size=3) * 100
    data = (rng.random(shape) * 100 + 1).astype(rng.choice(["int16", "uint8", "int32", "float32", "float64"]))
    kind = [nibabel.Nifti1Image, nibabel.Nifti2Image][seed % 2]
    image = kind(data, affine, header=kind.header_class(endianness="<>"[seed // 2 % 2]), dtype=data.dtype)
    image.header.set_xyzt_units(["mm", "micron", "unknown"][seed % 3])
    if data.dtype.kind in "iu":
        image.header.set_slope_inter(float(rng.uniform(0.01, 3)), float(rng.normal() * 100))
    nibabel.save(image, tmp_path / "v.nii.gz")
    unit = 1e-3 if seed % 3 == 1 else 1.0
    spacing = {"spacing": float(rng.uniform(0.4, 5)) * unit}
    settings = [{}, spacing, {"shape": (9, 5, 12)}, {"slice_axis": "coronal"}, {"slice_axis": "axial"} | spacing]
    cohort, place = native(tmp_path, **settings[seed % 5])
    where = torch.from_numpy(rng.random(cohort.space) < 0.3)
    change = torch.where(where, torch.from_numpy(rng.uniform(-1, 1, cohort.space)).float() - cohort.x[0, 0], 0.0)
    old = nibabel.load(tmp_path / "v.nii.gz").get_fdata()
    for step in (torch.zeros_like(change), change):
        place.save(place.changed(step, step != 0), tmp_path / "out.nii")
        new = nibabel.load(tmp_path / "out.nii")
        edited = place.edited(step != 0)
        assert new.shape == shape
        assert np.array_equal(new.affine, nibabel.load(tmp_path / "v.nii.gz").affine)
        assert np.array_equal(new.get_fdata()[~edited], old[~edited])
        assert edited.any() == (step != 0).any() or "shape" in settings[seed % 5]


def test_slices_that_are_read_finely_fall_into_the_thick_slice_they_are_of(tmp_path):
    """An edit of one in five fine planes moves the thick slice by a fifth; a fine slice alone moves it in full."""
    save(tmp_path / "v.nii", np.full((8, 8, 3), 100, np.float32), np.diag([1.0, 1, 5, 1]))
    cohort, place = native(tmp_path, window=(0, 200), spacing=1.0)
    change = torch.zeros(cohort.space)
    change[..., 6] = -0.5
    moved = place.changed(change, change != 0)
    assert moved[..., 1] == pytest.approx(100 - 0.5 * 100 / 5)
    assert (moved[..., [0, 2]] == 100).all()
    flat, place = native(tmp_path, window=(0, 200), spacing=1.0, slice_axis="axial", slice_mm=4.0)
    change = torch.full(flat.space, -0.5)
    moved = place.changed(change, change != 0)
    assert moved[..., 1] == pytest.approx(50)
    assert (moved[..., [0, 2]] == 100).all()


def test_masks_cover_what_they_cover_by_half(tmp_path):
    save(tmp_path / "v.nii", volume("float32", (8, 8, 8)), np.eye(4))
    cohort, place = native(tmp_path, spacing=0.5)
    mask = torch.zeros(cohort.space, dtype=torch.bool)
    mask[4:9, :8, :8] = True  # voxels 2 and 3 of the file in whole, 4 by half
    assert place.labels(mask)[:, 0, 0].tolist() == [0, 0, 1, 1, 1, 0, 0, 0]
    mask[8, 2:] = False
    assert place.labels(mask)[:, 1, 1].tolist() == [0, 0, 1, 1, 0, 0, 0, 0]


def test_a_voxel_has_the_class_that_covers_most_of_it(tmp_path):
    save(tmp_path / "v.nii", volume("float32", (4, 4, 4)), np.eye(4))
    _, place = native(tmp_path, spacing=0.5)
    mask = torch.zeros(8, 8, 8, dtype=torch.uint8)
    mask[0] = 3
    mask[1] = 2  # voxel 0 of the file half and half: of equals the highest
    mask[2:5] = 1  # voxel 1 in whole, 2 by half
    mask[4, :4] = 2
    found = place.labels(mask)
    assert found[:, 3, 0].tolist() == [3, 1, 1, 0]
    assert found[:, 0, 0].tolist() == [3, 1, 2, 0]
    assert (place.labels(torch.zeros_like(mask)) == 0).all()
    share = place.laid((mask == 1).float())
    assert share[:, 3, 0].tolist() == [0, 1, 0.5, 0]
    place.save(found, tmp_path / "out.nii", alike=False)
    assert nibabel.load(tmp_path / "out.nii").get_data_dtype() == np.uint8


def test_axes_of_length_one_and_the_second_format_stay(tmp_path):
    save(tmp_path / "v.nii", volume("int16", (4, 5, 6, 1)), AFFINES["LPS"], kind=nibabel.Nifti2Image)
    cohort, place = native(tmp_path)
    zero = torch.zeros(cohort.space)
    place.save(place.changed(zero, zero != 0), tmp_path / "out.nii")
    place.save(np.stack([place.edited(zero == 0)] * 2, -1), tmp_path / "masks.nii", alike=False)
    found = nibabel.load(tmp_path / "out.nii")
    assert isinstance(found, nibabel.Nifti2Image)
    assert found.shape == (4, 5, 6, 1)
    masks = nibabel.load(tmp_path / "masks.nii")
    assert (masks.shape, masks.get_data_dtype(), float(masks.header["cal_max"])) == ((4, 5, 6, 2), np.uint8, 0)


@pytest.mark.parametrize("how", ["gone", "other"])
def test_a_file_that_is_not_the_one_is_refused(tmp_path, how):
    path = save(tmp_path / "v.nii", volume("int16"), np.eye(4))
    sha = hashlib.sha256(path.read_bytes()).digest()
    path.unlink() if how == "gone" else save(path, volume("int16") + 1, np.eye(4))
    with pytest.raises(InputError, match="is not there" if how == "gone" else "is not the one that was read"):
        Native.of(path, sha, np.eye(4), SHAPE, (0.0, 1.0))


def test_an_image_that_was_turned_since_is_refused(tmp_path):
    path = save(tmp_path / "v.nii", volume("int16"), np.eye(4))
    sha = hashlib.sha256(path.read_bytes()).digest()
    turned = np.eye(4)
    turned[:3, :3] = Rotation.from_euler("z", 5, degrees=True).as_matrix()
    with pytest.raises(InputError, match=r"v.nii: its axes are not those of the image"):
        Native.of(path, sha, turned, SHAPE, (0.0, 1.0))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    save(tmp_path / "v.nii", volume("int16"), np.eye(4))
    _, place = native(tmp_path)
    with pytest.raises(InputError, match="cannot write"):
        place.save(place.file.data, tmp_path / "none" / "x.nii")

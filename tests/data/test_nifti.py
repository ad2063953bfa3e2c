"""Folders of NIfTI volumes: values, and above all places, survive whatever is done to the grid."""

import hashlib
import re

import nibabel
import numpy as np
import pytest
import torch
from pydantic import ValidationError

from cfx.core.cohort import Cohort
from cfx.core.errors import CfxWarning, InputError
from cfx.data.config import load_cohort, open_cohort
from cfx.data.export import to_nifti
from cfx.data.nifti import NiftiConfig

# Voxel sizes 1.5, 2 and 3 mm, stored with axes to the back, left and top.
AFFINE = np.array([[0, -2.0, 0, 30], [-1.5, 0, 0, 40], [0, 0, 3.0, -20], [0, 0, 0, 1]])
SHAPE = (20, 14, 9)


def blob(shape, affine, world, width=4.0):
    """A Gaussian bump at a place in mm."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    places = index @ affine[:3, :3].T + affine[:3, 3]
    return np.exp(-((places - world) ** 2).sum(-1) / (2 * width**2)).astype(np.float32)


def centre(weights, affine):
    """The place in mm of the centre of mass."""
    weights = np.asarray(weights, np.float64)
    index = np.stack(np.meshgrid(*map(np.arange, weights.shape), indexing="ij"), -1)
    index = np.concatenate([index, np.zeros((*weights.shape, 4 - weights.ndim - 1))], -1) if weights.ndim < 3 else index
    middle = (index * weights[..., None]).reshape(-1, 3).sum(0) / weights.sum()
    return affine[:3, :3] @ middle + affine[:3, 3]


def save(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, affine), path)


def table(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def marked(tmp_path):
    """One noisy volume with a single bright voxel, and where that lies in mm."""
    data = np.random.default_rng(0).uniform(10, 50, SHAPE).astype(np.float32)
    data[4, 11, 6] = 100
    save(tmp_path / "images" / "sub-1.nii.gz", data)
    return tmp_path / "images", data, AFFINE[:3, :3] @ (4, 11, 6) + AFFINE[:3, 3]


def test_reorientation_keeps_values_places_and_spacing(marked):
    path, data, world = marked
    cohort = load_cohort(NiftiConfig(path=path, window=(0, 100)))
    assert cohort.ids == ("sub-1",)
    assert cohort.space == (14, 20, 9)
    assert cohort.spacing.tolist() == [pytest.approx([2.0, 1.5, 3.0])]
    assert np.sort(cohort.x.numpy().ravel()) == pytest.approx(np.sort(data.ravel()) / 50 - 1, abs=1e-5)
    (found,) = (cohort.x[0, 0] == 1).nonzero().numpy()
    affine = cohort.affine[0].numpy()
    assert affine[:3, :3] @ found + affine[:3, 3] == pytest.approx(world, abs=1e-4)
    assert (np.diag(affine)[:3] > 0).all()


def test_spacing_is_the_headers(marked):
    header = nibabel.load(marked[0] / "sub-1.nii.gz").header
    cohort = load_cohort(NiftiConfig(path=marked[0]))
    assert sorted(cohort.spacing[0].tolist()) == pytest.approx(sorted(float(v) for v in header.get_zooms()))


OBLIQUE = np.array([[1.9, 0.3, 0, -20], [-0.25, 1.4, 0.2, -15], [0, -0.2, 2.9, -10], [0, 0, 0, 1]])


@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE], ids=["flipped", "oblique"])
@pytest.mark.parametrize(
    "settings",
    [
        {"spacing": 1.0},
        {"spacing": 2.5},
        {"shape": (24, 24, 24)},
        {"spacing": 2.0, "shape": (13, 16, 15)},
        {"spacing": 1.0, "shape": (40, 41, 60)},
    ],
    ids=str,
)
def test_a_structure_keeps_its_world_coordinates(tmp_path, affine, settings):
    world = affine[:3, :3] @ (np.array(SHAPE) - 1) / 2 + affine[:3, 3] + (1.2, -0.7, 0.9)
    save(tmp_path / "v.nii", 200 * blob(SHAPE, affine, world, width=2.5), affine)
    cohort = load_cohort(NiftiConfig(path=tmp_path, window=(0, 250), **settings))
    found = centre((cohort.x[0, 0].numpy() + 1) / 2, cohort.affine[0].numpy())
    assert found == pytest.approx(world, abs=0.05)
    if "spacing" in settings:
        assert cohort.spacing[0].tolist() == pytest.approx([settings["spacing"]] * 3, rel=1e-3)
    if "shape" in settings:
        assert cohort.space == settings["shape"]


def test_shape_alone_keeps_the_whole_field_of_view(tmp_path):
    save(tmp_path / "v.nii", np.pad(np.full((38, 18, 8), 100, np.float32), 1), np.diag([1.0, 1, 2, 1]))
    cohort = load_cohort(NiftiConfig(path=tmp_path, window=(0, 100), shape=(20, 20, 20)))
    assert cohort.spacing[0].tolist() == pytest.approx([2, 2, 2])
    volume = float(((cohort.x + 1) / 2).sum()) * 2**3
    assert volume == pytest.approx(38 * 18 * 8 * 2, rel=0.03)


@pytest.mark.parametrize(("axis", "world_axis"), [("sagittal", 0), ("coronal", 1), ("axial", 2)])
def test_a_slice_keeps_its_world_coordinates(marked, axis, world_axis):
    path, _, world = marked
    cohort = load_cohort(NiftiConfig(path=path, window=(0, 100), slice_axis=axis, slice_mm=world[world_axis]))
    assert len(cohort.space) == 2
    (row, column) = (cohort.x[0, 0] == 1).nonzero()[0].tolist()
    place = cohort.affine[0].numpy() @ (row, column, 0, 1)
    assert place[:3] == pytest.approx(world, abs=1e-4)
    steps = cohort.affine[0, :3, :2].numpy()
    assert cohort.spacing[0].tolist() == pytest.approx(np.linalg.norm(steps, axis=0).tolist())


def test_slice_outside_the_volume_is_refused(marked):
    with pytest.raises(InputError, match=r"slice_mm: 90.0 mm lies outside .*sub-1.nii.gz, which spans -20.0 to 4.0 mm"):
        load_cohort(NiftiConfig(path=marked[0], slice_axis="axial", slice_mm=90))


def test_rows_follow_the_table(tmp_path):
    for name, value in (("a", 10), ("b", 20), ("c", 30)):
        data = np.full((4, 4, 4), value, np.float32)
        save(tmp_path / "images" / f"{name}.nii{'.gz' * (name != 'b')}", data, np.diag([1, 1, 1, 1.0]))
    csv = table(tmp_path / "t.csv", "id,dx,age\nc,ad,81\na.nii.gz,cn,70\nb,ad,\n")
    config = NiftiConfig(path=tmp_path / "images", table=csv, filename="id", label="dx", window=(0, 40))
    cohort = load_cohort(config)
    assert cohort.ids == ("c", "a.nii.gz", "b")
    assert (cohort.y.tolist(), cohort.classes) == ([0, 1, 0], ["ad", "cn"])
    assert cohort.x[:, 0, 0, 0, 0].tolist() == pytest.approx([0.5, -0.5, 0])
    assert cohort.covariates["age"][:2].tolist() == [81, 70]
    assert cohort.covariates["age"].isnan().tolist() == [False, False, True]


def test_percentiles_are_taken_inside_the_mask(tmp_path):
    data = np.zeros((10, 10, 10), np.float32)
    data[2:8, 2:8, 2:8] = np.linspace(100, 200, 216).reshape(6, 6, 6)
    data[0, 0, 0] = 9000
    save(tmp_path / "images" / "s.nii", data)
    save(tmp_path / "masks" / "s.nii.gz", (data > 0).astype(np.uint8) * (data < 300))
    cohort = load_cohort(NiftiConfig(path=tmp_path / "images", masks=tmp_path / "masks", percentiles=(0, 100)))
    assert cohort.mask.sum() == 216
    inside = cohort.x[cohort.mask]
    assert (inside.min(), inside.max()) == (-1, 1)
    assert inside.mean() == pytest.approx(0, abs=1e-5)
    unmasked = load_cohort(NiftiConfig(path=tmp_path / "images", percentiles=(0, 100)))
    assert unmasked.x[cohort.mask].max() < -0.9


def test_the_mask_moves_with_the_image(tmp_path):
    world = AFFINE[:3, :3] @ (9, 6, 4) + AFFINE[:3, 3]
    bump = blob(SHAPE, AFFINE, world, width=6)
    save(tmp_path / "images" / "s.nii", 100 * bump)
    save(tmp_path / "masks" / "s.nii", (bump > 0.5).astype(np.uint8))
    cohort = load_cohort(NiftiConfig(path=tmp_path / "images", masks=tmp_path / "masks", window=(0, 100), spacing=1))
    found = centre(cohort.mask[0, 0].numpy(), cohort.affine[0].numpy())
    assert found == pytest.approx(world, abs=0.3)
    assert (cohort.x[cohort.mask] > -0.3).all()


def test_a_mask_on_another_grid_is_refused(tmp_path):
    save(tmp_path / "images" / "s.nii", np.random.default_rng(0).random(SHAPE, np.float32))
    save(tmp_path / "masks" / "s.nii", np.ones(SHAPE, np.uint8), np.diag([1.0, 1, 1, 1]))
    with pytest.raises(InputError, match=r"s.nii: the mask is on another grid"):
        load_cohort(NiftiConfig(path=tmp_path / "images", masks=tmp_path / "masks"))
    save(tmp_path / "other" / "s.nii", np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match=r"other/s.nii: the mask is empty"):
        load_cohort(NiftiConfig(path=tmp_path / "images", masks=tmp_path / "other"))
    with pytest.raises(InputError, match="masks: expected a folder"):
        load_cohort(NiftiConfig(path=tmp_path / "images", masks=tmp_path / "none"))


def test_full_paths_in_the_table_still_find_their_masks(tmp_path):
    save(tmp_path / "images" / "s.nii", np.random.default_rng(0).random(SHAPE, np.float32))
    save(tmp_path / "masks" / "s.nii", np.eye(20, 14, dtype=np.uint8)[..., None] * np.ones(9, np.uint8))
    csv = table(tmp_path / "t.csv", f"filename\n{tmp_path}/images/s.nii\n")
    config = NiftiConfig(path=tmp_path / "images", table=csv, label=None, masks=tmp_path / "masks")
    assert load_cohort(config).mask.sum() == 14 * 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,CDR\nsub-1,0\n", r"label: no column 'label' in .*t.csv; it has filename, CDR"),
        ("filename,label\nsub-1,0\nsub-2,1\nsub-3,1\n", "no file in .* for sub-2, sub-3"),
    ],
)
def test_bad_tables_are_refused(marked, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_cohort(NiftiConfig(path=marked[0], table=table(tmp_path / "t.csv", text)))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (np.full((3, 3, 3), np.nan, np.float32), "bad.nii: 27 voxels are NaN or infinite"),
        (np.full((3, 3, 3), 7, np.float32), r"bad.nii: intensities are constant \(7\)"),
        (np.zeros((3, 3, 3), np.float32), r"bad.nii: intensities are constant \(0\)"),
        (np.ones((3, 3, 3, 2), np.float32), r"bad.nii: expected one volume \(x, y, z\), got shape \(3, 3, 3, 2\)"),
    ],
)
def test_bad_volumes_are_refused_by_name(tmp_path, data, message):
    save(tmp_path / "bad.nii", data)
    with pytest.raises(InputError, match=message):
        load_cohort(NiftiConfig(path=tmp_path))


def test_two_shapes_and_damage_are_refused_by_name(marked):
    path = marked[0]
    save(path / "sub-2.nii", np.random.default_rng(0).random((5, 6, 7), np.float32))
    with pytest.raises(InputError, match=r"\(1, 14, 20, 9\) in .*sub-1.nii.gz, \(1, 6, 5, 7\) in .*sub-2.nii"):
        load_cohort(NiftiConfig(path=path))
    whole = (path / "sub-1.nii.gz").read_bytes()
    (path / "sub-1.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"sub-1.nii.gz is not a readable NIfTI"):
        load_cohort(NiftiConfig(path=path))
    (path / "sub-1.nii.gz").write_bytes(b"text")
    with pytest.raises(InputError, match=r"sub-1.nii.gz is not a readable NIfTI"):
        load_cohort(NiftiConfig(path=path))


@pytest.mark.parametrize(
    "settings",
    [
        {"slice_mm": 1.0},
        {"window": (1, 1)},
        {"percentiles": (90, 10)},
        {"spacing": 0},
        {"shape": (0, 1, 1)},
        {"sze": 1},
    ],
    ids=str,
)
def test_bad_settings_are_refused(tmp_path, settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        NiftiConfig(path=tmp_path, **settings)


@pytest.mark.parametrize("settings", [{}, {"slice_axis": "axial"}], ids=["volume", "slice"])
def test_written_counterfactual_lies_on_the_original(marked, tmp_path, settings):
    cohort = load_cohort(NiftiConfig(path=marked[0], **settings))
    to_nifti(-cohort.x[0], cohort.affine[0], tmp_path / "cf.nii.gz")
    image = nibabel.load(tmp_path / "cf.nii.gz")
    assert np.allclose(image.affine, cohort.affine[0].numpy(), atol=1e-5)
    assert np.array_equal(image.get_fdata(dtype=np.float32).reshape(cohort.space), -cohort.x[0, 0].numpy())
    assert image.header.get_xyzt_units()[0] == "mm"


def test_read_write_read_is_the_identity(marked, tmp_path):
    first = load_cohort(NiftiConfig(path=marked[0]))
    to_nifti(first.x[0], first.affine[0], tmp_path / "sub-1.nii")
    again = load_cohort(NiftiConfig(path=tmp_path, window=(-1, 1)))
    assert torch.allclose(again.x, first.x, atol=1e-6)
    assert torch.allclose(again.affine, first.affine, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "axes"),
    [
        ({}, ["right", "front", "top"]),
        ({"slice_axis": "axial"}, ["back", "right"]),
        ({"slice_axis": "coronal"}, ["bottom", "right"]),
        ({"slice_axis": "sagittal"}, ["bottom", "front"]),
    ],
)
@pytest.mark.parametrize("affine", [AFFINE, OBLIQUE, np.diag([-1.0, -1, 2, 1])], ids=["turned", "oblique", "LPS"])
def test_axes_have_the_names_of_where_they_run_to(tmp_path, affine, settings, axes):
    save(tmp_path / "v.nii", np.random.default_rng(0).random(SHAPE, np.float32), affine)
    cohort = load_cohort(NiftiConfig(path=tmp_path, **settings))
    assert list(cohort.axes) == axes
    assert list(cohort.axes) == list(Cohort(cohort.x, affine=cohort.affine).axes)  # and so says the affine


@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_needed_to_write_back_is_kept(marked, lazy):
    path, data, _ = marked
    save(path / "sub-2.nii", 3 * data)
    config = NiftiConfig(path=path, percentiles=(1, 90), lazy=lazy)
    cohort = open_cohort(config)[[1, 0]]
    assert cohort.file == (str(path / "sub-2.nii"), str(path / "sub-1.nii.gz"))
    for row, factor in enumerate((3, 1)):
        assert cohort.intensity[row].tolist() == pytest.approx(np.percentile(factor * data, (1, 90)).tolist())
        file = hashlib.sha256((path / ("sub-2.nii" if factor == 3 else "sub-1.nii.gz")).read_bytes())
        assert bytes(cohort.sha256[row].tolist()) == file.digest()
    window = load_cohort(NiftiConfig(path=path, window=(0, 120)))
    assert window.intensity.tolist() == [[0, 120]] * 2


def test_a_uniform_volume_is_uniform_at_any_spacing(tmp_path):
    save(tmp_path / "v.nii", np.full((32, 32, 1), 100, np.float32), np.diag([1.0, 1, 5, 1]))
    cohort = load_cohort(NiftiConfig(path=tmp_path, spacing=0.5, window=(0, 100)))
    assert cohort.space == (64, 64, 10)
    assert (cohort.x == 1).all()


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["a.nii", "a.nii.gz"], r"path: files under one name in .*: a.nii, a.nii.gz; keep one"),
        (["A.NII", "A.nii.gz", "b.nii"], r"path: files under one name in .*: A.NII, A.nii.gz; keep one"),
        (["._a.nii"], r"path: expected .nii or .nii.gz files, found none in .*; it holds nothing"),
        (["x.mgz"], r"path: expected .nii or .nii.gz files, found none in .*; it holds x.mgz"),
        ([], r"path: expected .nii or .nii.gz files, found none in .*; it holds nothing"),
    ],
)
def test_folders_without_one_file_a_name_are_refused(tmp_path, files, message):
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match=message):
        load_cohort(NiftiConfig(path=tmp_path))


def test_hidden_files_and_folders_are_no_volumes(marked):
    (marked[0] / "._sub-1.nii.gz").write_bytes(b"x")
    (marked[0] / "folder.nii").mkdir()
    (marked[0] / "participants.tsv").touch()
    save(marked[0] / "masks" / "sub-1.nii.gz", (marked[1] > 20).astype(np.uint8))
    assert load_cohort(NiftiConfig(path=marked[0])).ids == ("sub-1",)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sub-2.mgz", "1 files not read: 1 .mgz"),
        ("sub-2.hdr", "1 files not read: 1 .hdr"),
        ("sub-2.nrrd", "1 files not read: 1 .nrrd"),
    ],
)
def test_what_looks_like_an_image_and_is_not_read_is_said(marked, name, said):
    (marked[0] / name).write_bytes(b"x")
    with pytest.warns(CfxWarning, match=re.escape(said)):
        assert load_cohort(NiftiConfig(path=marked[0])).ids == ("sub-1",)


def test_volumes_in_subfolders_alone_are_to_be_named(tmp_path):
    for k in range(2):
        save(tmp_path / f"sub-{k}" / "anat" / "T1w.nii.gz", np.ones((2, 2, 2), np.float32))
    with pytest.raises(InputError, match=r"none in .*, but some in its subfolders; name those in a table"):
        load_cohort(NiftiConfig(path=tmp_path))


@pytest.mark.parametrize("steps", [(1, 1, 1), (-1, -1, 1), (1, -1, -1)])
@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 1, 6), (5, 6, 1), (1, 1, 6)])
@pytest.mark.parametrize("axis", [None, "sagittal", "coronal", "axial"])
def test_axes_of_one_voxel_are_axes(tmp_path, shape, steps, axis):
    """However they run: an axis of length one may keep a stride that torch does not take."""
    data = np.random.default_rng(0).uniform(0, 100, shape).astype(np.float32)
    save(tmp_path / "v.nii", data, np.diag([*steps, 1.0]))
    cohort = load_cohort(NiftiConfig(path=tmp_path, window=(0, 100), slice_axis=axis))
    found = np.sort(cohort.x.numpy().ravel())
    every = np.sort((data * 0.02 - 1).ravel())
    assert np.isin(found.round(4), every.round(4)).all()
    assert cohort.x.is_contiguous()


def test_a_name_of_two_files_and_two_names_of_a_file_are_refused(marked, tmp_path):
    path, data, _ = marked
    csv = table(tmp_path / "t.csv", "filename\nsub-1\nsub-1.nii.gz\n")
    with pytest.raises(InputError, match=r"t.csv: column 'filename' names one file in several rows: .*sub-1.nii.gz"):
        load_cohort(NiftiConfig(path=path, table=csv, label=None))
    save(path / "sub-1.nii", data)
    csv = table(tmp_path / "t.csv", "filename\nsub-1\n")
    with pytest.raises(InputError, match=r"path: both .nii.gz and .nii in .* for sub-1; name the file with its suffix"):
        load_cohort(NiftiConfig(path=path, table=csv, label=None))
    csv = table(tmp_path / "t.csv", "filename\nsub-1.nii.gz\nsub-1.nii\n")
    assert load_cohort(NiftiConfig(path=path, table=csv, label=None)).ids == ("sub-1.nii.gz", "sub-1.nii")


@pytest.mark.parametrize(
    "settings",
    [
        {"slice_axis": "top", "slice_mm": 0},
        {"slice_mm": np.nan, "slice_axis": "axial"},
        {"slice_mm": np.inf, "slice_axis": "axial"},
        {"spacing": np.inf},
        {"spacing": np.nan},
        {"spacing": -1},
        {"window": (0, np.inf)},
        {"window": (np.nan, 1)},
        {"percentiles": (0, np.nan)},
        {"percentiles": (-1, 50)},
    ],
    ids=str,
)
def test_numbers_that_are_none_are_refused(tmp_path, settings):
    with pytest.raises(ValidationError, match=next(iter(settings))):
        NiftiConfig(path=tmp_path, **settings)


@pytest.mark.parametrize("mm", [-1e9, -23.1, 5.6, 1e9])
def test_slices_beyond_the_ends_are_refused(marked, mm):
    with pytest.raises(InputError, match=rf"slice_mm: .*{re.escape(str(mm))} mm lies outside .*spans -20.0 to 4.0 mm"):
        load_cohort(NiftiConfig(path=marked[0], slice_axis="axial", slice_mm=mm))


@pytest.mark.parametrize("window", [(5000, 6000), (-10, -5)])
def test_a_window_without_a_voxel_is_refused(marked, window):
    with pytest.raises(InputError, match=r"window: no voxel of .*sub-1.nii.gz lies in .*; it has intensities from 10"):
        load_cohort(NiftiConfig(path=marked[0], window=window))


def test_intensities_too_close_to_tell_apart_are_constant(tmp_path):
    save(tmp_path / "v.nii", (np.random.default_rng(0).normal(size=(4, 4, 4)) * 1e-40).astype(np.float32))
    with pytest.raises(InputError, match=r"v.nii: intensities are constant"):
        load_cohort(NiftiConfig(path=tmp_path))

"""One NIfTI file: what its bytes say is read exactly, and what contradicts itself or is no intensity is named."""

import gzip
import hashlib
import warnings

import nibabel
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from cfx.core.errors import CfxWarning, InputError
from cfx.data.config import load_cohort
from cfx.data.nifti import NiftiConfig, canonical
from cfx.data.volume_file import VolumeFile, doubt, stem

RNG = np.random.default_rng(0)
DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def volume(dtype="float32", shape=(4, 5, 6)):
    return RNG.integers(0, 100, shape).astype(dtype)


def save(path, data, affine=None, header=None, kind=nibabel.Nifti1Image):
    image = kind(data, np.diag([2.0, 2, 2, 1]) if affine is None else affine, header, dtype=data.dtype)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_is_read_in_either_byte_order(tmp_path, dtype, kind, order):
    data = volume(dtype)
    header = kind.header_class(endianness=order)
    path = save(tmp_path / "v.nii", data, header=header, kind=kind)
    assert nibabel.load(path).header.endianness == order
    found = VolumeFile.read(path)
    assert np.array_equal(found.data, data)
    assert found.sha256 == hashlib.sha256(path.read_bytes()).digest()
    assert found.doubt == ""


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize(("slope", "inter"), [(0.1, -1000.0), (1.0, 3.0), (3.7e-5, 0.0), (None, None)])
def test_slope_and_intercept_are_applied_exactly(tmp_path, name, slope, inter):
    image = nibabel.Nifti1Image(volume("int16"), np.eye(4))
    image.header.set_slope_inter(slope, inter)
    nibabel.save(image, tmp_path / name)
    found = VolumeFile.read(tmp_path / name)
    assert np.array_equal(found.data, nibabel.load(tmp_path / name).get_fdata())
    assert found.data.dtype == (np.float32 if slope is None else np.float64)


def test_large_whole_numbers_keep_their_differences(tmp_path):
    data = (2**30 + np.arange(120).reshape(4, 5, 6)).astype("int32")
    assert np.ptp(VolumeFile.read(save(tmp_path / "v.nii", data)).data) == 119
    cohort = load_cohort(NiftiConfig(path=tmp_path, percentiles=(0, 100)))
    assert len(cohort.x.unique()) == 120


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1), (1, 5, 6), (4, 5, 1), (1, 1, 1, 1)])
def test_axes_of_length_one_behind_a_volume_are_none(tmp_path, shape):
    assert VolumeFile.read(save(tmp_path / "v.nii", volume(shape=shape))).data.shape == shape[:3]


@pytest.mark.parametrize("shape", [(4, 5), (4,), (4, 5, 6, 2), (4, 5, 1, 7), (4, 5, 6, 1, 3)])
def test_what_is_not_one_volume_is_refused(tmp_path, shape):
    with pytest.raises(InputError, match=r"v.nii: expected one volume \(x, y, z\), got shape \(4"):
        VolumeFile.read(save(tmp_path / "v.nii", volume(shape=shape)))


@pytest.mark.parametrize(
    ("dtype", "message"),
    [
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]), "got colours"),
        (np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1"), ("A", "u1")]), "got colours"),
        (np.dtype("complex64"), "got complex numbers"),
        (np.dtype("complex128"), "got complex numbers"),
    ],
)
def test_what_is_no_intensity_is_refused(tmp_path, dtype, message):
    nibabel.save(nibabel.Nifti1Image(np.zeros((3, 3, 3), dtype), np.eye(4)), tmp_path / "v.nii")
    with pytest.raises(InputError, match=rf"v.nii: expected one intensity a voxel, {message}"):
        VolumeFile.read(tmp_path / "v.nii")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_voxels_that_are_no_number_are_counted(tmp_path, dtype, value):
    data = volume(dtype)
    data[1, 2, 3] = data[0, 0, 0] = value
    with pytest.raises(InputError, match=r"v.nii: 2 voxels are NaN or infinite"):
        VolumeFile.read(save(tmp_path / "v.nii", data))


@pytest.mark.parametrize(("dtype", "value"), [("float64", 1e39), ("int64", 2**60), ("uint64", 2**60)])
def test_intensities_beyond_the_floats_here_are_refused(tmp_path, dtype, value):
    data = volume(dtype)
    data[0, 0, 0] = value
    with pytest.raises(InputError, match=r"v.nii: expected intensities up to .*, got 1"):
        VolumeFile.read(save(tmp_path / "v.nii", data))


@pytest.mark.parametrize(("unit", "length"), [("micron", 1e-3), ("meter", 1e3), ("mm", 1.0), ("unknown", 1.0)])
def test_places_are_in_millimetres_whatever_the_unit_of_the_file(tmp_path, unit, length):
    image = nibabel.Nifti1Image(volume(), np.diag([2.0, 3, 4, 1]) @ shifted(np.eye(4), 5, 6, 7))
    image.header.set_xyzt_units(unit, "sec")
    nibabel.save(image, tmp_path / "v.nii")
    wanted = image.affine.copy()
    wanted[:3] *= length
    assert np.allclose(VolumeFile.read(tmp_path / "v.nii").affine, wanted)
    assert load_cohort(NiftiConfig(path=tmp_path)).spacing.tolist() == [
        pytest.approx([2 * length, 3 * length, 4 * length])
    ]


@pytest.mark.parametrize(("axis", "sform", "bad"), [(1, 0, True), (3, 0, True), (2, 1, False)])
def test_voxels_without_a_size_are_refused_where_it_matters(tmp_path, axis, sform, bad):
    image = nibabel.Nifti1Image(volume(), np.eye(4))
    image.header.set_sform(np.eye(4), sform)
    image.header.set_qform(np.eye(4), 1 - sform)
    image.header["pixdim"][axis] = 0
    (tmp_path / "v.nii").write_bytes(_bytes(image))
    if not bad:
        assert VolumeFile.read(tmp_path / "v.nii").doubt == ""
        return
    with pytest.raises(InputError, match=r"v.nii is not a readable NIfTI file \(its voxels have no size"):
        VolumeFile.read(tmp_path / "v.nii")


@pytest.mark.parametrize("quaternion", [(0.9, 0.9, 0.9), (np.nan, 0, 0)])
def test_a_qform_that_is_no_rotation_is_named(tmp_path, quaternion):
    image = nibabel.Nifti1Image(volume(), np.eye(4))
    image.header.set_qform(np.eye(4), 1)
    for name, value in zip(("quatern_b", "quatern_c", "quatern_d"), quaternion, strict=True):
        image.header[name] = value
    (tmp_path / "v.nii").write_bytes(_bytes(image))
    assert "no rotation; the sform (code 2) is used" in VolumeFile.read(tmp_path / "v.nii").doubt


@pytest.mark.parametrize("cut", [100, 347, 352, 400])
def test_an_error_is_one_line_and_nothing_else_is_said(tmp_path, capfd, cut):
    path = save(tmp_path / "v.nii", volume())
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError) as caught:
        VolumeFile.read(path)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.zeros((4, 4)), "an affine that places every voxel"),
        (np.diag([1.0, 0, 1, 1]), "an affine that places every voxel"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "axes in three directions"),
        (np.full((4, 4), np.nan), "an affine that places every voxel"),
    ],
)
def test_an_affine_that_places_nothing_is_refused(tmp_path, affine, message):
    image = nibabel.Nifti1Image(volume(), np.eye(4))
    image.header["sform_code"] = 1
    image.header["srow_x"], image.header["srow_y"], image.header["srow_z"] = affine[:3]
    (tmp_path / "v.nii").write_bytes(_bytes(image))
    with pytest.raises(InputError, match=f"v.nii: expected {message}"):
        VolumeFile.read(tmp_path / "v.nii")


def _bytes(image):
    """The file of an image with its header as it is."""
    header = image.header.copy()
    header["vox_offset"] = 352
    return header.binaryblock + b"\0\0\0\0" + np.asarray(image.dataobj).tobytes("F")


@pytest.mark.parametrize("seed", range(12))
def test_damage_to_a_compressed_file_is_never_silent(tmp_path, seed):
    """Whatever bit flips in the packed bytes, what is read is what was written (padding), or nothing is."""
    rng, data = np.random.default_rng(seed), volume()
    path = save(tmp_path / "v.nii.gz", data)
    whole, refused = path.read_bytes(), 0
    for at in rng.integers(20, len(whole), 20):  # behind gzip's header, whose time and name mean nothing
        flipped = bytearray(whole)
        flipped[at] ^= 1 << rng.integers(8)
        path.write_bytes(flipped)
        try:
            assert np.array_equal(VolumeFile.read(path).data, data)
        except InputError as error:
            assert "v.nii.gz is not a readable NIfTI file" in str(error)  # noqa: PT017
            refused += 1
    assert refused >= 18


@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.5, 0.99])
def test_a_file_that_ends_early_is_refused(tmp_path, name, part):
    path = save(tmp_path / name, volume())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError, match=rf"{name} is not a readable NIfTI file"):
        VolumeFile.read(path)


PACKED = gzip.compress(b"text", mtime=0)


@pytest.mark.parametrize("content", [b"text", b"\0" * 1000, PACKED, b"\x89PNG\r\n\x1a\n" * 100])
def test_other_files_are_refused(tmp_path, content):
    (tmp_path / "v.nii").write_bytes(content)
    with pytest.raises(InputError, match=r"v.nii is not a readable NIfTI file"):
        VolumeFile.read(tmp_path / "v.nii")


def test_a_header_of_a_huge_volume_is_no_reason_to_ask_for_its_memory(tmp_path):
    image = nibabel.Nifti1Image(volume(), np.eye(4))
    image.header["dim"][1:4] = 30000
    (tmp_path / "v.nii").write_bytes(_bytes(image))
    with pytest.raises(InputError, match=r"v.nii is not a readable NIfTI file"):
        VolumeFile.read(tmp_path / "v.nii")


def test_packed_is_what_begins_as_packed(tmp_path):
    packed = save(tmp_path / "a.nii.gz", volume())
    (tmp_path / "b.nii").write_bytes(packed.read_bytes())
    (tmp_path / "c.nii.gz").write_bytes(gzip.decompress(packed.read_bytes()))
    expected = VolumeFile.read(packed).data
    assert all(np.array_equal(VolumeFile.read(tmp_path / name).data, expected) for name in ("b.nii", "c.nii.gz"))


SHAPE = (64, 64, 20)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [12, -7, 31], degrees=True).as_matrix() * (1, 1.2, 3)
OBLIQUE[:3, 3] = (-40, 12, 7)


def header(sform, qform, codes=(1, 1), shape=SHAPE):
    made = nibabel.Nifti1Header()
    made.set_data_shape(shape)
    made.set_sform(sform, codes[0])
    made.set_qform(qform, codes[1])
    return made


def turned(affine, degrees):
    move = np.eye(4)
    move[:3, :3] = Rotation.from_euler("z", degrees, degrees=True).as_matrix()
    return move @ affine


def shifted(affine, *mm):
    move = np.eye(4)
    move[:3, 3] = mm
    return move @ affine


@pytest.mark.parametrize("base", [np.eye(4), OBLIQUE], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", [(1, 1), (2, 1), (4, 1), (1, 4)])
@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda a: a @ np.diag([-1, 1, 1, 1]), "mirror each other"),
        (lambda a: np.diag([-1, 1, 1, 1]) @ a, "mirror each other"),
        (lambda a: shifted(a, 0, 5, 0), "disagree"),
        (lambda a: shifted(a, 0.3, 0, 0), "disagree"),
        (lambda a: turned(a, 3), "disagree"),
        (lambda a: turned(a, 180), "disagree"),
        (lambda a: a @ np.diag([1, 1, 1.2, 1]), "disagree"),
    ],
    ids=["flipped", "mirrored", "shifted", "nudged", "turned", "upside down", "stretched"],
)
def test_two_places_for_one_volume_are_named(base, codes, change, word):
    found = doubt(header(change(base), base, codes))
    assert found.startswith(f"sform (code {codes[0]}) [[")
    assert f"qform (code {codes[1]}) [[" in found
    assert word in found


@pytest.mark.parametrize("seed", range(8))
def test_what_rounding_leaves_of_one_place_is_no_disagreement(seed):
    rng = np.random.default_rng(seed)
    for _ in range(60):
        half = Rotation.from_rotvec((np.pi - rng.exponential(1e-3)) * _unit(rng))
        rotation = half if rng.random() < 0.5 else Rotation.random(random_state=rng)
        affine = np.eye(4)
        affine[:3, :3] = rotation.as_matrix() * rng.uniform(0.5, 3, 3) * (rng.choice([-1, 1]), 1, 1)
        affine[:3, 3] = rng.normal(size=3) * 150
        read = nibabel.Nifti1Header(header(affine, affine, shape=(256, 256, 180)).binaryblock)
        assert doubt(read) == ""


def _unit(rng):
    v = rng.normal(size=3)
    return v / np.linalg.norm(v)


@pytest.mark.parametrize("codes", [(1, 0), (0, 1), (4, 0)])
def test_one_place_is_no_disagreement(codes):
    assert doubt(header(OBLIQUE, np.eye(4), codes)) == ""


def test_a_volume_without_orientation_says_so():
    assert "left and right are a guess" in doubt(header(None, None, (0, 0)))


def test_a_folder_is_warned_of_once_with_the_files(tmp_path):
    for name in ("a", "b", "c"):
        made = header(np.diag([-1.0, 1, 1, 1]), np.eye(4), shape=(4, 5, 6)) if name != "b" else None
        nibabel.save(nibabel.Nifti1Image(volume(), None if made else np.eye(4), made), tmp_path / f"{name}.nii")
    with pytest.warns(CfxWarning, match=r"a.nii \(and so in c.nii\): sform .* mirror each other") as caught:
        load_cohort(NiftiConfig(path=tmp_path))
    assert len(caught) == 1


def test_reading_is_silent_where_all_is_well(tmp_path):
    save(tmp_path / "v.nii", volume(), OBLIQUE)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = VolumeFile.read(tmp_path / "v.nii")
    data, affine = canonical(found)
    wanted = nibabel.as_closest_canonical(nibabel.load(tmp_path / "v.nii"))
    assert np.array_equal(data, wanted.get_fdata())
    assert np.allclose(affine, wanted.affine)


def test_the_stem_is_the_name_without_its_suffix():
    assert [stem(n) for n in ("a.nii", "a.nii.gz", "A.NII.GZ", "a.b.nii", "a")] == ["a", "a", "A", "a.b", "a"]

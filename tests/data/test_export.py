"""Images as NIfTI files: what another reader finds in them, and what cannot be written."""

import nibabel
import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.data.export import to_nifti
from cfx.data.volume_file import doubt

AFFINE = torch.tensor([[0.0, -2, 0, 30], [-1.5, 0, 0, 40], [0, 0.25, 3, -20], [0, 0, 0, 1]])


def test_channels_become_the_fourth_axis(tmp_path):
    x = torch.arange(2 * 3 * 4 * 5.0).reshape(2, 3, 4, 5)
    to_nifti(x, torch.eye(4), tmp_path / "two.nii")
    assert np.array_equal(nibabel.load(tmp_path / "two.nii").get_fdata(), x.movedim(0, -1).numpy())


def test_unwritable_places_are_refused(tmp_path):
    x = torch.zeros(1, 2, 2, 2)
    with pytest.raises(InputError, match="cannot write"):
        to_nifti(x, torch.eye(4), tmp_path / "none" / "x.nii")
    with pytest.raises(InputError, match=r"ends in .nii"):
        to_nifti(x, torch.eye(4), tmp_path / "x.png")
    with pytest.raises(InputError, match="invertible"):
        to_nifti(x, torch.zeros(4, 4), tmp_path / "x.nii")


@pytest.mark.parametrize("shape", [(1, 3, 4, 5), (1, 3, 4)])
@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
def test_another_reader_finds_values_places_and_units(tmp_path, shape, name):
    x = torch.rand(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    to_nifti(x, AFFINE, tmp_path / name)
    image = nibabel.load(tmp_path / name)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(image.get_fdata(dtype=np.float32), x.detach().float().numpy().reshape(3, 4, -1))
    assert np.array_equal(image.affine, AFFINE.double().numpy())
    assert image.header.get_xyzt_units()[0] == "mm"


def test_channels_of_a_slice_stay_apart_from_its_thickness(tmp_path):
    to_nifti(torch.arange(24.0).view(2, 3, 4), torch.eye(4), tmp_path / "x.nii")
    found = nibabel.load(tmp_path / "x.nii").get_fdata()
    assert found.shape == (3, 4, 1, 2)
    assert found[..., 0, 1].ravel().tolist() == list(range(12, 24))


@pytest.mark.parametrize("shape", [(3, 4), (1, 1, 3, 4, 5)])
def test_other_shapes_are_refused(tmp_path, shape):
    with pytest.raises(InputError, match=r"x: expected \(c, h, w\) or \(c, x, y, z\), got shape"):
        to_nifti(torch.zeros(shape), torch.eye(4), tmp_path / "x.nii")


@pytest.mark.parametrize("make", [str, lambda p: p, lambda p: f"$FOLDER/{p.name}", lambda p: f"~/{p.name}"])
def test_any_way_to_say_a_path_is_one(tmp_path, monkeypatch, make):
    monkeypatch.setenv("FOLDER", str(tmp_path))
    monkeypatch.setenv("HOME", str(tmp_path))
    to_nifti(torch.ones(1, 2, 3, 4), AFFINE, make(tmp_path / "x.nii.gz"))
    assert nibabel.load(tmp_path / "x.nii.gz").shape == (2, 3, 4)


def test_a_mask_is_0_and_1(tmp_path):
    mask = torch.rand(1, 3, 4, 5) > 0.5
    to_nifti(mask, AFFINE, tmp_path / "m.nii")
    found = nibabel.load(tmp_path / "m.nii")
    assert found.get_data_dtype() == np.uint8
    assert np.array_equal(found.get_fdata() > 0, mask[0].numpy())


def test_what_has_no_place_says_so(tmp_path):
    to_nifti(torch.rand(1, 3, 4, 5), None, tmp_path / "x.nii")
    header = nibabel.load(tmp_path / "x.nii").header
    assert (int(header["sform_code"]), int(header["qform_code"])) == (0, 0)
    assert doubt(header)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int16, np.bool_])
def test_numpy_does_as_well(tmp_path, dtype):
    x = (np.random.default_rng(0).random((1, 3, 4, 5)) * 3).astype(dtype)
    to_nifti(x, AFFINE.numpy(), tmp_path / "x.nii")
    found = nibabel.load(tmp_path / "x.nii")
    assert np.array_equal(found.get_fdata(dtype=np.float32), x[0].astype(np.float32))
    assert np.array_equal(found.affine, AFFINE.double().numpy())
    with pytest.raises(InputError, match=r"affine: expected a 4 x 4 matrix, got shape \(3, 3\)"):
        to_nifti(x, np.eye(3), tmp_path / "x.nii")


def test_class_numbers_stay_whole(tmp_path):
    labels = torch.tensor([0, 1, 255, 2], dtype=torch.uint8).reshape(2, 1, 1, 2)
    to_nifti(labels, torch.eye(4), tmp_path / "labels.nii")
    image = nibabel.load(tmp_path / "labels.nii")
    assert image.get_data_dtype() == np.uint8
    assert np.array_equal(image.get_fdata(), labels.movedim(0, -1).numpy())

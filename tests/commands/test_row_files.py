"""What rows of any kind are written with."""

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image

from cfx.commands.row_files import masks_of, native_of, save_grey, upright, write_nifti
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError

MASK = torch.tensor([[0, 1], [2, 0]], dtype=torch.uint8)
COHORT = Cohort(torch.zeros(1, 1, 2, 2), readings=MASK[None, None], lesion=(MASK > 1)[None, None])


def test_masks_that_are_known_are_written_as_they_are(tmp_path):
    assert [name for name, _ in masks_of(COHORT)] == ["lesion", "readings"]
    write_nifti(masks_of(COHORT), COHORT, tmp_path)
    found = nibabel.load(tmp_path / "readings.nii.gz")
    assert found.get_data_dtype() == np.uint8
    assert found.get_fdata()[..., 0].tolist() == MASK.tolist()


def test_a_mask_is_white_where_it_is_anything(tmp_path):
    assert upright(MASK[None], ("y", "x")).tolist() == [[[-1, 1], [1, -1]]]
    save_grey("lesion", upright(MASK[None], ("y", "x")), (), tmp_path)
    assert np.asarray(Image.open(tmp_path / "lesion.png")).tolist() == [[0, 255], [255, 0]]


def test_rows_of_no_file_have_no_place_in_one():
    with pytest.raises(InputError, match="native: the original file of 0 was not kept"):
        native_of(COHORT)

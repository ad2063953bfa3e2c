"""Stores of images: the user's own arrays, and atlases."""

import numpy as np
import pytest
import torch
import zarr

from cfx.core.errors import InputError
from cfx.data.config import load_cohort
from cfx.data.zarr import ZarrConfig, open_zarr


@pytest.fixture
def path(tmp_path):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("images", data=np.linspace(0, 10, 4 * 2 * 3 * 3, dtype=np.float32).reshape(4, 2, 3, 3))
    group.create_array("grade", data=np.array([0, 2, 1, 1]))
    group.create_array("several", data=np.array([[0, 1], [1, 1], [0, 0], [1, 0]]))
    group.create_array("name", data=np.array(["a", "b", "c", "d"], dtype=np.dtypes.StringDType()))
    group.create_array("short", data=np.zeros(3, dtype=np.int64))
    return tmp_path / "a.zarr"


def test_images_labels_and_names(path):
    cohort = load_cohort(
        ZarrConfig(path=path, labels="grade", ids="name", value_range=(0, 10), classes=("low", "mid", "high"))
    )
    assert cohort.x.flatten().allclose(torch.linspace(-1, 1, 72), atol=1e-6)
    assert cohort.shape == (2, 3, 3)
    assert cohort.y.tolist() == [0, 2, 1, 1]
    assert cohort.ids == ("a", "b", "c", "d")
    assert cohort.classes == ["low", "mid", "high"]


def test_several_labels_and_numbered_rows(path):
    cohort = load_cohort(ZarrConfig(path=path, labels="several", value_range=(0, 10)))
    assert cohort.y.tolist() == [[0, 1], [1, 1], [0, 0], [1, 0]]
    assert cohort.ids == ("0", "1", "2", "3")
    assert load_cohort(ZarrConfig(path=path, value_range=(0, 10))).y is None


def test_bytes_span_their_full_range(tmp_path):
    zarr.create_group(tmp_path).create_array("images", data=np.array([0, 51, 255], np.uint8).reshape(3, 1, 1, 1))
    assert load_cohort(ZarrConfig(path=tmp_path)).x.flatten().tolist() == pytest.approx([-1, -0.6, 1])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"images": "image"}, "images: no array 'image' .*grade, images, name"),
        ({"images": "grade"}, r"grade: expected \(n, h, w\) or .* got \(4,\)"),
        ({"layout": "ndhwc"}, "layout: ndhwc has 5 axes, .*images has 4"),
        ({"value_range": None}, "float32 need a value_range"),
        ({"value_range": (0, 5)}, "expected values within value_range"),
        ({"labels": "short"}, "labels: expected 4 entries in 'short'"),
        ({"labels": "grade", "classes": ("a", "b")}, "label 2 is outside the 2 classes"),
        ({"ids": "names"}, "ids: no array 'names'"),
    ],
)
def test_what_does_not_fit_is_refused(path, more, message):
    with pytest.raises(InputError, match=message):
        load_cohort(ZarrConfig(**{"path": path, "value_range": (0, 10)} | more))


def test_no_store_and_a_damaged_chunk_are_named(path, tmp_path):
    with pytest.raises(InputError, match="expected a zarr group, found none at"):
        load_cohort(ZarrConfig(path=tmp_path / "b.zarr"))
    source = open_zarr(ZarrConfig(path=path, value_range=(0, 10), lazy=True))
    for chunk in (path / "images" / "c").rglob("*"):
        if chunk.is_file():
            chunk.write_bytes(b"no zstd")
    with pytest.raises(InputError, match=r"rows 0 to .* of .*images are damaged"):
        _ = source[:1]

"""MedMNIST-style files: known pixels in, known values out."""

import numpy as np
import pytest
import torch

from cfx.core.errors import InputError
from cfx.data.config import load_cohort, open_cohort
from cfx.data.npz import NpzConfig, open_npz


def write(path, images, labels, split="train", **more):
    np.savez(path, **{f"{split}_images": images, f"{split}_labels": labels}, **more)
    return path


@pytest.fixture
def grey(tmp_path):
    images = np.arange(4 * 6 * 6, dtype=np.uint8).reshape(4, 6, 6)
    images[0, 0, 0], images[3, 5, 5] = 0, 255
    return write(tmp_path / "grey.npz", images, np.array([[1], [0], [2], [1]], dtype=np.uint8)), images


def test_grey_values_rows_and_labels(grey):
    path, images = grey
    cohort = load_cohort(NpzConfig(path=path))
    assert torch.allclose((cohort.x[:, 0] + 1) * 127.5, torch.from_numpy(images).float(), atol=1e-4)
    assert cohort.x[0, 0, 0, 0] == -1
    assert cohort.x[3, 0, 5, 5] == 1
    assert cohort.y.tolist() == [1, 0, 2, 1]
    assert cohort.ids == ("train-0", "train-1", "train-2", "train-3")
    assert cohort[[2, 0]].y.tolist() == [2, 1]


def test_colour_axis_moves_to_the_front(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    cohort = load_cohort(NpzConfig(path=write(tmp_path / "rgb.npz", images, np.array([0, 1]))))
    assert cohort.x.shape == (2, 3, 5, 4)
    assert torch.allclose(cohort.x[1, 2] * 127.5 + 127.5, torch.from_numpy(images[1, :, :, 2]).float(), atol=1e-4)


def test_volumes_keep_their_axes(tmp_path):
    images = np.zeros((2, 4, 5, 6), dtype=np.uint8)
    images[1, 3, 0, 5] = 255
    cohort = load_cohort(NpzConfig(path=write(tmp_path / "vol.npz", images, np.array([0, 1]))))
    assert (cohort.x == 1).nonzero().tolist() == [[1, 0, 3, 0, 5]]


def test_halving_is_the_mean_of_four_pixels(grey):
    path, images = grey
    cohort = load_cohort(NpzConfig(path=path, size=3))
    means = images.reshape(4, 3, 2, 3, 2).astype(np.float64).mean((2, 4))
    assert np.allclose(cohort.x[:, 0].numpy() * 127.5 + 127.5, means, atol=1e-3)


def test_enlarging_keeps_a_constant_and_the_range(tmp_path):
    images = np.full((1, 4, 4), 51, dtype=np.uint8)
    cohort = load_cohort(NpzConfig(path=write(tmp_path / "flat.npz", images, np.array([0])), size=(8, 6)))
    assert cohort.space == (8, 6)
    assert torch.allclose(cohort.x, torch.tensor(-0.6), atol=1e-6)


def test_float_images_state_their_range(tmp_path):
    path = write(tmp_path / "ct.npz", np.array([[[-1000.0, 0.0], [500.0, 1000.0]]]), np.array([0]))
    with pytest.raises(InputError, match="float64 need a value_range"):
        load_cohort(NpzConfig(path=path))
    with pytest.raises(InputError, match=r"within value_range \(0.0, 1.0\), got \[-1000, 1000\]"):
        load_cohort(NpzConfig(path=path, value_range=(0.0, 1.0)))
    cohort = load_cohort(NpzConfig(path=path, value_range=(-1000.0, 1000.0)))
    assert cohort.x.flatten().tolist() == pytest.approx([-1, 0, 0.5, 1])


def test_several_labels_a_row(tmp_path):
    labels = np.array([[1, 0, 1], [0, 0, 0]])
    path = write(tmp_path / "multi.npz", np.zeros((2, 3, 3), np.uint8), labels)
    cohort = load_cohort(NpzConfig(path=path, classes=("a", "b", "c")))
    assert cohort.y.dtype == torch.float32
    assert cohort.y.tolist() == labels.tolist()
    with pytest.raises(InputError, match="3 labels a row, but 2 classes"):
        load_cohort(NpzConfig(path=path, classes=("a", "b")))


def test_unlabelled(tmp_path):
    np.savez(tmp_path / "x.npz", test_images=np.zeros((2, 3, 3), np.uint8))
    assert load_cohort(NpzConfig(path=tmp_path / "x.npz", split="test", labelled=False)).y is None


def test_missing_split_lists_the_keys(grey):
    with pytest.raises(InputError, match=r"no array 'val_images' .* it has train_images, train_labels"):
        load_cohort(NpzConfig(path=grey[0], split="val"))


def test_missing_labels_list_the_keys(tmp_path):
    np.savez(tmp_path / "x.npz", train_images=np.zeros((2, 3, 3), np.uint8))
    with pytest.raises(InputError, match=r"no array 'train_labels' .* it has train_images"):
        load_cohort(NpzConfig(path=tmp_path / "x.npz"))


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (np.zeros((2, 3), np.uint8), [0, 1], r"expected \(n, h, w\)"),
        (np.zeros((2, 3, 3), np.uint8), [0, 1, 1], "2 images, but 3 labels in split 'train'"),
        (np.zeros((2, 3, 3), np.uint8), [0, -1], "whole numbers from 0"),
        (np.zeros((2, 3, 3), np.uint8), [0, 0.5], "whole numbers from 0"),
        (np.zeros((2, 3, 3), np.uint8), [0, 2], "label 2 is outside the 2 classes"),
        (np.zeros((2, 3, 3), np.uint8), [[0, 1], [0, 2]], "must be 0 or 1"),
        (np.zeros((2, 3, 4), np.uint8), [0, 1], "one number would distort images of"),
    ],
)
def test_bad_arrays_are_refused(tmp_path, images, labels, message):
    path = write(tmp_path / "bad.npz", images, np.array(labels))
    with pytest.raises(InputError, match=message):
        load_cohort(NpzConfig(path=path, classes=("a", "b"), size=6))


def test_nan_is_refused_by_row(tmp_path):
    images = np.zeros((3, 2, 2), np.float32)
    images[1, 0, 0] = np.nan
    with pytest.raises(InputError, match=r"NaN or infinite pixels in rows \[1\]"):
        load_cohort(NpzConfig(path=write(tmp_path / "nan.npz", images, np.zeros(3, int)), value_range=(0, 1)))


def test_pickles_and_damage_are_refused(tmp_path):
    path = write(tmp_path / "object.npz", np.array([{}, {}], dtype=object), np.array([0, 1]))
    with pytest.raises(InputError, match="damaged or holds Python objects"):
        load_cohort(NpzConfig(path=path))
    path.write_bytes(b"not a zip file")
    with pytest.raises(InputError, match=r"not a readable .npz"):
        load_cohort(NpzConfig(path=path))
    np.save(tmp_path / "one.npy", np.zeros(3))
    with pytest.raises(InputError, match="single array"):
        load_cohort(NpzConfig(path=tmp_path / "one.npy"))
    with pytest.raises(InputError, match="found none"):
        load_cohort(NpzConfig(path=tmp_path / "none.npz"))


def test_flipped_bit_is_refused(grey):
    path, _ = grey
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"train_images: .* is damaged"):
        load_cohort(NpzConfig(path=path))


@pytest.mark.realdata
def test_pneumoniamnist(realdata):
    path = realdata / "pneumoniamnist_28_merged.npz"
    cohorts = {split: load_cohort(NpzConfig(path=path, split=split)) for split in ("train", "val", "test")}
    assert {split: len(cohort) for split, cohort in cohorts.items()} == {"train": 4707, "val": 524, "test": 624}
    for cohort in cohorts.values():
        assert cohort.x.shape[1:] == (1, 28, 28)
        assert cohort.y.unique().tolist() == [0, 1]
        assert cohort.x.std() > 0.2
    with np.load(path) as arrays:
        assert np.allclose(cohorts["test"].x[:, 0].numpy() * 127.5 + 127.5, arrays["test_images"], atol=1e-4)
        assert cohorts["test"].y.tolist() == arrays["test_labels"].ravel().tolist()


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.uint16])
@pytest.mark.parametrize("space", [(6, 5), (3, 4, 5)])
def test_rows_are_read_in_their_place(tmp_path, dtype, space):
    images = np.random.default_rng(0).integers(0, 200, (9, *space)).astype(dtype)
    np.savez(tmp_path / "a.npz", other=np.zeros(7), train_images=images, train_labels=np.arange(9))
    layout = {2: "nhw", 3: "ndhw"}[len(space)]
    config = NpzConfig(path=tmp_path / "a.npz", value_range=(0, 200), layout=layout, lazy=True)
    whole, source = load_cohort(config.model_copy(update={"lazy": False})), open_npz(config)
    assert source[[8, 0, 3]].x.equal(whole.x[[8, 0, 3]])
    assert source[2:5].y.tolist() == [2, 3, 4]


def test_compressed_and_transposed_arrays_are_not_read_row_by_row(tmp_path):
    images = np.zeros((4, 6, 5), np.uint8)
    np.savez_compressed(tmp_path / "a.npz", train_images=images)
    with pytest.raises(InputError, match=r"compressed array .* numpy\.savez instead"):
        open_npz(NpzConfig(path=tmp_path / "a.npz", labelled=False, lazy=True))
    np.savez(tmp_path / "b.npz", train_images=images.T)
    with pytest.raises(InputError, match="C order"):
        open_npz(NpzConfig(path=tmp_path / "b.npz", labelled=False, lazy=True))


def test_a_file_cut_short_is_named(tmp_path):
    np.savez(tmp_path / "a.npz", train_images=np.zeros((4, 60, 50), np.uint8))
    source = open_npz(NpzConfig(path=tmp_path / "a.npz", labelled=False, lazy=True))
    with (tmp_path / "a.npz").open("r+b") as file:
        file.truncate(9000)
    with pytest.raises(InputError, match="expected rows 3 to 3, but the file ends before"):
        _ = source[[3]]


@pytest.mark.parametrize("lazy", [False, True])
@pytest.mark.parametrize("layout", ["nchw", "nhwc", "ndhw"])
def test_the_layout_is_said_or_asked_for(tmp_path, lazy, layout):
    images = np.random.default_rng(0).integers(0, 256, (4, 3, 32, 32), dtype=np.uint8)
    images = images.transpose(0, 2, 3, 1).copy() if layout == "nhwc" else images
    config = NpzConfig(path=write(tmp_path / "a.npz", images, np.arange(4) % 2), lazy=lazy)
    if layout != "nhwc":
        with pytest.raises(InputError, match=r"train_images: expected `layout` .* nchw .*, ndhw"):
            open_cohort(config)
        config = config.model_copy(update={"layout": layout})
    found = open_cohort(config)[[2, 1]].x
    assert found.shape == ((2, 1, 3, 32, 32) if layout == "ndhw" else (2, 3, 32, 32))
    value = found[0, 0, 2, 7, 5] if layout == "ndhw" else found[0, 2, 7, 5]
    pixel = images[2, 7, 5, 2] if layout == "nhwc" else images[2, 2, 7, 5]
    assert value == pytest.approx(pixel / 127.5 - 1, abs=1e-6)


def test_one_channel_in_front_is_a_channel(tmp_path):
    images = np.arange(2 * 25, dtype=np.uint8).reshape(2, 1, 5, 5) * 5
    assert load_cohort(NpzConfig(path=write(tmp_path / "a.npz", images, np.arange(2)))).x.shape == (2, 1, 5, 5)


@pytest.mark.parametrize("lazy", [False, True])
def test_masks_beside_the_images(tmp_path, lazy):
    images = np.random.default_rng(0).integers(0, 256, (5, 6, 4, 3), dtype=np.uint8)
    masks = (np.arange(24).reshape(6, 4) >= 4 * np.arange(1, 6)[:, None, None]) * 7
    path = write(tmp_path / "a.npz", images, np.arange(5) % 2, train_masks=masks)
    config = NpzConfig(path=path, masks=True, lazy=lazy)
    assert open_cohort(config)[[4, 1]].mask.equal(torch.from_numpy(masks[[4, 1], None] > 0))
    assert open_cohort(config.model_copy(update={"size": (3, 2)}))[:].mask.shape == (5, 1, 3, 2)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (np.ones((3, 6, 4)), "5 images, but 3 masks"),
        (np.ones((5, 6, 5)), r"train_masks: expected masks .* got \(5, 6, 5\)"),
        (np.arange(5)[:, None, None] * np.ones((1, 6, 4)), "train_masks, row 0: expected a mask, .* nothing but 0"),
        (np.arange(120).reshape(5, 6, 4), "row 0: expected a mask, 0 outside and one other value inside"),
        (None, "no array 'train_masks'"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_no_mask_is_refused(tmp_path, masks, message, lazy):
    more = {} if masks is None else {"train_masks": masks}
    path = write(tmp_path / "a.npz", np.zeros((5, 6, 4), np.uint8), np.arange(5) % 2, **more)
    config = NpzConfig(path=path, masks=True, lazy=lazy)
    with pytest.raises(InputError, match=message):
        _ = open_npz(config)[:] if lazy else load_cohort(config)


def test_arrays_without_a_split(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.eye(4, dtype=np.uint8)[None] * np.uint8(255), labels=np.array([0]))
    cohort = load_cohort(NpzConfig(path=tmp_path / "a.npz", split=""))
    assert (cohort.ids, cohort.y.tolist()) == (("0",), [0])


@pytest.mark.parametrize("dtype", [np.float32, np.int16, np.int8, np.uint32, np.float16])
def test_numbers_without_a_range_are_said_with_what_they_span(tmp_path, dtype):
    path = write(tmp_path / "a.npz", np.arange(50).reshape(2, 5, 5).astype(dtype), np.arange(2))
    with pytest.raises(InputError, match=r"need a value_range .* they lie in \[0, 49\]"):
        load_cohort(NpzConfig(path=path))


@pytest.mark.parametrize(
    "images", [np.full((1, 3, 3), "a"), np.zeros((2, 3, 3), complex), np.zeros((0, 3, 3), np.uint8)]
)
def test_what_holds_no_numbers_is_refused(tmp_path, images):
    path = write(tmp_path / "a.npz", images, np.arange(len(images)))
    with pytest.raises(InputError, match="train_images: expected"):
        load_cohort(NpzConfig(path=path, value_range=(0, 1)))

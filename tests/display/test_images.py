"""Pictures say what the numbers say: symmetric colours, exact outlines, the right slices."""

import base64
import io

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image
from scipy.ndimage import label

from cfx.display import images


def test_difference_colours_are_symmetric() -> None:
    change = np.linspace(-1, 1, 21, dtype=np.float32).reshape(1, 3, 7)
    colours = images.difference(change, (), 1.0)
    negated = images.difference(-change, (), 1.0)
    assert_array_equal(colours[::-1, ::-1], negated)
    white, red, blue = colours[1, 3], colours[2, 6], colours[0, 0]
    assert white[:3].min() > 0.95
    assert red[0] > red[2]
    assert blue[2] > blue[0]


@pytest.mark.parametrize(("low", "high", "limit"), [(-0.1, 0.3, 0.3), (-0.42, 0.1, 0.42), (0, 0, 1.0)])
def test_one_symmetric_limit(low: float, high: float, limit: float) -> None:
    changes = [np.array([[[low, high]]], np.float32), np.zeros((1, 1, 5), np.float32)]
    assert images.symmetric_limit(changes) == pytest.approx(limit)


def test_outline_encloses_exactly_the_mask() -> None:
    """Walking each row, an odd number of vertical edges to the left means inside."""
    mask = np.random.default_rng(0).random((9, 7)) < 0.4
    path = images.outline(mask)
    inside = np.zeros_like(mask)
    for piece in path.split("M")[1:]:
        start, sep, end = piece.partition("V")
        if sep:
            column, top = (int(v) for v in start.split())
            inside[top : int(end), column:] ^= True
    assert_array_equal(inside, mask)
    assert images.outline(np.ones((4, 6), bool)) == "M0 0H6M0 4H6M0 0V4M6 0V4"


@pytest.mark.parametrize("gap", [1, 2, 3, 7])
def test_hatching_crosses_every_gapth_diagonal_and_no_piece_of_the_mask_goes_without(gap: int) -> None:
    mask = np.random.default_rng(1).random((9, 7)) < 0.4
    mask[:5, :4] = [[0] * 4, [0, 1, 1, 0], [0] * 4, [0, 1, 0, 0], [0] * 4]
    crossed = np.zeros_like(mask)
    for x, y, n in images.diagonals(mask, gap):
        for k in range(n):
            assert not crossed[y - 1 - k, x + k]
            crossed[y - 1 - k, x + k] = True
    i, j = np.indices(mask.shape)
    wanted = mask & ((i + j) % gap == 0)
    assert not (wanted & ~crossed).any()
    assert not (crossed & ~mask).any()
    pieces, n = label(mask)
    hit = [bool(wanted[pieces == k].any()) for k in range(1, n + 1)]
    assert [crossed[pieces == k].sum() for k in range(1, n + 1)] == [
        (wanted if known else mask)[pieces == k].sum() for k, known in enumerate(hit, 1)
    ]
    assert all(hit) == (gap == 1)
    assert images.hatch(np.ones((2, 3), bool), 1) == "M0 1l1 -1M0 2l2 -2M1 2l2 -2M2 2l1 -1"
    assert images.hatch(mask & False, gap) == ""


def test_slices_go_through_the_centre_of_the_edit() -> None:
    change = np.zeros((6, 8, 7), np.float32)
    change[4, 2, 5] = -0.5
    assert images.centre(change) == (4, 2, 5)
    assert images.centre(0 * change) == (3, 4, 3)
    picture = images.flat(change, (4, 2, 5))
    assert picture.shape == (8, 8 + 6 + 6 + 2 * images.GAP)
    assert (picture == -0.5).sum() == 3
    assert np.isnan(picture[:, 8 : 8 + images.GAP]).all()


def test_slices_have_the_top_up_and_the_right_of_the_subject_on_the_right() -> None:
    right, front, top = np.indices((6, 8, 7)).astype(np.float32)
    sagittal, coronal, axial = (images.plane(front, 0, 2), images.plane(right, 1, 2), images.plane(right, 2, 2))
    assert sagittal.shape == (7, 8)
    assert [part[0].tolist() for part in (sagittal, coronal, axial)] == [[*range(8)], [*range(6)], [*range(6)]]
    for axis, up in ((0, top), (1, top), (2, front)):
        assert images.plane(up, axis, 2)[:, 0].tolist() == sorted(set(up.ravel().tolist()), reverse=True)


def test_stacked_slices_are_the_slices() -> None:
    volume = np.random.default_rng(0).random((2, 6, 8, 7)).astype(np.float32)
    stacked = images.stacked(volume, [1, 4])
    assert stacked.shape == (2, 16, 6)
    for channel, found in zip(volume, stacked, strict=True):
        assert_array_equal(found, np.concatenate([images.plane(channel, 2, 1), images.plane(channel, 2, 4)]))


def test_data_uri_is_the_picture() -> None:
    image = np.linspace(-1, 1, 12, dtype=np.float32).reshape(1, 3, 4)
    back = opened(images.data_uri(images.picture(image, ()))) / 255
    np.testing.assert_allclose(back[..., 0] * 2 - 1, image[0], atol=1 / 255)
    assert (back[..., 3] == 1).all()


@pytest.mark.parametrize("colours", [1, 2, 256, 257, 3000])
@pytest.mark.parametrize("alpha", [False, True])
def test_a_picture_of_any_number_of_colours_is_exact(colours: int, alpha: bool) -> None:
    random = np.random.default_rng(colours)
    palette = random.integers(0, 256, (colours, 4)).astype(np.float32) / 255
    palette[:, 3] = palette[:, 3] if alpha else 1
    picture = palette[random.integers(0, colours, (60, 70))]
    assert_array_equal(opened(images.data_uri(picture)), (picture * 255).round().astype(np.uint8))


def test_few_colours_take_little_room() -> None:
    noise = np.random.default_rng(0).random((1, 64, 64)).astype(np.float32) * 2 - 1
    assert len(images.data_uri(images.picture(noise, ()))) < 64 * 64 * 2


def opened(uri: str) -> np.ndarray:
    """The RGBA pixels of a `data:` address."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGBA"))

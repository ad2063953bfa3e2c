"""Pixels as they are meant: the right way up, one image, and nothing converted in silence."""

import numpy as np
import pytest
from PIL import Image

from cfx.core.errors import InputError
from cfx.data.decode import decode

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [
        (1, GREY), (2, GREY[:, ::-1]), (3, GREY[::-1, ::-1]), (4, GREY[::-1]), (5, GREY.T), (6, np.rot90(GREY, -1)),
        (7, np.rot90(GREY, 2).T), (8, np.rot90(GREY)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_images_stand_the_right_way_up(tmp_path, orientation, turned, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    packed = {} if suffix == "png" else {"compression": "tiff_lzw"}
    Image.fromarray(GREY).save(tmp_path / f"a.{suffix}", exif=exif, **packed)
    assert np.array_equal(decode(tmp_path / f"a.{suffix}"), turned)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_bare_tiff_on_its_side_is_refused_not_scrambled(tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GREY).save(tmp_path / "a.tif", exif=exif)
    if orientation > 4:
        with pytest.raises(InputError, match=r"a.tif: expected upright pixels"):
            decode(tmp_path / "a.tif")
    else:
        assert np.array_equal(np.sort(decode(tmp_path / "a.tif"), None), GREY.ravel())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
def test_values_are_those_that_were_written(tmp_path, dtype):
    values = (GREY * 70.0).astype(dtype)
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = decode(tmp_path / "a.tif")
    assert found.dtype == dtype
    assert np.array_equal(found, values)


def test_sixteen_bits_of_either_byte_order(tmp_path):
    values = GREY.astype(np.uint16) * 257
    for mode, order in (("I;16", "<"), ("I;16B", ">")):
        Image.frombytes(mode, (4, 3), values.astype(f"{order}u2").tobytes()).save(tmp_path / "a.tif")
        found = decode(tmp_path / "a.tif")
        assert (found.dtype, found.tolist()) == (np.uint16, values.tolist())
    Image.fromarray(values).save(tmp_path / "a.png")
    assert decode(tmp_path / "a.png").tolist() == values.tolist()


def test_one_bit_is_black_and_white(tmp_path):
    Image.fromarray(GREY > 100).save(tmp_path / "a.png")
    assert np.array_equal(decode(tmp_path / "a.png"), np.where(GREY > 100, 255, 0))


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_several_images_in_a_file_are_refused(tmp_path, name):
    frames = [Image.fromarray(GREY + np.uint8(k)) for k in range(3)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match=f"{name}: expected one image, got 3 frames"):
        decode(tmp_path / name)


def test_a_colour_space_without_a_plain_meaning_is_refused(tmp_path):
    Image.merge("LAB", [Image.fromarray(GREY)] * 3).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a.tif: expected grey, RGB, CMYK or palette colours, got mode LAB"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "damage", [lambda raw: b"", lambda raw: raw[:40], lambda raw: raw[: len(raw) // 2], bytes.swapcase]
)
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "bmp"])
def test_damaged_files_are_named(tmp_path, damage, suffix):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)
    Image.fromarray(noise).save(file := tmp_path / f"a.{suffix}")
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(InputError, match=rf"a.{suffix} is not a readable PNG, JPEG, TIFF or BMP image"):
        decode(file)


def test_what_a_file_is_counts_not_its_name(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "a.jpg", format="PNG")
    assert np.array_equal(decode(tmp_path / "a.jpg"), GREY)
    Image.fromarray(GREY).save(tmp_path / "b.png", format="GIF")
    with pytest.raises(InputError, match=r"b.png is not a readable PNG"):
        decode(tmp_path / "b.png")

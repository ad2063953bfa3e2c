"""Folders of PNG images: known pixels in, known values out."""

import numpy as np
import pytest
import torch
from PIL import Image

from cfx.core.errors import InputError
from cfx.data.config import load_cohort
from cfx.data.png import PngConfig, open_png


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)


def rows(config):
    """All of them, read as the configuration says."""
    return open_png(config)[:] if config.lazy else load_cohort(config)


def table(path, text):
    path.write_text(text)
    return path


@pytest.fixture
def folder(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (3, 5, 4), dtype=np.uint8)
    for name, image in zip("abc", pixels, strict=True):
        write(tmp_path / "images" / f"{name}.png", image)
    return tmp_path / "images", pixels


def test_rows_follow_the_table_not_the_folder(folder, tmp_path):
    path, pixels = folder
    csv = table(tmp_path / "t.csv", "filename,label,age,site\nc.png,1,70.5,x\na,0,,y\nb.png,1,61,x\n")
    cohort = load_cohort(PngConfig(path=path, table=csv))
    assert cohort.ids == ("c.png", "a", "b.png")
    assert cohort.y.tolist() == [1, 0, 1]
    assert np.allclose(cohort.x[:, 0].numpy() * 127.5 + 127.5, pixels[[2, 0, 1]], atol=1e-4)
    assert list(cohort.covariates) == ["age", "site"]
    assert (cohort.covariates["site"].tolist(), cohort.categories) == ([0, 1, 0], {"site": ("x", "y")})
    assert torch.equal(cohort.covariates["age"].isnan(), torch.tensor([False, True, False]))
    assert cohort.covariates["age"][0] == 70.5


def test_class_names_and_their_order(folder, tmp_path):
    csv = table(tmp_path / "t.csv", "id,dx\na,sick\nb,healthy\nc,sick\n")
    config = PngConfig(path=folder[0], table=csv, filename="id", label="dx")
    alphabetical = load_cohort(config)
    assert (alphabetical.y.tolist(), alphabetical.classes) == ([1, 0, 1], ["healthy", "sick"])
    given = load_cohort(config.model_copy(update={"classes": ("sick", "healthy")}))
    assert (given.y.tolist(), given.classes) == ([0, 1, 0], ["sick", "healthy"])
    with pytest.raises(InputError, match="labels healthy are not among the classes"):
        load_cohort(config.model_copy(update={"classes": ("sick", "well")}))


def test_subfolders_are_classes(tmp_path):
    for name, value in (("dog/1", 0), ("cat/2", 51), ("cat/1", 255)):
        write(tmp_path / f"{name}.png", np.full((2, 2), value, np.uint8))
    cohort = load_cohort(PngConfig(path=tmp_path))
    assert cohort.ids == ("cat/1.png", "cat/2.png", "dog/1.png")
    assert (cohort.y.tolist(), cohort.classes) == ([0, 0, 1], ["cat", "dog"])
    assert cohort.x[:, 0, 0, 0].tolist() == pytest.approx([1, -0.6, -1])


def test_a_flat_folder_has_no_labels(folder):
    cohort = load_cohort(PngConfig(path=folder[0]))
    assert cohort.y is None
    assert cohort.ids == ("a.png", "b.png", "c.png")


def test_loose_images_beside_subfolders_are_refused(folder):
    write(folder[0] / "cat" / "x.png", folder[1][0])
    with pytest.raises(InputError, match=r"both class subfolders and loose images \(a.png\)"):
        load_cohort(PngConfig(path=folder[0]))


def test_sixteen_bits_keep_their_depth(tmp_path):
    write(tmp_path / "deep.png", np.array([[0, 1], [32768, 65535]], dtype=np.uint16))
    x = load_cohort(PngConfig(path=tmp_path)).x.double()
    assert (x * 32767.5 + 32767.5).flatten().tolist() == pytest.approx([0, 1, 32768, 65535], abs=0.01)
    narrow = PngConfig(path=tmp_path, value_range=(0, 4095))
    with pytest.raises(InputError, match=r"deep.png: expected values within value_range"):
        load_cohort(narrow)


def test_colour_grey_palette_and_transparency(tmp_path):
    colour = np.zeros((2, 2, 3), np.uint8)
    colour[0, 1] = (255, 0, 51)
    write(tmp_path / "1.png", colour)
    write(tmp_path / "2.png", np.dstack([colour, np.full((2, 2), 128, np.uint8)]))
    Image.fromarray(colour).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "3.png")
    x = load_cohort(PngConfig(path=tmp_path)).x
    assert x.shape == (3, 3, 2, 2)
    assert torch.allclose(x[:, :, 0, 1], torch.tensor([1.0, -1.0, -0.6]), atol=1e-6)
    grey = load_cohort(PngConfig(path=tmp_path, channels=1)).x
    luma = (0.299 * 255 + 0.114 * 51) / 127.5 - 1
    assert grey[:, 0, 0, 1].tolist() == pytest.approx([luma] * 3, abs=1e-6)
    write(tmp_path / "4.png", np.zeros((2, 2), np.uint8))
    with pytest.raises(InputError, match=r"\(3, 2, 2\) in .*1.png, \(1, 2, 2\) in .*4.png"):
        load_cohort(PngConfig(path=tmp_path))
    assert load_cohort(PngConfig(path=tmp_path, channels=3)).x.shape == (4, 3, 2, 2)


def test_two_sizes_are_refused_unless_a_size_is_given(folder):
    write(folder[0] / "d.png", np.zeros((10, 8), np.uint8))
    with pytest.raises(InputError, match=r"\(1, 5, 4\) in .*a.png, \(1, 10, 8\) in .*d.png; give `size`"):
        load_cohort(PngConfig(path=folder[0]))
    cohort = load_cohort(PngConfig(path=folder[0], size=(5, 4)))
    assert cohort.x.shape == (4, 1, 5, 4)
    assert np.allclose(cohort.x[:3, 0].numpy() * 127.5 + 127.5, folder[1], atol=1e-4)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("filename,group\na,0\n", r"label: no column 'label' in .*t.csv; it has filename, group"),
        ("name,label\na,0\n", r"filename: no column 'filename' in .*t.csv; it has name, label"),
        ("filename,label\na,0\nx,1\ny.png,1\n", r"no file in .* for x, y.png"),
        ("filename,label\na,0\na,1\n", "names these more than once: a"),
        ("filename,label\na,\nb,1\n", "column 'label' is empty in rows 1"),
        ("filename,label\na,0.5\nb,1\n", "expected class names or whole numbers from 0, got 0.5"),
        ("filename,label\na,nan\nb,1\n", r"t.csv: column 'label': no label in row 1 \('nan'\)"),
        ("filename,label\na,0,3\n", "row 1 has 3 cells, the header names 2"),
        ("filename,label,label\na,0,3\n", "columns named more than once: label"),
        ("filename,label\n", "expected a header and at least one row"),
    ],
)
def test_bad_tables_are_refused(folder, tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        load_cohort(PngConfig(path=folder[0], table=table(tmp_path / "t.csv", text)))


def test_missing_places_and_damaged_files(folder, tmp_path):
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="path: expected a folder"):
        load_cohort(PngConfig(path=tmp_path / "none"))
    with pytest.raises(InputError, match="table: expected a csv file"):
        load_cohort(PngConfig(path=folder[0], table=tmp_path / "none.csv"))
    with pytest.raises(InputError, match=r"expected images \(.png, .*found none"):
        load_cohort(PngConfig(path=empty))
    (folder[0] / "b.png").write_bytes((folder[0] / "b.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"b.png is not a readable PNG"):
        load_cohort(PngConfig(path=folder[0]))


@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "tif", "tiff", "bmp", "PNG", "JPG"])
def test_every_kind_of_image_is_read(tmp_path, suffix):
    for k in range(2):
        write(tmp_path / f"{'ab'[k]}" / f"1.{suffix}", np.full((8, 8), 255 * k, np.uint8))
    write(tmp_path / "a" / "2.png", np.full((8, 8), 51, np.uint8))
    cohort = load_cohort(PngConfig(path=tmp_path))
    assert cohort.ids == (f"a/1.{suffix}", "a/2.png", f"b/1.{suffix}")
    assert cohort.x[:, 0, 3, 3].tolist() == pytest.approx([-1, -0.6, 1], abs=0.02)


DEPTHS = {"8": (128, np.uint8), "16": (32896, np.uint16), "32": (8421504, np.int32), "float": (128, np.float32)}


def of_depth(kind):
    """An image of middle grey, of a depth or of a mode of colours."""
    value, dtype = DEPTHS.get(kind, DEPTHS["8"])
    image = Image.fromarray(np.full((4, 4), value, dtype))
    return image if kind in DEPTHS else image.convert(kind)


@pytest.mark.parametrize(("first", "second"), [("8", "16"), ("16", "8"), ("RGB", "16"), ("8", "float"), ("16", "32")])
@pytest.mark.parametrize("lazy", [False, True])
def test_two_depths_are_refused_by_both_files(tmp_path, first, second, lazy):
    of_depth(first).save(tmp_path / "a.tif")
    of_depth(second).save(tmp_path / "b.tif")
    config = PngConfig(path=tmp_path, lazy=lazy, channels=1)
    with pytest.raises(InputError, match=r"differ in depth: \w+ in .*a.tif, \w+ in .*b.tif.*`value_range`"):
        rows(config)
    said = open_png(config.model_copy(update={"value_range": (0.0, 2.0**24)}))[:].x
    assert said[0].mean() != said[1].mean() or {first, second} == {"8", "float"}


@pytest.mark.parametrize("kind", ["32", "float"])
def test_a_depth_without_a_full_range_is_said(tmp_path, kind):
    of_depth(kind).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a.tif: (int|float)32 need a value_range .*; they lie in \["):
        load_cohort(PngConfig(path=tmp_path))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "CMYK", "YCbCr"])
def test_every_mode_of_grey_is_the_same_grey(tmp_path, mode):
    of_depth(mode).save(tmp_path / ("a.png" if mode not in ("CMYK", "YCbCr") else "a.tif"))
    write(tmp_path / "b.png", np.full((4, 4), 128, np.uint8))
    x = load_cohort(PngConfig(path=tmp_path, channels=1)).x
    assert x[0].flatten().tolist() == pytest.approx(x[1].flatten().tolist(), abs=0.02)


def masked(folder, n=3):
    """Images, and masks that leave out one row of pixels more each."""
    rng = np.random.default_rng(0)
    for i in range(n):
        write(folder / "images" / f"{i}.png", rng.integers(0, 256, (6, 4), dtype=np.uint8))
        write(folder / "masks" / f"{i}.png", np.uint8(255) * (np.arange(24).reshape(6, 4) >= 4 * (i + 1)))
    return PngConfig(path=folder / "images", masks=folder / "masks")


@pytest.mark.parametrize("lazy", [False, True])
def test_masks_go_with_their_images(tmp_path, lazy):
    config = masked(tmp_path).model_copy(update={"lazy": lazy})
    mask = rows(config).mask
    assert mask.shape == (3, 1, 6, 4)
    assert mask.flatten(1).sum(1).tolist() == [20, 16, 12]
    half = rows(config.model_copy(update={"size": (3, 2)}))[[2, 0]].mask
    assert half[:, 0].tolist() == [[[False] * 2, [True] * 2, [True] * 2], [[True] * 2] * 3]


def test_masks_under_the_images_and_beside_a_table(tmp_path):
    config = masked(tmp_path)
    (tmp_path / "masks").rename(tmp_path / "images" / "masks")
    inside = config.model_copy(update={"masks": tmp_path / "images" / "masks"})
    assert load_cohort(inside).ids == ("0.png", "1.png", "2.png")
    csv = table(tmp_path / "t.csv", "filename,label\n2,1\n0.png,0\n")
    both = load_cohort(inside.model_copy(update={"table": csv}))
    assert both.mask.flatten(1).sum(1).tolist() == [12, 20]


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.zeros((6, 4), np.uint8), "1.png: expected a mask, .* got nothing but 0"),
        (np.arange(24, dtype=np.uint8).reshape(6, 4), "got the values 0, 1, 2, .* 24 in all"),
        (np.full((5, 4), 1, np.uint8), r"1.png: the mask has \(5, 4\) pixels, its image .*1.png has \(6, 4\)"),
        (None, "masks: no file in .* for 1"),
    ],
)
@pytest.mark.parametrize("lazy", [False, True])
def test_what_is_no_mask_is_refused_by_name(tmp_path, pixels, message, lazy):
    config = masked(tmp_path).model_copy(update={"lazy": lazy})
    (tmp_path / "masks" / "1.png").unlink()
    if pixels is not None:
        write(tmp_path / "masks" / "1.png", pixels)
    with pytest.raises(InputError, match=message):
        rows(config)


@pytest.mark.parametrize("home", ["~", "$DATA", "${DATA}"])
def test_paths_are_those_of_a_shell(tmp_path, monkeypatch, home):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DATA", str(tmp_path))
    masked(tmp_path)
    csv = table(tmp_path / "t.csv", "filename,label\n2,1\n0.png,0\n")
    config = PngConfig(path=f"{home}/images", masks=f"{home}/masks", table=f"{home}/{csv.name}")
    assert load_cohort(config).ids == ("2", "0.png")

"""Folders of PNG images: known pixels in, known values out."""

import numpy as np
import pytest
import torch
from PIL import Image

from cfx.core.errors import InputError
from cfx.data.config import load_cohort
from cfx.data.png import PngConfig


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels)).save(path)


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
    assert list(cohort.covariates) == ["age"]
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
        ("filename,label\na,nan\nb,1\n", "expected class names or whole numbers from 0, got nan"),
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
    with pytest.raises(InputError, match="expected PNG images, found none"):
        load_cohort(PngConfig(path=empty))
    (folder[0] / "b.png").write_bytes((folder[0] / "b.png").read_bytes()[:60])
    with pytest.raises(InputError, match=r"b.png is not a readable PNG"):
        load_cohort(PngConfig(path=folder[0]))

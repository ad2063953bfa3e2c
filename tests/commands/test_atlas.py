"""`cfx atlas export`: every image of an atlas as files, in the original file's grid and intensities where asked for."""

import warnings
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cfx.atlas import Atlas, write_atlas
from cfx.cli import app
from cfx.commands.atlas import export, folder_names
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, CfxWarning, InputError
from cfx.counterfactual.metrics import Measurements
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.data.config import load_cohort
from cfx.data.nifti import NiftiConfig
from cfx.data.png import PngConfig

OBLIQUE = np.array([[-1.9, 0.3, 0, 20], [-0.25, -1.4, 0.2, 15], [0, -0.2, 2.9, -10], [0, 0, 0, 1]])
FILES = {
    "las": ("int16", np.diag([-1.0, 1, 1, 1]), 0.1),
    "lps": ("float32", np.diag([-2.0, -2, 2, 1]), None),
    "oblique": ("uint8", OBLIQUE, None),
    "thick": ("int16", np.diag([0.5, 0.5, 5, 1]), None),
}
SHAPE = (12, 10, 8)


def counterfactuals(cohort: Cohort) -> Counterfactuals:
    """A blob of every second row is moved; the others are unchanged."""
    n, space = len(cohort), cohort.space
    where = torch.zeros(n, 1, *space, dtype=torch.bool)
    where[(slice(None, None, 2), 0, *(slice(s // 3, 2 * s // 3) for s in space))] = True
    x_cf = torch.where(where, -0.5 * cohort.x + 0.1, cohort.x)
    blank = Counterfactuals.blank(
        n, {"c": cohort.shape[0], "space": space, "k": 2}, depth="typical", seed=0, x=cohort.x
    )
    verdict = torch.full((n,), int(Verdict.FLIPPED))
    return blank.replace(
        x_cf=x_cf, edited=(x_cf != cohort.x).any(1, keepdim=True), row=torch.arange(n), verdict=verdict
    )


@pytest.fixture
def originals(tmp_path):
    """NIfTI files in several orientations and types."""
    folder, rng = tmp_path / "in", np.random.default_rng(0)
    folder.mkdir()
    for name, (dtype, affine, slope) in FILES.items():
        image = nibabel.Nifti1Image((rng.random(SHAPE) * 200 + 1).astype(dtype), affine)
        image.header.set_slope_inter(slope, None if slope is None else -100)
        nibabel.save(image, folder / f"{name}.nii.gz")
    return folder


def made(tmp_path, originals, **settings):
    """An atlas of a folder of files, by name."""
    path = tmp_path / "atlas.zarr"
    cohort = load_cohort(NiftiConfig(path=originals, shape=settings.pop("shape", None), **settings))
    write_atlas(path, counterfactuals(cohort), cohort)
    return path


def alone(originals, name):
    """A folder with that file only, so that volumes need not be of one shape."""
    for file in originals.iterdir():
        if file.name != f"{name}.nii.gz":
            file.unlink()
    return originals


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("changed", [True, False])
def test_native_files_are_the_originals_but_for_the_change(tmp_path, originals, name, changed):
    file = alone(originals, name) / f"{name}.nii.gz"
    cohort = load_cohort(NiftiConfig(path=originals))
    result = counterfactuals(cohort)
    if not changed:
        result = result.replace(x_cf=result.x, edited=torch.zeros_like(result.edited))
    write_atlas(tmp_path / "a", result, cohort)
    assert export(tmp_path / "a", nifti=tmp_path / "out", native=True) == [name]
    old = nibabel.load(file)
    files = {p.name.removesuffix(".nii.gz"): nibabel.load(p) for p in (tmp_path / "out" / name).iterdir()}
    assert set(files) == {"x", "x_cf", "difference", "edited"}
    for image in files.values():
        assert image.shape == old.shape
        assert np.array_equal(image.affine, old.affine)
    x, x_cf, difference, edited = (files[k].get_fdata() for k in ("x", "x_cf", "difference", "edited"))
    assert np.array_equal(x, old.get_fdata())
    assert np.array_equal(x_cf[edited == 0], x[edited == 0])
    assert np.allclose(difference, x_cf - x, atol=1e-4)
    assert edited.sum() == result.edited.sum()
    assert changed == (x_cf != x).any()


def test_resampled_rows_keep_the_files_values_outside_the_edit(tmp_path, originals):
    path = made(tmp_path, originals, shape=(9, 9, 9))
    assert export(path, nifti=tmp_path / "out", native=True) == sorted(FILES)
    for i, name in enumerate(sorted(FILES)):
        folder, old = tmp_path / "out" / name, nibabel.load(originals / f"{name}.nii.gz").get_fdata()
        x, x_cf, edited = (nibabel.load(folder / f"{k}.nii.gz").get_fdata() for k in ("x", "x_cf", "edited"))
        assert np.array_equal(x, old)
        assert np.array_equal(x_cf[edited == 0], old[edited == 0])
        assert (edited > 0).any() == (i % 2 == 0)


def test_on_the_cohorts_grid_images_are_those_of_the_atlas(tmp_path, originals):
    path = made(tmp_path, originals, shape=(9, 9, 9))
    export(path, nifti=tmp_path / "out")
    result, cohort = Atlas(path).read(), Atlas(path).read_cohort()
    for i, name in enumerate(sorted(FILES)):
        for array, wanted in (("x", result.x), ("x_cf", result.x_cf), ("edited", result.edited)):
            image = nibabel.load(tmp_path / "out" / name / f"{array}.nii.gz")
            assert np.array_equal(image.get_fdata(), wanted[i, 0].numpy())
            assert np.allclose(image.affine, cohort.affine[i].numpy(), atol=1e-5)


def test_truth_and_masks_are_written_where_they_are_known(tmp_path, originals):
    alone(originals, "lps")
    cohort = load_cohort(NiftiConfig(path=originals))
    mask = cohort.x > 0
    cohort = cohort.replace(x_true=-cohort.x, mask=mask, lesion=~mask, readings=torch.cat([mask, ~mask], 1))
    write_atlas(tmp_path / "a", counterfactuals(cohort), cohort)
    for native in (False, True):
        out = tmp_path / f"out{native}"
        export(tmp_path / "a", nifti=out, native=native, png=tmp_path / f"png{native}")
        names = {p.name.removesuffix(".nii.gz") for p in (out / "lps").iterdir()}
        assert names == {"x", "x_cf", "difference", "edited", "x_true", "mask", "lesion", "readings"}
        assert names == {p.stem for p in (tmp_path / f"png{native}" / "lps").iterdir()}
        assert nibabel.load(out / "lps" / "readings.nii.gz").shape == (*SHAPE, 2)
    low, high = cohort.intensity[0].tolist()
    old = nibabel.load(originals / "lps.nii.gz").get_fdata()
    truth = nibabel.load(tmp_path / "outTrue" / "lps" / "x_true.nii.gz").get_fdata()
    assert truth == pytest.approx(low + high - np.clip(old, low, high), abs=1e-3)


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_pictures_are_their_pixels(tmp_path, channels):
    """Eight bits in, eight bits out; read again, they are the same cohort."""
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for name in "ab":
        pixels = rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(tmp_path / "in" / f"{name}.png")
    cohort = load_cohort(PngConfig(path=tmp_path / "in"))
    write_atlas(tmp_path / "a", counterfactuals(cohort), cohort)
    export(tmp_path / "a", png=tmp_path / "out")
    for name in "ab":
        old, new = (np.asarray(Image.open(tmp_path / p)) for p in (f"in/{name}.png", f"out/{name}/x.png"))
        assert np.array_equal(old, new)
    assert np.array_equal(
        np.asarray(Image.open(tmp_path / "out/b/x_cf.png")), np.asarray(Image.open(tmp_path / "in/b.png"))
    )
    with pytest.raises(InputError, match=r"native: the rows of .* have no original files \(they were not read"):
        export(tmp_path / "a", nifti=tmp_path / "n", native=True)
    with pytest.warns(CfxWarning, match="is not known, and their NIfTI files say so"):
        export(tmp_path / "a", nifti=tmp_path / "n")


@pytest.mark.parametrize("known", [True, False])
def test_slices_of_a_volume_stand_upright(tmp_path, known):
    """One bright voxel to the right, front and top; of planes, rows and columns that nothing tells: as they are."""
    x = torch.full((1, 1, 9, 9, 9), -1.0)
    x[0, 0, 7, 6, 8] = 1
    cohort = Cohort(x, affine=torch.eye(4)[None] if known else None)
    changed = torch.full_like(x, -1)
    write_atlas(tmp_path / "a", counterfactuals(cohort).replace(x_cf=changed, edited=changed != x), cohort)
    export(tmp_path / "a", png=tmp_path / "out")
    pixels = np.asarray(Image.open(tmp_path / "out" / "0" / "x.png"))
    assert pixels.shape == (9, 9 * 3 + 2 * 2)
    found = {tuple(p) for p in np.argwhere(pixels == 255).tolist()}
    if (
        known
    ):  # sagittal (row from the top, column to the front), coronal (column to the right), axial (row to the back)
        assert found == {(0, 6), (0, 11 + 7), (2, 22 + 7)}
    else:  # the last one shows the plane: row 6, column 8
        assert (6, 22 + 8) in found


def test_names_of_folders():
    assert folder_names(["s/1.nii.gz", "ä b", "../../etc", "C:\\x?.png"], range(4)) == ["s_1", "ä_b", "etc", "C_x_"]
    assert folder_names(["a", "A", "b"], [3, 5, 7]) == ["a-3", "A-5", "b"]
    for ids in (["", "..", "/"], ["a", "a", "a-0"], ["x" * 300, "x" * 299 + "y"], ["a.nii", "a.nii.gz"]):
        found = folder_names(ids, range(len(ids)))
        assert len({name.casefold() for name in found}) == len(ids)
        assert all(name and "/" not in name and name.strip(".") and len(name) < 120 for name in found)


def test_what_cannot_be_written_is_refused_before_anything_is(tmp_path, originals):
    path = made(tmp_path, originals, shape=(6, 6, 6))
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for kwargs, message in (
        ({}, "expected a folder for at least one"),
        ({"native": True, "png": tmp_path / "p"}, "expected a folder for NIfTI files too"),
        ({"nifti": tmp_path / "full"}, "nifti: expected a new or empty folder"),
        ({"png": tmp_path / "full" / "x"}, "png: expected a new or empty folder"),
        ({"nifti": tmp_path / "full" / "x" / "y"}, "cannot make the folder"),
    ):
        with pytest.raises(InputError, match=message):
            export(path, **kwargs)
    (originals / "las.nii.gz").unlink()
    with pytest.raises(InputError, match=r"native: original files are not there: .*las.nii.gz; put them back"):
        export(path, nifti=tmp_path / "new", native=True)
    assert not (tmp_path / "new").exists()


def test_another_atlas_is_refused(tmp_path):
    write_atlas(tmp_path / "m", Measurements(torch.arange(2), {"l1": torch.ones(2)}))
    with pytest.raises(
        AtlasError, match="expected an atlas of Counterfactuals or Segmentations, got one of Measurements"
    ):
        export(tmp_path / "m", png=tmp_path / "out")


def test_rows_that_are_not_complete_are_left_out_aloud(tmp_path, originals):
    cohort = load_cohort(NiftiConfig(path=originals, shape=(6, 6, 6)))
    result = counterfactuals(cohort)
    atlas = Atlas.create(tmp_path / "a", result[:0], rows=range(4), cohort=cohort[:0], ids=cohort.ids)
    with pytest.raises(InputError, match="expected complete rows, got none"):
        export(tmp_path / "a", nifti=tmp_path / "out")
    atlas.write(result[[2]], cohort[[2]])
    with pytest.warns(CfxWarning, match="3 of 4 rows are not complete yet"):
        assert export(tmp_path / "a", nifti=tmp_path / "out") == [cohort.ids[2]]


def test_the_command_line_says_what_it_wrote_and_what_is_wrong(tmp_path, originals):
    path, out = made(tmp_path, originals, shape=(6, 6, 6)), tmp_path / "out"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        done = CliRunner().invoke(app, ["atlas", "export", str(path), "--nifti", str(out), "--native"])
    assert (done.exit_code, done.output) == (0, f"wrote x, x_cf, difference, edited of 4 rows into {out}\n")
    assert len(list(Path(out).glob("*/x_cf.nii.gz"))) == 4
    again = CliRunner().invoke(app, ["atlas", "export", str(path), "--nifti", str(out)])
    assert again.exit_code == 2
    assert again.output.startswith("error: nifti: expected a new or empty folder")
    assert len(again.output.splitlines()) == 1
    none = CliRunner().invoke(app, ["atlas", "export", str(tmp_path / "none"), "--png", str(tmp_path / "p")])
    assert none.exit_code == 2
    assert none.output.startswith("error: ")


@pytest.mark.parametrize("option", ["--png=~/out", "--png=$WHERE/out", "--nifti=~/out"])
def test_home_and_variables_in_paths(option, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path))
    cohort = Cohort(torch.rand(2, 1, 8, 8) * 2 - 1, ids=("a", "b"))
    write_atlas(tmp_path / "a.zarr", counterfactuals(cohort), cohort)
    done = CliRunner().invoke(app, ["atlas", "export", "~/a.zarr", option])
    assert (done.exit_code, sorted(f.name for f in (tmp_path / "out").iterdir())) == (0, ["a", "b"])

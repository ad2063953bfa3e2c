"""Drawn masks as files, on the grid of the network and on that of the original file."""

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from cfx.atlas import write_atlas
from cfx.cli import app
from cfx.data.config import load_cohort
from cfx.data.nifti import NiftiConfig
from cfx.segmentation import Segmentations, sample_masks
from cfx.segmentation.summary import entropy, medoid, probability
from tests.segmentation.toys import Threshold

AFFINE = np.array([[-2.0, 0, 0, 20], [0, -2, 0, 15], [0, 0, 3, -10], [0, 0, 0, 1]])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Segmentations]:
    """An atlas of a volume of 12 x 10 x 8 voxels, whose masks were drawn on 8 x 8 x 8 of twice the size."""
    folder = tmp_path_factory.mktemp("masks")
    (folder / "in").mkdir()
    data = np.random.default_rng(0).random((12, 10, 8)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), folder / "in" / "one.nii")
    cohort = load_cohort(NiftiConfig(path=folder / "in", spacing=4.0, shape=(8, 8, 8)))
    found = sample_masks(cohort, Threshold(spread=0.4, classes=3, empty=0.0), 5)
    write_atlas(folder / "a.zarr", found, cohort)
    return folder, found


def exported(folder: Path, out: Path, *options: str) -> dict[str, nibabel.Nifti1Image]:
    done = CliRunner().invoke(app, ["atlas", "export", str(folder / "a.zarr"), "--nifti", str(out), *options])
    assert done.exit_code == 0, done.output
    assert done.output == f"wrote x, samples, medoid, probability, entropy of 1 rows into {out}\n"
    return {path.name.removesuffix(".nii.gz"): nibabel.load(path) for path in (out / "one").iterdir()}


def test_on_the_networks_grid_files_are_the_masks_and_their_maps(drawn, tmp_path):
    folder, found = drawn
    files = exported(folder, tmp_path / "out")
    assert set(files) == {"x", "samples", "medoid", "probability", "entropy"}
    masks = found.masks[0]
    assert np.array_equal(files["samples"].get_fdata(), masks.movedim(0, -1).numpy())
    assert files["samples"].get_data_dtype() == files["medoid"].get_data_dtype() == np.uint8
    assert np.array_equal(files["medoid"].get_fdata(), masks[medoid(found.masks, 3)[0]].numpy())
    assert np.allclose(files["probability"].get_fdata(), probability(found.masks, 3)[0].movedim(0, -1).numpy())
    assert np.allclose(files["entropy"].get_fdata(), entropy(found.masks, 3)[0].numpy(), atol=1e-6)
    assert len({image.affine.tobytes() for image in files.values()}) == 1
    assert np.allclose(np.abs(files["x"].affine[:3, :3]).sum(0), 4)


def test_in_the_original_file_labels_lie_on_its_grid(drawn, tmp_path):
    folder, found = drawn
    files = exported(folder, tmp_path / "out", "--native")
    original = nibabel.load(folder / "in" / "one.nii")
    for name, image in files.items():
        assert image.shape[:3] == (12, 10, 8)
        assert np.array_equal(image.affine, AFFINE), name
    assert np.array_equal(files["x"].get_fdata(), original.get_fdata())
    assert files["samples"].shape == (12, 10, 8, 5)
    assert set(np.unique(files["samples"].get_fdata())) <= set(found.masks.unique().tolist())
    assert files["samples"].get_data_dtype() == np.uint8
    at = int(medoid(found.masks, 3)[0])
    assert np.array_equal(files["medoid"].get_fdata(), files["samples"].get_fdata()[..., at])


def test_pictures_show_the_maps(drawn, tmp_path):
    folder, _ = drawn
    done = CliRunner().invoke(app, ["atlas", "export", str(folder / "a.zarr"), "--png", str(tmp_path / "out")])
    assert done.exit_code == 0, done.output
    found = {path.stem: np.asarray(Image.open(path)) for path in (tmp_path / "out" / "one").iterdir()}
    assert set(found) == {"x", "medoid", "probability", "entropy"}
    assert {image.shape for image in found.values()} == {(8, 28)}
    assert int(found["probability"].max()) > 0


def test_axes_of_the_atlas_open_in_xarray(drawn):
    import xarray

    found = xarray.open_zarr(drawn[0] / "a.zarr", consolidated=False)
    assert found.masks.dims == ("sample", "draw", "right", "front", "top")
    assert torch.equal(torch.from_numpy(found.masks.values), drawn[1].masks)
    assert list(found.attrs["labels"]) == ["0", "1", "2"]

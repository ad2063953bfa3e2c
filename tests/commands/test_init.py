"""`cfx init`: what it finds in a folder, and that every file it writes is a configuration that reads those images."""

import nibabel as nib
import numpy as np
import pytest
import torch
import zarr
from PIL import Image
from typer.testing import CliRunner

from cfx.cli import app
from cfx.commands.explain import ExplainConfig
from cfx.commands.init import Found, init, look
from cfx.core.errors import InputError
from cfx.data import open_cohort
from cfx.data.nifti import NiftiConfig
from cfx.runtime.config import read_as
from cfx.training.config import read_config


def volume(path, shape=(12, 10, 8), affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    data = np.random.default_rng(0).random(shape, dtype=np.float32)
    nib.Nifti1Image(data, np.diag([2.0, 2, 3, 1]) if affine is None else affine).to_filename(path)


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)


def scans(folder):
    for i in range(4):
        volume(folder / f"s{i}.nii.gz")
        volume(folder / "masks" / f"s{i}.nii.gz")
    rows = [f"p{i},s{i},{60 + i},{'CN' if i % 2 else 'AD'}" for i in range(4)]
    (folder / "who.csv").write_text("\n".join(["participant,scan,age,dx", *rows]) + "\n")
    return folder


def classes(folder):
    for name in ("normal/a", "normal/b", "sick/a", "sick/c"):
        picture(folder / f"{name}.png")
    return folder


def medmnist(folder):
    folder.mkdir()
    r = np.random.default_rng(0)
    arrays = {}
    for split in ("train", "val", "test"):
        arrays[f"{split}_images"] = r.integers(0, 255, (6, 28, 28)).astype(np.uint8)
        arrays[f"{split}_labels"] = (np.arange(6) % 3)[:, None]
    np.savez(folder / "mini.npz", **arrays)
    return folder / "mini.npz"


def store(folder):
    group = zarr.open_group(folder / "s.zarr", mode="w")
    group.create_array("pictures", data=np.zeros((4, 1, 16, 16), np.uint8))
    group.create_array("kind", data=np.array([0, 1, 0, 1]))
    return folder / "s.zarr"


@pytest.mark.parametrize(("make", "n", "k"), [(scans, 4, 2), (classes, 4, 2), (medmnist, 6, 3), (store, 4, 2)])
def test_what_is_written_reads_the_images(tmp_path, make, n, k):
    images = make(tmp_path / "images")
    said = init(images, tmp_path / "out", "mine")
    assert "cfx explain" in said
    explain = read_as(ExplainConfig, tmp_path / "out/mine-explain.yaml")
    cohort = open_cohort(explain.data)
    assert len(cohort) == n
    assert cohort.y.unique().tolist() == list(range(k))
    for name in ("generator", "classifier"):
        config = read_config(str(tmp_path / f"out/mine-{name}.yaml"))
        assert len(open_cohort(config.data)) == n
    assert read_config(str(tmp_path / "out/mine-generator.yaml")).objective.classes == k
    assert explain.generator == "runs/mine-generator/checkpoint"


def test_hidden_folders_are_no_class(tmp_path):
    for name in (".ipynb_checkpoints", "__MACOSX/normal", "@eaDir/normal", "thumbnails", "normal/thumbs"):
        picture(tmp_path / "x" / name / "a.png")
    found = look(classes(tmp_path / "x"))
    assert (found.classes, found.words.split(" in ")[0]) == (["normal", "sick"], "4 pictures")


def test_the_masks_and_the_table_are_found(tmp_path):
    found = look(scans(tmp_path / "scans"))
    assert found.data["masks"][0] == str(tmp_path / "scans/masks")
    assert [found.data[key][0] for key in ("filename", "label", "classes")] == ["scan", "dx", ["AD", "CN"]]
    assert found.data["label"][1] == "AD 2, CN 2"
    assert "4 NIfTI volumes" in found.words


def test_the_grid_follows_the_body_not_the_file(tmp_path):
    """A volume stored (top, right, front) has its long side where it is in the body."""
    affine = np.array([[0, 1.0, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
    volume(tmp_path / "a.nii", (64, 16, 32), affine)
    assert look(tmp_path).data["shape"][0] == [16, 32, 64]


def test_reference_and_training_take_their_own_splits(tmp_path):
    init(medmnist(tmp_path / "m"), tmp_path, "m")
    explain = read_as(ExplainConfig, tmp_path / "m-explain.yaml")
    assert (explain.data.split, explain.reference.split) == ("test", "val")
    assert read_config(str(tmp_path / "m-generator.yaml")).data.split == "train"


def test_nothing_is_overwritten_and_nothing_is_made_of_nothing(tmp_path):
    images = classes(tmp_path / "x")
    init(images, tmp_path)
    with pytest.raises(InputError, match=r"x-generator\.yaml: expected no such file yet"):
        init(images, tmp_path)
    with pytest.raises(InputError, match="expected a folder of images"):
        init(tmp_path / "nowhere", tmp_path)
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes/a.txt").write_text("")
    with pytest.raises(InputError, match=r"found no images in .*notes, but .*\.txt"):
        init(tmp_path / "notes", tmp_path)


def test_what_is_not_known_is_a_comment(tmp_path):
    for name in "abc":
        volume(tmp_path / "v" / f"{name}.nii")
    init(tmp_path / "v", tmp_path)
    text = (tmp_path / "v-explain.yaml").read_text()
    assert "# table: ...  # no csv found" in text
    assert open_cohort(read_as(ExplainConfig, tmp_path / "v-explain.yaml").data).y is None
    assert torch.isfinite(open_cohort(read_as(ExplainConfig, tmp_path / "v-explain.yaml").data)[[0]].x).all()


@pytest.mark.parametrize(
    ("shape", "mm", "grid"),
    [
        ((16, 16, 16), (1, 1, 1), [16, 16, 16]),
        ((20, 16, 12), (2, 2, 2), [16, 16, 16]),
        ((12, 10, 8), (2, 2, 3), [8, 8, 8]),
        ((128, 64, 64), (1, 1, 1), [64, 32, 32]),
        ((48, 48, 6), (1, 1, 8), [48, 48, 48]),
        ((4, 4, 4), (1, 1, 1), [8, 8, 8]),
    ],
)
def test_no_grid_is_finer_than_the_voxels(tmp_path, shape, mm, grid):
    """But where a network needs 8 of them."""
    volume(tmp_path / "a.nii", shape, np.diag([*map(float, mm), 1]))
    assert look(tmp_path).data["shape"][0] == grid
    if min(shape) > 4:
        rows = open_cohort(NiftiConfig(kind="nifti", path=tmp_path, shape=tuple(grid)))
        assert torch.isfinite(rows[[0]].x).all()
        assert max(n * s for n, s in zip(shape, mm, strict=True)) / max(grid) >= min(mm)


@pytest.mark.parametrize(
    ("images", "pixels", "generator", "classifier"),
    [(1000, 64**2, 16, 32), (1000, 64**3, 4, 8), (1000, 16**3, 16, 32), (12, 64**2, 8, 8), (1, 64**3, 1, 1)],
)
def test_a_step_has_as_many_images_as_there_are_and_memory_allows(images, pixels, generator, classifier):
    found = Found("", {}, images=images, pixels=pixels)
    assert (found.batch(16), found.batch(32)) == (generator, classifier)


def test_home_and_variables_in_paths(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WHERE", str(tmp_path / "there"))
    classes(tmp_path / "x")
    done = CliRunner().invoke(app, ["init", "~/x", "--out=$WHERE/y"])
    assert (done.exit_code, sorted(f.name for f in (tmp_path / "there/y").iterdir())[0]) == (0, "x-classifier.yaml")
    gone = CliRunner().invoke(app, ["init", "~/x", "--out", "$NOWHERE/y"])
    assert gone.exit_code == 2
    assert "error: out: expected environment variables that are set, got $NOWHERE/y" in gone.stderr


def test_an_empty_folder_is_said_to_be_empty(tmp_path):
    with pytest.raises(InputError, match=r"found no images in .*, it is empty; expected NIfTI volumes, pictures"):
        init(tmp_path, tmp_path)

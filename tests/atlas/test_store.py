"""The atlas returns what was written bit for bit, resumes, and refuses what is damaged."""

import errno
import os
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import xarray
import zarr
from zarr.storage import LocalStore

from cfx.atlas import Atlas, check_path, read_atlas, write_atlas
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError, InputError
from cfx.counterfactual.result import Counterfactuals
from cfx.data.config import load_cohort
from cfx.data.nifti import NiftiConfig


def make_result(n: int = 10, space: tuple[int, ...] = (6, 5), *, seed: int = 0, oracle: bool = True) -> Counterfactuals:
    """A result of `n` rows of random numbers that obeys `x_cf == x` outside the mask."""
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(n, 2, *space, generator=g) * 2 - 1
    mask = torch.rand(n, 1, *space, generator=g) < 0.3
    x_cf = torch.where(mask, torch.rand(x.shape, generator=g) * 2 - 1, x)

    def probs(k: int) -> torch.Tensor:
        return torch.rand(n, k, generator=g).softmax(1)

    def count() -> torch.Tensor:
        return torch.randint(0, 99, (n,), generator=g)

    return Counterfactuals(
        x=x,
        x_cf=x_cf,
        target=torch.arange(n) % 2,
        probs_before=probs(2),
        probs_after=probs(2),
        edited=mask,
        margin=torch.rand(n, generator=g),
        margin_after=torch.full((n,), float("nan")),
        strength=torch.zeros(n),
        verdict=torch.arange(n) % 5,
        row=torch.arange(n),
        nfe_unet_forward=count(),
        nfe_unet_backward=torch.zeros(n, dtype=torch.int64),
        nfe_classifier=count(),
        nfe_classifier_backward=count(),
        depth="typical",
        seed=7,
        seconds=torch.full((n,), 12.5 / n),
        oracle_probs_before=probs(3) if oracle else None,
        oracle_probs_after=probs(3) if oracle else None,
    )


def make_cohort(result: Counterfactuals) -> Cohort:
    """The cohort of a result, with everything an atlas stores."""
    n, dims = len(result), result.x.ndim - 2
    return Cohort(
        result.x,
        y=1 - result.target,
        ids=tuple(f"subject-{i:03d}é" for i in range(n)),
        affine=torch.eye(4).expand(n, 4, 4) * 2,
        spacing=torch.full((n, dims), 1.5),
        mask=torch.ones_like(result.edited),
        x_true=result.x_cf.flip(0),
        lesion=~result.edited,
        classes=["healthy", "ill"],
    )


@pytest.fixture
def result() -> Counterfactuals:
    """Ten 2D rows."""
    return make_result()


def assert_same(a: Cohort | Counterfactuals, b: Cohort | Counterfactuals) -> None:
    """Every field equal bit for bit (NaN equals NaN)."""
    for f in fields(a):
        left, right = getattr(a, f.name), getattr(b, f.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype
            assert left.numpy().tobytes() == right.numpy().tobytes(), f.name
        else:
            assert left == right, f.name


def assert_known(result: Counterfactuals, cohort: Cohort, found: Counterfactuals) -> None:
    """These results, with what is known of their inputs."""
    assert_same(result, found.replace(cohort=None))
    assert_same(cohort, found.cohort)


def empty(path: Path, result: Counterfactuals, shard: int = 4) -> Atlas:
    """An atlas for all rows of a result, with none written."""
    return Atlas.create(path, result[:1], rows=result.row.tolist(), shard=shard)


@pytest.mark.parametrize("space", [(6, 5), (4, 5, 3)])
@pytest.mark.parametrize("oracle", [True, False])
def test_round_trip_is_bit_for_bit(tmp_path: Path, space: tuple[int, ...], oracle: bool) -> None:
    result = make_result(7, space, oracle=oracle)
    cohort = make_cohort(result)
    atlas = write_atlas(tmp_path / "a.zarr", result, cohort, attributes={"config": {"lr": 1e-4}})
    assert_same(result, Atlas(tmp_path / "a.zarr").read())
    assert_same(cohort, Atlas(tmp_path / "a.zarr").read_cohort())
    assert_known(result, cohort, read_atlas(tmp_path / "a.zarr"))
    expected = {"cfx_schema": 5, "seed": 7, "depth": "typical", "classes": ["healthy", "ill"], "config": {"lr": 1e-4}}
    assert {key: atlas.attributes[key] for key in expected} == expected


def test_home_is_put_into_paths(tmp_path: Path, result: Counterfactuals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_atlas("~/a.zarr", result)
    assert (tmp_path / "a.zarr").is_dir()
    assert len(read_atlas("~/a.zarr").x) == len(result.x)
    with pytest.raises(AtlasError, match="exists"):
        check_path("~/a.zarr")


def test_one_row_of_zeros(tmp_path: Path, result: Counterfactuals) -> None:
    """Values that equal the fill value are on disk like any other."""
    assert_same(result[:1], write_atlas(tmp_path / "a", result[:1]).read())


def test_rows_in_any_order_come_back_ascending(tmp_path: Path, result: Counterfactuals) -> None:
    shuffled = replace(result, row=torch.tensor([30, 2, 17, 8, 5, 99, 41, 3, 60, 7]))
    atlas = write_atlas(tmp_path / "a", shuffled)
    order = shuffled.row.argsort()
    assert_same(shuffled[order], atlas.read())
    assert_same(shuffled[[3, 2]], atlas.read([17, 8]))


def test_resume_goes_on_with_what_is_missing(tmp_path: Path, result: Counterfactuals) -> None:
    atlas = empty(tmp_path / "a", result)
    assert atlas.missing() == list(range(10))
    atlas.write(result[[1, 8, 2]])
    again = Atlas.create(tmp_path / "a", result, rows=range(10), exists="resume")
    assert again.missing() == [0, 3, 4, 5, 6, 7, 9]
    assert again.read().row.tolist() == [1, 2, 8]
    with pytest.raises(AtlasError, match=r"missing or unknown: \[3, 44\]"):
        again.read([1, 3, 44])
    again.write(result[again.missing()])
    assert_same(result, read_atlas(tmp_path / "a"))


def test_rows_already_complete_are_not_written_again(tmp_path: Path, result: Counterfactuals) -> None:
    atlas = empty(tmp_path / "a", result)
    atlas.write(result[:2])
    with pytest.raises(AtlasError, match=r"distinct missing rows, got \[1\]"):
        atlas.write(result[[1, 2]])
    with pytest.raises(AtlasError, match=r"distinct missing rows, got \[4, 4\]"):
        atlas.write(result[[4, 4]])


def test_killed_between_data_and_complete_is_missing(
    tmp_path: Path, result: Counterfactuals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever write of the store fails, no row is complete unless all of its data is there."""
    real, budget = LocalStore.set, [0]

    async def limited(self: LocalStore, key: str, value: object) -> None:
        budget[0] -= 1
        if budget[0] < 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        await real(self, key, value)  # type: ignore[arg-type]

    for allowed in (0, 1, 5, 17):
        path = tmp_path / str(allowed)
        atlas = empty(path, result)
        atlas.write(result[:5])
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "set", limited)
            budget[0] = allowed
            with pytest.raises(AtlasError, match=r"No space left on device.*in memory is intact") as caught:
                atlas.write(result[5:])
        assert str(path) in str(caught.value)
        assert_same(result[:5], Atlas(path).read())
        Atlas(path).write(result[5:])
        assert_same(result, read_atlas(path))


def test_full_disk_at_creation_leaves_nothing(
    tmp_path: Path, result: Counterfactuals, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(self: LocalStore, key: str, value: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    write_atlas(tmp_path / "old", result)
    monkeypatch.setattr(LocalStore, "set", full)
    for name in ("new", "old"):
        with pytest.raises(AtlasError, match=f"{name}: could not write.*No space left"):
            write_atlas(tmp_path / name, result, exists="overwrite")
    assert [p.name for p in tmp_path.iterdir()] == ["old"]
    assert_same(result, read_atlas(tmp_path / "old"))


def damaged(path: Path, array: str, how: str) -> None:
    """Flip one payload bit in, truncate, or remove the first chunk file of an array."""
    file = min(p for p in (path / array / "c").rglob("*") if p.is_file())
    data = bytearray(file.read_bytes())
    data[len(data) // 3] ^= 4
    if how == "remove":
        file.unlink()
    else:
        file.write_bytes(data if how == "flip" else data[: len(data) // 2])


@pytest.mark.parametrize("how", ["flip", "truncate", "remove"])
@pytest.mark.parametrize("array", ["counterfactual", "edited", "probs_after", "verdict", "nfe_unet_backward"])
def test_damage_is_refused_by_name(tmp_path: Path, result: Counterfactuals, array: str, how: str) -> None:
    atlas = empty(tmp_path / "a", result)
    atlas.write(result)
    damaged(tmp_path / "a", array, how)
    with pytest.raises(AtlasError, match=rf"a: array '{array}' is damaged at sample rows \[[0-3, ]+\]"):
        atlas.read()
    assert_same(result[4:], atlas.read(range(4, 10)))


def test_every_bit_of_a_shard_counts(tmp_path: Path, result: Counterfactuals) -> None:
    """No single flipped bit of an image shard (here: every 97th) changes what is read without an error."""
    atlas = empty(tmp_path / "a", result, shard=2)
    atlas.write(result)
    file = tmp_path / "a/counterfactual/c/0/0/0/0"
    good = file.read_bytes()
    for bit in range(0, 8 * len(good), 97):
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        file.write_bytes(data)
        with pytest.raises(AtlasError, match="counterfactual"):
            atlas.read([0, 1])


@pytest.mark.parametrize("array", ["row", "complete", "sample"])
def test_damaged_bookkeeping_is_refused(tmp_path: Path, result: Counterfactuals, array: str) -> None:
    write_atlas(tmp_path / "a", result)
    damaged(tmp_path / "a", array, "flip")
    with pytest.raises(AtlasError, match=f"array '{array}' is damaged"):
        Atlas(tmp_path / "a").read_cohort()


def test_paths_that_must_not_be_touched(tmp_path: Path, result: Counterfactuals) -> None:
    write_atlas(tmp_path / "a", result)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "file").write_text("")
    with pytest.raises(AtlasError, match="exists; choose another path"):
        write_atlas(tmp_path / "a", result)
    with pytest.raises(AtlasError, match="expected a cfx atlas"):
        write_atlas(tmp_path / "mine", result, exists="overwrite")
    with pytest.raises(AtlasError, match="could not write"):
        check_path(tmp_path / "file" / "a")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"
    other = make_result(3, seed=5)
    assert_same(other, write_atlas(tmp_path / "a", other, exists="overwrite").read())
    assert {p.name for p in tmp_path.iterdir()} == {"a", "mine", "file"}


def test_resume_refuses_another_run(tmp_path: Path, result: Counterfactuals) -> None:
    write_atlas(tmp_path / "a", result)
    with pytest.raises(AtlasError, match="seed: stored 7, now 8"):
        write_atlas(tmp_path / "a", replace(result, seed=8), exists="resume")
    with pytest.raises(AtlasError, match="stored 10 other rows, now 4"):
        write_atlas(tmp_path / "a", result[:4], exists="resume")


def test_misfits_are_named(tmp_path: Path, result: Counterfactuals) -> None:
    atlas = empty(tmp_path / "a", result)
    with pytest.raises(InputError, match="oracle_probs_after"):
        atlas.write(replace(result, oracle_probs_before=None, oracle_probs_after=None))
    with pytest.raises(InputError, match=r"factual: expected rows of \(2, 6, 5\) float32"):
        atlas.write(make_result(10, (6, 6)))
    with pytest.raises(InputError, match="cohort: expected images"):
        write_atlas(tmp_path / "b", result, make_cohort(result[:3]))
    with pytest.raises(InputError, match="attributes: expected JSON"):
        write_atlas(tmp_path / "b", result, attributes={"path": tmp_path})
    with pytest.raises(InputError, match="distinct row numbers"):
        write_atlas(tmp_path / "b", result[[0, 0]])
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("space", [(6, 5), (4, 5, 3)])
def test_opens_in_xarray(tmp_path: Path, space: tuple[int, ...]) -> None:
    result = make_result(6, space)
    write_atlas(tmp_path / "a", result, make_cohort(result))
    with xarray.open_zarr(tmp_path / "a", consolidated=False, chunks=None) as data:
        one = data.sel(sample="subject-004é")
        assert data.counterfactual.dims == ("sample", "channel", *("right", "front", "top")[: len(space)])
        assert data.edited.dims == ("sample", *data.counterfactual.dims[2:])
        np.testing.assert_array_equal(one.counterfactual.values, result.x_cf[4].numpy())
        np.testing.assert_array_equal(one.edited.values, result.edited[4, 0].numpy())
        assert int(one.verdict) == 4
        assert data.verdict.attrs["flag_meanings"].split()[4] == "refused"


AFFINES = {"RAS": (3, 2, 4), "LPS": (-3, -2, 4), "LAS": (-3, 2, 4)}


@pytest.mark.parametrize("stored_as", AFFINES)
def test_a_slice_by_name_is_that_slice(tmp_path: Path, stored_as: str) -> None:
    """However a file has its axes: `isel(right=i)` is the sagittal slice, and so the others."""
    steps = AFFINES[stored_as]
    data = np.random.default_rng(0).random((5, 6, 7), np.float32)
    nibabel.save(nibabel.Nifti1Image(data, np.diag([*steps, 1])), tmp_path / "v.nii")
    cohort = load_cohort(NiftiConfig(path=tmp_path, window=(0, 1)))
    ras = data[:: int(np.sign(steps[0])), :: int(np.sign(steps[1]))] * 2 - 1
    result = make_result(1, (5, 6, 7)).replace(x=cohort.x, x_cf=-cohort.x, edited=cohort.x != 0)
    write_atlas(tmp_path / "a", result, cohort)
    with xarray.open_zarr(tmp_path / "a", consolidated=False, chunks=None) as atlas:
        one = atlas.factual.isel(sample=0, channel=0)
        assert one.dims == ("right", "front", "top")
        for axis, name in enumerate(one.dims):
            np.testing.assert_allclose(one.isel({name: 2}), ras.take(2, axis), atol=1e-6)
        assert atlas.edited.dims == ("sample", "right", "front", "top")
    assert list(Atlas(tmp_path / "a").read_cohort().axes) == ["right", "front", "top"]


@pytest.mark.parametrize(
    ("space", "axes"), [((4, 5), ["y", "x"]), ((3, 4, 5), ["z", "y", "x"]), ((4, 5), ["back", "right"])]
)
def test_axes_survive_and_without_a_cohort_they_are_plain(tmp_path: Path, space: tuple[int, ...], axes: list) -> None:
    result = make_result(3, space)
    plain = axes[-1] == "x"
    cohort = None if plain else Cohort(result.x, axes=axes)
    write_atlas(tmp_path / "a", result, cohort)
    with xarray.open_zarr(tmp_path / "a", consolidated=False, chunks=None) as data:
        assert list(data.counterfactual.dims[2:]) == axes
    assert list(Atlas(tmp_path / "a").read_cohort().axes) == axes
    assert Atlas(tmp_path / "a").read(images=False).x.shape == (3, 2, *[0] * len(space))


def test_a_cohort_keeps_its_files(tmp_path: Path, result: Counterfactuals) -> None:
    cohort = make_cohort(result).replace(
        file=tuple(f"{i}.nii" for i in range(10)),
        sha256=torch.arange(320, dtype=torch.int64).view(10, 32).to(torch.uint8),
        intensity=torch.rand(10, 2, dtype=torch.float64),
    )
    write_atlas(tmp_path / "a", result, cohort)
    assert_same(cohort, Atlas(tmp_path / "a").read_cohort())
    assert_same(cohort[:0], Atlas.create(tmp_path / "b", result[:0], rows=[], cohort=cohort[:0]).read_cohort())


WRITER = """
import sys, time
from pathlib import Path
from cfx.atlas import Atlas

folder, rank = Path(sys.argv[1]), int(sys.argv[2])
source, atlas = Atlas(folder / "source"), Atlas(folder / "a")
parts = [source.read([row]) for row in atlas.shard_rows(rank, 2)]
(folder / f"ready{rank}").touch()
while not (folder / f"ready{1 - rank}").exists():
    time.sleep(0.001)
for part in parts:
    atlas.write(part)
"""


def test_two_processes_lose_no_row(tmp_path: Path) -> None:
    """Both write at once, a row at a time, so that a file in common would lose rows."""
    result = make_result(30)
    write_atlas(tmp_path / "source", result)
    atlas = empty(tmp_path / "a", result, shard=4)
    shares = [atlas.shard_rows(rank, 2) for rank in range(2)]
    assert sorted(shares[0] + shares[1]) == list(range(30))
    command = [sys.executable, "-W", "error", "-c", WRITER, str(tmp_path)]
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    workers = [subprocess.Popen([*command, str(rank)], env=env) for rank in range(2)]
    assert [worker.wait(120) for worker in workers] == [0, 0]
    assert atlas.missing() == []
    assert_same(result, atlas.read())


def test_shard_rows_are_whole_shards(tmp_path: Path, result: Counterfactuals) -> None:
    atlas = empty(tmp_path / "a", result, shard=4)
    assert [atlas.shard_rows(rank, 2) for rank in range(2)] == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]
    with pytest.raises(InputError, match="rank"):
        atlas.shard_rows(2, 2)
    group = zarr.open_group(tmp_path / "a", mode="r")
    assert {(a.shards or a.chunks)[0] for _, a in group.arrays()} == {4}


def schema_3(path: Path, result: Counterfactuals, cohort: Cohort) -> None:
    """An atlas as the version before wrote it: all rows in one shard, spatial axes z, y, x, no files."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    dims = result.x.ndim - 2
    space, codecs = ("z", "y", "x")[3 - dims :], [zarr.codecs.ZstdCodec(level=3), zarr.codecs.Crc32cCodec()]
    names = {1: (), 2: ("class",), 2 + dims - 1: space, 2 + dims: ("channel", *space)}
    arrays = {
        "factual": result.x, "counterfactual": result.x_cf, "edited": result.edited[:, 0], "target": result.target,
        "probs_before": result.probs_before, "probs_after": result.probs_after, "margin": result.margin,
        "margin_after": result.margin_after, "strength": result.strength, "verdict": result.verdict,
        "row": result.row, "nfe_unet_forward": result.nfe_unet_forward, "seconds": result.seconds,
        "nfe_unet_backward": result.nfe_unet_backward, "nfe_classifier": result.nfe_classifier,
        "nfe_classifier_backward": result.nfe_classifier_backward, "label": cohort.y, "affine": cohort.affine,
    }  # fmt: skip
    group.attrs.update({
        "cfx_schema": 3, "cfx_version": "0.2.0", "cfx_kind": "Counterfactuals", "cfx_arrays": sorted(arrays),
        "cfx_fingerprint": {}, "classes": list(cohort.classes), "depth": "typical", "seed": 7, "method": "minimal",
    })  # fmt: skip
    texts = np.array(cohort.ids, np.dtypes.StringDType())
    plain = {"compressors": codecs, "config": {"write_empty_chunks": True}}
    group.create_array("sample", data=texts, dimension_names=("sample",), **plain)
    group.create_array("complete", data=np.ones(len(result), bool), dimension_names=("sample",), **plain)
    for name, value in arrays.items():
        values = value.numpy()
        axes = ("world", "voxel") if name == "affine" else names[values.ndim]
        image = values.ndim > 2
        group.create_array(
            name,
            data=values,
            dimension_names=("sample", *axes),
            chunks=((1 if image else len(values)), *values.shape[1:]),
            shards=values.shape if image else None,
            **plain,
        )


@pytest.mark.parametrize("space", [(6, 5), (4, 5, 3)])
def test_an_atlas_of_schema_3_is_read_and_never_written_to(tmp_path: Path, space: tuple[int, ...]) -> None:
    path, result = tmp_path / "old", make_result(6, space, oracle=False)
    affine = torch.eye(4).repeat(6, 1, 1)
    cohort = Cohort(result.x, y=1 - result.target, ids=tuple("abcdéf"), affine=affine, classes=["no", "yes"])
    schema_3(path, result, cohort)
    atlas = Atlas(path)
    assert_same(result, atlas.read())
    assert_same(cohort, atlas.read_cohort())
    assert atlas.read(images=False).x.shape == (6, 2, *[0] * len(space))
    assert atlas.read([3], images=False).edited.shape == (1, 1, *[0] * len(space))
    for refused in (lambda: atlas.write(result), lambda: write_atlas(path, result, cohort, exists="resume")):
        with pytest.raises(AtlasError, match=r"an atlas of schema 3 can be read, but not continued; .*schema 5"):
            refused()
    assert_known(result, cohort, read_atlas(path))
    write_atlas(path, result, cohort, exists="overwrite")
    assert Atlas(path).attributes["cfx_schema"] == 5


def test_an_atlas_of_an_older_schema_may_be_overwritten_but_not_resumed(tmp_path):
    path = tmp_path / "old.zarr"
    group = zarr.open_group(path, mode="w", zarr_format=3)
    group.attrs["cfx_schema"] = 1
    check_path(path, "overwrite")
    with pytest.raises(AtlasError, match="expected a cfx atlas of schema 3 or 4 or 5, got schema 1"):
        check_path(path, "resume")


@pytest.mark.parametrize("array", ["consent", "margin", "label", "lesion"])
def test_an_array_that_is_gone_is_missed(tmp_path: Path, array: str) -> None:
    result = make_result().replace(consent=torch.rand(10))
    write_atlas(tmp_path / "a", result, make_cohort(result))
    shutil.rmtree(tmp_path / "a" / array)
    with pytest.raises(AtlasError, match=rf"arrays that it was created with are gone: \['{array}'\]"):
        Atlas(tmp_path / "a")


def test_a_write_costs_the_same_in_a_large_atlas(tmp_path: Path, result: Counterfactuals) -> None:
    """Files that are opened to write a shard of an atlas of 2000 rows, and of one of 20: as many."""
    opened = []
    for n in (20, 2000):
        atlas = Atlas.create(tmp_path / str(n), result[:0], rows=range(n), shard=10)
        seen: list[Path] = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LocalStore, "get", counted(LocalStore.get, seen))
            atlas.write(result)
        opened.append(len(seen))
    assert opened[0] == opened[1] > 0


def counted(get: Any, seen: list[Any]) -> Any:
    """`get` of a store that notes what is asked for."""

    async def noted(self: LocalStore, key: str, *arguments: Any, **more: Any) -> Any:
        seen.append(key)
        return await get(self, key, *arguments, **more)

    return noted

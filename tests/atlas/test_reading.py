"""What is read of arrays: columns as their class has them, and never the fill value for what is gone."""

import shutil

import numpy as np
import pytest
import torch
import zarr

from cfx.atlas.layout import add_array, add_flags, stored
from cfx.atlas.reading import Reader, runs
from cfx.core.cohort import Cohort
from cfx.core.errors import AtlasError

N, SHARD = 6, 2


def cohort():
    x = torch.linspace(-1, 1, N * 24).view(N, 1, 2, 3, 4)
    return Cohort(x, y=torch.arange(N), covariates={"a/b": torch.rand(N)}, mask=x > 0, axes=["right", "front", "top"])


@pytest.fixture
def reader(tmp_path):
    """The arrays of a cohort, all rows complete, each of a shard of two."""
    group, value = zarr.open_group(tmp_path, mode="w", zarr_format=3), cohort()
    parts = stored(value, space=value.axes)
    add_flags(group, N, SHARD)
    for name, part in parts.items():
        add_array(group, name, part, N, SHARD)
        group[name].with_config({"write_empty_chunks": True})[:] = part.values
    group.create_array("row", data=np.arange(10, 10 + N), chunks=(SHARD,))
    return Reader(tmp_path, dict(group.arrays()), value.axes)


def test_columns_of_some_samples_are_as_they_were(reader):
    at = np.array([1, 2, 5])
    found = Cohort.of(*reader.value(Cohort, {"classes": [*"abcdef"], "other": 1}, at, True))
    wanted = cohort()[at.tolist()]
    assert found.x.equal(wanted.x)
    assert found.mask.equal(wanted.mask)
    assert found.ids == wanted.ids
    assert found.covariates.keys() == {"a/b"}
    assert found.classes == [*"abcdef"]


def test_without_images_what_has_spatial_axes_is_empty(reader):
    parts, _ = reader.value(Cohort, {}, np.arange(N), False)
    assert parts["x"].shape == (N, 1, 0, 0, 0)
    assert parts["mask"].shape == (N, 1, 0, 0, 0)
    assert parts["y"].equal(torch.arange(N))


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "index"])
@pytest.mark.parametrize("name", ["factual", "region"])
def test_what_is_not_there_is_named_by_rows(reader, name, how):
    """Files that are gone, of no length, cut off, or whose shard lacks a chunk: rows 12 and 13, no others."""
    (file,) = (p for p in (reader.path / name / "c" / "1").rglob("*") if p.is_file())
    data = bytearray(file.read_bytes())
    data[-20:-4] = b"\xff" * 16  # what the index says of a chunk that was never written
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "index": data}[how])
    said = {"gone": "is gone", "empty": "is empty", "cut": "", "index": r"lacks the chunks \[1\]"}[how]
    with pytest.raises(AtlasError, match=rf"array '{name}' is damaged at sample rows \[12, 13\]: .*{said}"):
        reader.read(name)
    assert len(reader.read(name, np.array([0, 1, 4, 5]))) == 4


def test_flags_of_shards_not_begun_may_lack_their_files(reader):
    shutil.rmtree(reader.path / "complete" / "c", ignore_errors=True)
    assert not reader.read("complete").any()


def test_an_array_that_is_not_there_is_named(reader):
    with pytest.raises(AtlasError, match="array 'truth' is not there"):
        reader.read("truth")


def test_runs_are_the_consecutive_parts():
    at = np.array([0, 1, 2, 5, 7, 8])
    assert [at[run].tolist() for run in runs(at)] == [[0, 1, 2], [5], [7, 8]]
    assert runs(at[:0]) == []

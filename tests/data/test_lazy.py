"""Images read on demand are those of the cohort in memory, and no more are kept than was said."""

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from cfx.core.cohort import Cohort, Source, part
from cfx.core.errors import InputError
from cfx.data import (
    BrainConfig,
    NiftiConfig,
    NpzConfig,
    PngConfig,
    ZarrConfig,
    load_cohort,
    open_cohort,
    to_nifti,
)
from cfx.data.lazy import LazyCohort

N = 23


class Reads:
    """A reader of constant images that keeps count."""

    def __init__(self, shape=(1, 4, 4)):
        self.shape, self.asked = shape, []

    def __call__(self, rows: slice):
        self.asked.append((rows.start, rows.stop))
        value = torch.arange(rows.start, rows.stop) / 100
        return {"x": value.view(-1, 1, 1, 1).expand(-1, *self.shape).contiguous()}


def lazy(read=None, **more) -> LazyCohort:
    return LazyCohort(read or Reads(), tuple(f"r{i}" for i in range(N)), y=torch.arange(N) % 2, **more)


@pytest.mark.parametrize("block", [1, 4, 23, 50])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 20, 5), [7, 7, 0, 22], torch.arange(N) % 3 == 1, [], [-1]])
def test_rows_are_those_of_the_whole(block, rows):
    source = lazy(block=block)
    found, wanted = source[rows], source.load()[rows]
    assert found.x.equal(wanted.x)
    assert found.y.equal(wanted.y)
    assert found.ids == wanted.ids
    assert source[rows].x.equal(wanted.x)


def test_nothing_is_read_before_it_is_asked_for():
    source = lazy(read := Reads(), block=5)
    assert (len(source), source.ids[3], source.y[3]) == (N, "r3", 1)
    assert read.asked == []
    assert source.shape == (1, 4, 4)
    assert read.asked == [(0, 5)]
    source[[1, 4]]
    part(source, slice(10, 14))[:]
    assert read.asked == [(0, 5), (10, 15)]
    source[20:]
    assert read.asked[2:] == [(20, 23)]
    assert isinstance(source, Source)


def test_the_blocks_used_last_are_kept_within_the_bytes():
    row = 4 * 4 * 4  # bytes of an image
    source = lazy(read := Reads(), block=2, cache=2 * 2 * row + 1)
    for first in (2, 4, 2, 6, 2, 4):  # 6 drives out 4, the one used longest ago
        source[[first]]
    assert read.asked == [(0, 2), (2, 4), (4, 6), (6, 8), (4, 6)]
    least = lazy(read := Reads(), cache=0)
    least[[5, 6, 6]]
    least[[6]]
    assert read.asked == [(0, 1), (5, 6), (6, 7)]


def test_what_is_handed_out_stays_when_its_block_goes():
    source = lazy(cache=0)
    early = source[[3]]
    source[[4]].x.fill_(-1)
    assert float(early.x.mean()) == pytest.approx(0.03)
    assert source[[4]].x.equal(lazy()[[4]].x)


def test_another_shape_is_refused_by_name():
    def read(rows: slice):
        return {"x": torch.zeros(1, 1, 4, 4 if rows.start < 9 else 5)}

    with pytest.raises(InputError, match=r"x is \(1, 4, 4\) in r0, \(1, 4, 5\) in r9"):
        lazy(read)[[3, 9]]


def test_pixels_outside_the_range_are_refused():
    with pytest.raises(InputError, match=r"expected values in \[-1, 1\]"):
        lazy(lambda rows: {"x": torch.full((1, 1, 4, 4), 2.0)})[[3]]


def arrays() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (N, 12, 12), dtype=np.uint8), rng.integers(0, 2, N)


def _npz(folder):
    images, labels = arrays()
    np.savez(folder / "a.npz", train_labels=labels, train_images=images)
    return NpzConfig(path=folder / "a.npz", size=6)


def _png(folder):
    images, labels = arrays()
    for i, (pixels, y) in enumerate(zip(images, labels, strict=True)):
        (folder / "ab"[y]).mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "ab"[y] / f"{i:02}.png")
    return PngConfig(path=folder, size=6)


def _nifti(folder):
    (folder / "masks").mkdir()
    for i, pixels in enumerate(torch.from_numpy(arrays()[0]).float() + 1):
        volume = pixels.view(1, 12, 12, 1).expand(1, 12, 12, 3)
        to_nifti(volume, torch.eye(4), folder / f"{i:02}.nii.gz")
        to_nifti((volume > 50).float(), torch.eye(4), folder / "masks" / f"{i:02}.nii.gz")
    return NiftiConfig(path=folder, masks=folder / "masks", spacing=2.0, slice_axis="axial")


def _zarr(folder):
    images, labels = arrays()
    group = zarr.create_group(folder / "a.zarr")
    group.create_array("images", data=images[:, None], chunks=(5, 1, 12, 12))
    group.create_array("y", data=labels)
    return ZarrConfig(path=folder / "a.zarr", labels="y")


def _brain(folder):
    return BrainConfig(n=N, seed=3, start=5, size=16, confounders=({"kind": "tag", "q": 0.9},))


@pytest.mark.parametrize("make", [_npz, _png, _nifti, _zarr, _brain])
def test_every_kind_reads_the_same_lazily(make, tmp_path):
    config = make(tmp_path)
    whole, source = load_cohort(config), open_cohort(config.model_copy(update={"lazy": True}))
    assert isinstance(whole, Cohort)
    assert isinstance(source, LazyCohort)
    assert isinstance(open_cohort(config), Cohort)
    assert (source.shape, source.ids, list(source.classes)) == (whole.shape, whole.ids, list(whole.classes))
    found, wanted = source[[17, 2, 2, 9]], whole[[17, 2, 2, 9]]
    rounding = 1e-6 if make is _brain else 0.0  # a brain rendered on its own differs from one of a batch by that
    assert found.parts().keys() == wanted.parts().keys()
    for name, column in found.parts().items():
        if isinstance(column, torch.Tensor):
            assert torch.allclose(column.double(), wanted.parts()[name].double(), rtol=0, atol=rounding), name
    assert found.ids == wanted.ids
    again = open_cohort(config.model_copy(update={"lazy": True}))[8:18]
    assert again.x[[9, 1]].equal(found.x[[0, 3]])  # bit for bit, whatever was read before or beside


def test_what_needs_all_images_at_once_refuses_a_lazy_source(tmp_path):
    with pytest.raises(InputError, match="lazy: expected false"):
        load_cohort(BrainConfig(n=2, size=16, lazy=True))

"""How columns are laid out on disk: names, axes, codes, chunks and shards, and nothing lost on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import zarr
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.atlas.layout import COMPLETE, SAMPLE, add_array, add_flags, add_names, array_name, spatial_axes, stored, thin
from cfx.core.errors import InputError
from cfx.core.rows import Rows, about


class Colour(IntEnum):
    RED = 2
    DARK_BLUE = 5


@dataclass(frozen=True)
class Made(Rows):
    """Rows of every kind.

    Attributes:
        x: Images.
        mask: Where.
        colour: Which colour.
        values: Numbers by name.
        affine: To millimetres.
        note: A text.
    """

    x: Float[Tensor, "n c *space"] = field(metadata=about(array="picture"))
    mask: Bool[Tensor, "n 1 *space"]
    colour: Int[Tensor, " n"] = field(metadata=about(codes=Colour))
    values: Mapping[str, Float[Tensor, " n"]]
    affine: Float[Tensor, "n world=4 voxel=4"]
    note: tuple[str, ...]


def made(space: tuple[int, ...] = (3, 5), **values: object) -> Made:
    x = torch.arange(4 * 2 * 60.0)[: 8 * int(np.prod(space))].view(4, 2, *space)
    every: dict[str, object] = {
        "x": x, "mask": x[:, :1] > x.mean(), "colour": torch.tensor([2, 5, 5, 2]), "values": {"a": torch.ones(4)},
        "affine": torch.eye(4).repeat(4, 1, 1), "note": ("", "é", "b", "c"),
    }  # fmt: skip
    return Made(**every | values)  # type: ignore[arg-type]


@pytest.mark.parametrize(("space", "axes"), [((3, 5), ("y", "x")), ((2, 3, 4), ("z", "y", "x"))])
def test_axes_are_named_and_those_of_length_one_that_the_class_fixes_are_left_out(space, axes):
    value, found = made(space), stored(made(space))
    assert {name: s.axes for name, s in found.items()} == {
        "picture": (SAMPLE, "channel", *axes),
        "mask": (SAMPLE, *axes),
        "colour": (SAMPLE,),
        "values.a": (SAMPLE,),
        "affine": (SAMPLE, "world", "voxel"),
        "note": (SAMPLE,),
    }
    assert np.array_equal(found["picture"].values, value.x.numpy())
    assert np.array_equal(found["mask"].values, value.mask[:, 0].numpy())
    assert found["note"].values.tolist() == list(value.note)


@pytest.mark.parametrize(("space", "names"), [((3, 5), ("back", "right")), ((2, 3, 4), ("right", "front", "top"))])
def test_spatial_axes_have_the_names_that_are_given(space, names):
    found = stored(made(space), space=names)
    assert found["picture"].axes == (SAMPLE, "channel", *names)
    assert found["mask"].axes == (SAMPLE, *names)
    assert found["affine"].axes == (SAMPLE, "world", "voxel")
    assert found["colour"].axes == (SAMPLE,)


@pytest.mark.parametrize("names", [("right",), ("right", "front", "top"), ("sample", "x"), ("channel", "x")])
def test_names_that_do_not_fit_or_are_taken_are_refused(names):
    with pytest.raises(InputError, match=r"axes: expected 2 names besides \['sample', 'channel'\] for picture, got"):
        stored(made(), space=names)


@pytest.mark.parametrize(
    ("attributes", "axes"),
    [
        ({"cfx_schema": 3}, ("z", "y", "x")),
        ({"cfx_schema": 3, "axes": ["a", "b"]}, ("z", "y", "x")),  # a note of the caller's
        ({"cfx_schema": 4, "axes": []}, ("z", "y", "x")),
        ({"cfx_schema": 4, "axes": ["back", "right"]}, ("back", "right")),
    ],
)
def test_the_version_says_what_the_spatial_axes_are(attributes, axes):
    assert spatial_axes(attributes) == axes


def test_a_single_channel_is_an_axis_all_the_same():
    one = made(x=torch.zeros(4, 1, 3, 5))
    assert stored(one)["picture"].values.shape == (4, 1, 3, 5)


def test_thin_axes_are_counted_behind_the_rows():
    assert thin(("1", "*space")) == [1]
    assert thin(("c", "1", "world=4", "1")) == [2, 4]


def test_arrays_say_what_they_hold_by_the_conventions():
    found = stored(made())
    assert found["picture"].attributes == {"long_name": "Images."}
    assert found["colour"].attributes == {
        "long_name": "Which colour.", "flag_values": [2, 5], "flag_meanings": "red dark_blue"
    }  # fmt: skip


@pytest.mark.parametrize("key", ["a/b", "..", "age (years)", "é%2E", "x.y"])
def test_any_text_is_a_key_and_its_array_lies_inside_the_store(key):
    (name,) = (name for name in stored(made(values={key: torch.ones(4)})) if name.startswith("values."))
    assert "/" not in name
    assert name.count(".") == 1
    assert unquote(name.partition(".")[2]) == key
    column = next(c for c in Made.columns() if c.name == "values")
    assert array_name(column, f"values.{key}") == name


def test_a_column_of_several_values_is_kept_once_and_none_is_no_value():
    first, second = made(), made(note=("other",) * 4)
    found = stored(first, None, second)
    assert found.keys() == stored(first).keys()
    assert found["note"].values.tolist() == list(first.note)


def test_a_dtype_that_numpy_lacks_is_refused_by_array():
    with pytest.raises(InputError, match=r"picture: expected a dtype that numpy has, .* got torch.bfloat16"):
        stored(made(x=torch.zeros(4, 2, 3, 5, dtype=torch.bfloat16)))


def test_an_image_is_a_chunk_and_a_shard_holds_the_same_samples_of_every_array(tmp_path: Path):
    group = zarr.open_group(tmp_path, mode="w", zarr_format=3)
    for name, like in stored(made()).items():
        add_array(group, name, like, n=7, shard=3)
    add_flags(group, 7, 3)
    add_names(group, tuple("abcdéfg"), 3)
    arrays = dict(group.arrays())
    assert (arrays["picture"].shape, arrays["picture"].chunks) == ((7, 2, 3, 5), (1, 2, 3, 5))
    assert {name: (a.shards or a.chunks)[0] for name, a in arrays.items()} == dict.fromkeys(arrays, 3)
    assert {name: a.metadata.dimension_names[0] for name, a in arrays.items()} == dict.fromkeys(arrays, SAMPLE)
    assert np.isnan(arrays["picture"][:]).all()  # nothing is known yet
    assert not arrays[COMPLETE][:].any()
    assert arrays[SAMPLE][:].tolist() == list("abcdéfg")

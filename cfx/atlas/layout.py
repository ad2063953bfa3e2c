"""What an atlas looks like on disk: an array for every column of a result, and of the cohort of the same rows.

Nothing here knows what a column means: its name on disk, its axes, its codes and its meaning are those that the class
declares (`cfx.core.rows`). Of `Counterfactuals`, for example:

| array | axes | holds |
|---|---|---|
| `factual`, `counterfactual`, `truth` | sample, channel, *space | images in [-1, 1]; `truth` where simulated |
| `edited`, `lesion`, `region` | sample, *space | edited region, ground-truth lesion, region of interest |
| `probs_*`, `oracle_probs_*` | sample, class or oracle_class | probabilities |
| `target`, `verdict`, `margin`, `strength`, `nfe_*`, `seconds`, ... | sample | one number a row |
| `affine`, `spacing` | sample, world, voxel or sample, axis | place in mm of the grid, where it is known |
| `intensity`, `file`, `sha256` | sample, ... | what became -1 and 1, and of which file, where it was read from one |
| `sample`, `row` | sample | name of the row, and its index in the user's input |
| `complete` | sample | True once everything above is on disk for the row |
| `checksum` | sample, array | what proves the row (`cfx.atlas.proof`); written last, so it decides what is complete |

The spatial axes have the names that the cohort gives them, in the root attribute `axes`: (right, front, top) for
volumes in RAS order, (back, right) for axial slices, (y, x) for pictures. Up to schema 3 they were (z,) y, x;
`spatial_axes` settles what a version of the schema says. Up to schema 4 there are no checksums and no digests, and
`complete` decides.

Every array is cut along `sample` alone, at the same places: a shard holds the same samples in all of them, so a
process that owns a shard owns it everywhere, `complete` included, and writers never touch each other's files. Images
have one chunk a sample inside the shard. Zarr's own shard checksum covers only the index of the shard, hence the
CRC32C behind the compressor of each chunk.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self
from urllib.parse import quote

import numpy as np
import zarr
from numpy.typing import NDArray
from torch import Tensor
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigParams

from cfx.core.axes import PLAIN
from cfx.core.errors import InputError
from cfx.core.rows import Column, Rows, Values

SCHEMA: Final = 5
READABLE: Final = (3, 4, SCHEMA)
"""Versions of the schema that are read; only the last is written."""
SAMPLE: Final = "sample"
COMPLETE: Final = "complete"
CHECKSUM: Final = "checksum"
KEPT: Final = {SAMPLE, COMPLETE, CHECKSUM}
"""Arrays that are the atlas's own, and of no result."""
# A chunk of zeros must exist on disk, or a lost file could not be told from a result of zeros.
ALL_CHUNKS: Final[ArrayConfigParams] = {"write_empty_chunks": True}
_AXES: Final = {"c": "channel", "k": "class", "dims": "axis"}
"""Names of the axes whose symbol does not say it."""


@dataclass(frozen=True)
class Stored:
    """A column as it is kept.

    Attributes:
        values: `(n, ...)`, axes of length one that the class fixes left out.
        axes: Names of its axes, `sample` first.
        column: What the class says of it.
    """

    values: NDArray[Any]
    axes: tuple[str, ...]
    column: Column

    @classmethod
    def of(cls, column: Column, value: Values, array: str, space: Sequence[str] = ()) -> Self:
        """A column of a value whose spatial axes have these names; by default (z,) y, x.

        Raises:
            InputError: a dtype that numpy lacks.
        """
        if not isinstance(value, Tensor):
            return cls(np.array(value, dtype=np.dtypes.StringDType()), (SAMPLE,), column)
        symbols = next(shape for shape in column.shapes if shape.holds(value) and shape.fits(value)).axes
        value = value.detach().cpu()
        for place in reversed(thin(symbols)):
            value = value.squeeze(place)
        try:
            return cls(value.numpy(), _axes(array, symbols, value.ndim, space), column)
        except TypeError as error:
            raise InputError(f"{array}: expected a dtype that numpy has, such as float32, got {value.dtype}") from error

    @property
    def attributes(self) -> dict[str, Any]:
        """What the array says of itself, by the CF conventions."""
        found: dict[str, Any] = {"long_name": self.column.meaning} if self.column.meaning else {}
        if self.column.codes is not None:
            found["flag_values"] = [int(code) for code in self.column.codes]
            found["flag_meanings"] = " ".join(code.name.lower() for code in self.column.codes)
        return found


def array_name(column: Column, name: str) -> str:
    """What a column is called on disk; a key of a mapping is quoted, since it may be any text."""
    _, dot, key = name.partition(".")
    return f"{column.array}{dot}{quote(key, safe=' ').replace('.', '%2E')}"


def stored(*values: Rows | None, space: Sequence[str] = ()) -> dict[str, Stored]:
    """Every column of values of the same rows, by the name of its array; one that several have is kept once.

    Args:
        values: The values; None is no value.
        space: Names of the spatial axes; by default (z,) y, x.
    """
    found: dict[str, Stored] = {}
    for value in values:
        for array, column, part in [] if value is None else named(value):
            if array not in found:
                found[array] = Stored.of(column, part, array, space)
    return found


def named(value: Rows) -> Iterator[tuple[str, Column, Values]]:
    """Every column of a value with the name of its array."""
    specs = {column.name: column for column in value.columns()}
    for name, part in value.parts().items():
        column = specs[name.partition(".")[0]]
        yield array_name(column, name), column, part


def thin(symbols: tuple[str, ...]) -> list[int]:
    """Places of the axes of length one that the class fixes."""
    return [1 + i for i, axis in enumerate(symbols) if axis == "1"]


def spatial_axes(attributes: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the spatial axes of an atlas, from its root attributes, by the version of its schema."""
    named = attributes.get("axes") if attributes["cfx_schema"] >= 4 else None
    return tuple(named or PLAIN[3])


def _axes(array: str, symbols: tuple[str, ...], ndim: int, space: Sequence[str]) -> tuple[str, ...]:
    """Names of the axes of an array.

    Raises:
        InputError: names of spatial axes that do not fit, or that another axis has.
    """
    lead = [axis for axis in symbols if axis != "1" and not axis.startswith("*")]
    names = [SAMPLE, *(_axis_name(array, i, axis.partition("=")[0]) for i, axis in enumerate(lead))]
    dims = ndim - len(names)
    here = (space or PLAIN.get(dims, ())) if dims else ()
    if len(here) != dims or set(here) & set(names):
        raise InputError(f"axes: expected {dims} names besides {names} for {array}, got {list(here)}")
    return (*names, *here)


def _axis_name(array: str, place: int, symbol: str) -> str:
    return _AXES.get(symbol, f"{array}_{place}" if symbol.isdigit() else symbol)


def add_array(group: zarr.Group, name: str, like: Stored, n: int, shard: int) -> None:
    """Create one empty array for `n` samples whose rows look like those of `like`."""
    rest = like.values.shape[1:]
    image = len(rest) > 1
    text = like.values.dtype.kind == "T"
    group.create_array(
        name,
        shape=(n, *rest),
        dtype="str" if text else like.values.dtype,
        chunks=(1 if image else shard, *rest),
        shards=(shard, *rest) if image else None,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value="" if text else np.nan if like.values.dtype.kind == "f" else 0,
        dimension_names=like.axes,
        attributes=like.attributes,
    )


def add_flags(group: zarr.Group, n: int, shard: int) -> None:
    """Create the array that says which rows are complete, and say of each that it is not."""
    array = group.create_array(
        COMPLETE,
        shape=(n,),
        dtype="bool",
        chunks=(shard,),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value=False,
        dimension_names=(SAMPLE,),
        config=ALL_CHUNKS,
    )
    array[:] = np.zeros(n, bool)


def add_checks(group: zarr.Group, values: NDArray[np.uint32], shard: int) -> None:
    """Create and fill the array of checksums."""
    array = group.create_array(
        CHECKSUM,
        shape=values.shape,
        dtype="uint32",
        chunks=(shard, values.shape[1]),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value=0,
        dimension_names=(SAMPLE, "array"),
        attributes={"long_name": "CRC-32 of the row in every array of `cfx_columns`."},
        config=ALL_CHUNKS,
    )
    array[:] = values


def add_names(group: zarr.Group, values: tuple[str, ...], shard: int) -> None:
    """Create and fill the coordinate of names, as variable-length UTF-8."""
    array = group.create_array(
        SAMPLE,
        shape=(len(values),),
        dtype="str",
        chunks=(shard,),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        dimension_names=(SAMPLE,),
        config=ALL_CHUNKS,
    )
    array[:] = np.array(values, dtype=np.dtypes.StringDType())

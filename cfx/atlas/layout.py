"""What an atlas looks like on disk: the array of each field, its axes, its chunks.

| array | axes | holds |
|---|---|---|
| `factual`, `counterfactual`, `truth` | sample, channel, (z,) y, x | images in [-1, 1]; `truth` where simulated |
| `mask`, `lesion`, `region` | sample, (z,) y, x | edited region, ground-truth lesion, region of interest |
| `probs_*`, `oracle_probs_*` | sample, class or oracle_class | probabilities |
| `target`, `verdict`, `margin`, `strength`, `nfe_*`, `seconds`, ... | sample | one number a row |
| `sample`, `row` | sample | name of the row, and its index in the user's input |
| `complete` | sample | True once everything above is on disk for the row |

Every array is cut along `sample` alone, at the same places: a shard holds the same samples in all of them, so a
process that owns a shard owns it everywhere, `complete` included, and writers never touch each other's files. Images
have one chunk a sample inside the shard. Zarr's own shard checksum covers only the index of the shard, hence the
CRC32C behind the compressor of each chunk.
"""

from collections.abc import Mapping
from dataclasses import fields
from typing import Final

import numpy as np
import zarr
from numpy.typing import NDArray
from torch import Tensor
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigParams

from cfx.core.errors import InputError
from cfx.core.values import Cohort, Counterfactuals, Verdict

SCHEMA: Final = 2
# A chunk of zeros must exist on disk, or a lost file could not be told from a result of zeros.
ALL_CHUNKS: Final[ArrayConfigParams] = {"write_empty_chunks": True}
RESULT: Final = {
    f.name: f.name for f in fields(Counterfactuals) if f.name not in {"depth", "seed", "seconds", "method"}
} | {
    "x": "factual",
    "x_cf": "counterfactual",
}
COHORT: Final = {
    "x_true": "truth",
    "lesion": "lesion",
    "mask": "region",
    "y": "label",
    "affine": "affine",
    "spacing": "spacing",
}
FLAT: Final = frozenset({"mask", "lesion", "region"})
_IMAGES: Final = frozenset({"factual", "counterfactual", "truth"})
_AXES: Final = {
    "probs_before": ("class",),
    "probs_after": ("class",),
    "oracle_probs_before": ("oracle_class",),
    "oracle_probs_after": ("oracle_class",),
    "label": ("label_class",),
    "affine": ("world", "voxel"),
    "spacing": ("axis",),
}


def columns(result: Counterfactuals, cohort: Cohort | None = None) -> dict[str, NDArray[np.generic]]:
    """Everything an atlas stores of these rows, by array name, `(n, ...)` each; masks lose their channel axis.

    Raises:
        InputError: a cohort of another length or image shape, or a dtype that numpy lacks.
    """
    named = {array: getattr(result, name) for name, array in RESULT.items()}
    if cohort is not None:
        if cohort.x.shape != result.x.shape:
            raise InputError(
                f"cohort: expected images {tuple(result.x.shape)} as in the result, got {tuple(cohort.x.shape)}"
            )
        named |= {array: getattr(cohort, name) for name, array in COHORT.items()}
    found = {array: _numpy(value, array) for array, value in named.items() if value is not None}
    each = result.seconds / max(len(result), 1)
    return found | {"seconds": np.full(len(result), each)}


def _numpy(value: Tensor, array: str) -> NDArray[np.generic]:
    value = value.detach().cpu()
    try:
        return (value.squeeze(1) if array in FLAT else value).numpy()
    except TypeError as error:
        raise InputError(f"{array}: expected a dtype that numpy has, such as float32, got {value.dtype}") from error


def axes(array: str, ndim: int) -> tuple[str, ...]:
    """Names of the axes of an array, `sample` first."""
    if array in _IMAGES or array in FLAT:
        lead = ("sample", "channel") if array in _IMAGES else ("sample",)
        return lead + ("z", "y", "x")[len(lead) - ndim :]
    return ("sample", *_AXES.get(array, ()))[:ndim]


def add_array(group: zarr.Group, name: str, like: NDArray[np.generic], n: int, shard: int) -> None:
    """Create one empty array for `n` samples whose rows look like those of `like`."""
    image = like.ndim > 2
    flags: Mapping[str, str | list[int]] = {
        "flag_values": [int(v) for v in Verdict],
        "flag_meanings": " ".join(v.name.lower() for v in Verdict),
    }
    group.create_array(
        name,
        shape=(n, *like.shape[1:]),
        dtype=like.dtype,
        chunks=(1 if image else shard, *like.shape[1:]),
        shards=(shard, *like.shape[1:]) if image else None,
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        fill_value=np.nan if like.dtype.kind == "f" else 0,
        dimension_names=axes(name, like.ndim),
        attributes=dict(flags) if name == "verdict" else None,
    )


def add_text(group: zarr.Group, name: str, values: tuple[str, ...], shard: int) -> None:
    """Create and fill the coordinate of names, as variable-length UTF-8."""
    array = group.create_array(
        name,
        shape=(len(values),),
        dtype="str",
        chunks=(shard,),
        compressors=[ZstdCodec(level=3), Crc32cCodec()],
        dimension_names=("sample",),
        config=ALL_CHUNKS,
    )
    array[:] = np.array(values, dtype=np.dtypes.StringDType())

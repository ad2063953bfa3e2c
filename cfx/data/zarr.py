"""Images in a zarr store: an array `(n, c, *space)`, with arrays of labels and names beside it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cfx.core.errors import InputError
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.pixels import full_range, scale
from cfx.data.table import labels_of, some

# What zarr, its codecs and the file system raise for a damaged or unreachable chunk.
_FAILURES = (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError)


class ZarrConfig(BaseModel):
    """Arrays of a zarr store, one entry a row; of an atlas, say (`factual`, `label` and `sample`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["zarr"] = "zarr"
    path: Path
    """The store, a group."""
    images: str = "images"
    """Array of images `(n, c, h, w)` or `(n, c, d, h, w)`. What is read at a time is one of its chunks along n."""
    labels: str | None = None
    """Array of labels: classes `(n,)`, or several 0/1 labels a row `(n, k)`; null for none."""
    ids: str | None = None
    """Array of names; by default rows are numbered."""
    value_range: tuple[float, float] | None = None
    """The values that become -1 and 1; needed unless the images are uint8, uint16 or boolean."""
    classes: tuple[str, ...] = ()
    """Names of the classes, in label order."""
    lazy: bool = False
    """Read a chunk when it is asked for, instead of all at once (`cfx train`, `cfx explain`)."""


def open_zarr(config: ZarrConfig) -> LazyCohort:
    """The store, each chunk of images read when asked for.

    Raises:
        InputError: no store, an array that is not there (the message lists the arrays), of another shape, dtype or
            number of rows; when it is read: a damaged chunk, or values outside the range.
    """
    arrays = _arrays(config.path)
    images = _named(arrays, config.images, "images", config)
    if images.ndim not in (4, 5) or not images.size:
        raise InputError(f"images: expected (n, c, h, w) or (n, c, d, h, w) in {config.path}, got {images.shape}")
    value_range = config.value_range or full_range(images.dtype)
    if value_range is None:
        raise InputError(f"images of dtype {images.dtype} need a value_range (the values that become -1 and 1)")
    labels, names = (_beside(arrays, config, what, images.shape[0]) for what in ("labels", "ids"))
    y = None if labels is None else labels_of(labels, config.classes, "labels")
    ids = tuple(map(str, range(images.shape[0]) if names is None else names.tolist()))

    def read(rows: slice) -> Columns:
        return {"x": scale(_read(images, rows, config.path), value_range, config.images)}

    return LazyCohort(read, ids, y, classes=list(config.classes), block=images.chunks[0])


def _arrays(path: Path) -> dict[str, Any]:
    """The arrays of a store by name."""
    import zarr

    try:
        return dict(zarr.open_group(path, mode="r").arrays())
    except _FAILURES as error:
        raise InputError(f"path: expected a zarr group, found none at {path} ({error})") from error


def _named(arrays: dict[str, Any], name: str, what: str, config: ZarrConfig) -> Any:  # noqa: ANN401
    if name not in arrays:
        raise InputError(f"{what}: no array {name!r} in {config.path}; it has {some(sorted(arrays), 40)}")
    return arrays[name]


def _beside(
    arrays: dict[str, Any], config: ZarrConfig, what: Literal["labels", "ids"], n: int
) -> npt.NDArray[Any] | None:
    """The array of labels or names, None where none is configured."""
    name = config.labels if what == "labels" else config.ids
    if name is None:
        return None
    found = _read(_named(arrays, name, what, config), slice(None), config.path)
    if len(found) != n:
        raise InputError(f"{what}: expected {n} entries in {name!r} of {config.path}, got {len(found)}")
    return found


def _read(array: Any, rows: slice, path: Path) -> npt.NDArray[Any]:  # noqa: ANN401
    """Some rows of an array."""
    try:
        return np.asarray(array[rows])
    except _FAILURES as error:
        raise InputError(f"{path}: rows {rows.start} to {rows.stop} of {array.name} are damaged ({error})") from error

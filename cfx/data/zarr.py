"""Images in a zarr store: an array `(n, c, *space)`, with arrays of labels and names beside it."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from cfx.core.errors import InputError
from cfx.data.classes import ClassNames, labels_of
from cfx.data.layout import Layout, channels_first, move_channels
from cfx.data.lazy import Columns, LazyCohort
from cfx.data.pixels import range_of, scale
from cfx.data.table import some
from cfx.runtime.config import UserPath

# What zarr, its codecs and the file system raise for a damaged or unreachable chunk.
_FAILURES = (OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError)


class ZarrConfig(BaseModel):
    """Arrays of a zarr store, one entry a row; of an atlas, say (`factual`, `label` and `sample`)."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    kind: Literal["zarr"] = "zarr"
    path: UserPath
    """The store, a group."""
    images: str = "images"
    """Array of images `(n, c, h, w)` or `(n, c, d, h, w)`. What is read at a time is one of its chunks along n."""
    layout: Layout | None = None
    """Axes of the images where they are others: n rows, c channels, d, h, w in space. Needed for more than 4
    channels, which might be something else."""
    labels: str | None = None
    """Array of labels: classes `(n,)`, or several 0/1 labels a row `(n, k)`; null for none."""
    ids: str | None = None
    """Array of names; by default rows are numbered."""
    value_range: tuple[float, float] | None = None
    """The values that become -1 and 1; needed unless the images are uint8, uint16 or boolean."""
    classes: ClassNames = ()
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
    layout = channels_first(images.shape, config.layout, f"{config.path}: {config.images}")
    value_range = range_of(
        _read(images, slice(0, 1), config.path), config.value_range, f"{config.path}: {config.images}"
    )
    labels, names = (_beside(arrays, config, what, images.shape[0]) for what in ("labels", "ids"))
    y = None if labels is None else labels_of(labels, config.classes, f"{config.path}: {config.labels}")
    ids = tuple(map(str, range(images.shape[0]) if names is None else names.tolist()))

    def read(rows: slice) -> Columns:
        x = scale(_read(images, rows, config.path), value_range, config.images)
        return {"x": move_channels(x, layout).contiguous()}

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

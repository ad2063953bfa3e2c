"""One configuration type for every source of images, and the two functions that read them all."""

import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from cfx.core.cohort import Cohort, Source, spread
from cfx.core.errors import CfxWarning, InputError
from cfx.data.brain import BrainConfig, open_brain
from cfx.data.brain_readers import BrainReadersConfig, open_brain_readers
from cfx.data.lazy import LazyCohort
from cfx.data.lidc import LidcConfig, open_lidc
from cfx.data.nifti import NiftiConfig, open_nifti
from cfx.data.npz import NpzConfig, open_npz
from cfx.data.png import PngConfig, open_png
from cfx.data.zarr import ZarrConfig, open_zarr
from cfx.runtime.config import Frozen, check

DataConfig = Annotated[
    BrainConfig | BrainReadersConfig | LidcConfig | NpzConfig | PngConfig | NiftiConfig | ZarrConfig,
    Field(discriminator="kind"),
]
"""A source of images; in YAML the key `kind` (brain, brain-readers, lidc, npz, png, nifti or zarr) says which."""

_LOOKED_AT = 4  # images of those that are not all read at once
_LEAST_SPAN = 0.1  # of the whole range; 12-bit images stored in 16 bits span 0.06


class _Images(Frozen):
    """A source of images alone, to check plain values as."""

    data: DataConfig


def load_cohort(config: DataConfig | Mapping[str, Any]) -> Cohort:
    """Read or simulate the images that a configuration names, all of them in memory.

    Args:
        config: One of the classes, or a mapping of its keys as in YAML: `{"kind": "npz", "path": "images.npz"}`.

    Raises:
        InputError: a key or value that is no part of that kind; as the reader of that kind (`open_brain`, `open_lidc`,
            `open_npz`, `open_png`, `open_nifti`, `open_zarr`); or `lazy` is asked for where all are needed at once.
    """
    config = _checked(config)
    if config.lazy:
        raise InputError("lazy: expected false, since all images are needed at once here; got true")
    cohort = _opened(config).load()
    _check_span(cohort)
    return cohort


def open_cohort(config: DataConfig | Mapping[str, Any]) -> Source:
    """The images that a configuration names, in memory, or read as rows are asked for where it says `lazy`.

    Of the latter a few are read at once, to see whether their range fits.

    Args:
        config: As `load_cohort` takes it.

    Raises:
        InputError: as `load_cohort`.
    """
    config = _checked(config)
    if not config.lazy:
        return load_cohort(config)
    source = _opened(config)
    _check_span(source[spread(len(source), _LOOKED_AT)])
    return source


def _checked(config: DataConfig | Mapping[str, Any]) -> DataConfig:
    """One of the classes, of a mapping of its keys too."""
    return check(_Images, {"data": config}, "data").data if isinstance(config, Mapping) else config


def _check_span(cohort: Cohort) -> None:
    """Say where all images together use so little of their range that it was probably meant to be another one.

    Warns:
        CfxWarning: they do.
    """
    low, high = (float(cohort.x.amin()), float(cohort.x.amax())) if len(cohort) else (0.0, 0.0)
    if 1e-6 < high - low < 2 * _LEAST_SPAN:
        warnings.warn(
            f"images: all pixels lie in [{low:.3g}, {high:.3g}] of [-1, 1]; do `value_range` or `window` fit the data?",
            CfxWarning,
            stacklevel=3,
        )


def _opened(config: DataConfig) -> LazyCohort:
    """The source of that kind; nothing is read yet."""
    match config:
        case NpzConfig():
            return open_npz(config)
        case PngConfig():
            return open_png(config)
        case NiftiConfig():
            return open_nifti(config)
        case ZarrConfig():
            return open_zarr(config)
        case LidcConfig():
            return open_lidc(config)
        case BrainReadersConfig():
            return open_brain_readers(config)
        case BrainConfig():
            return open_brain(config)

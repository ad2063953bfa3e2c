"""Cohorts of images: simulated brains, lung lesions as four readers drew them, and one's own NIfTI, PNG, NPZ, zarr.

Like the names of `cfx`, those below load on first use: reading a folder of PNG needs no brain template.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfx.core.cohort import Cohort as Cohort
    from cfx.data.brain import BrainConfig as BrainConfig
    from cfx.data.brain_readers import BrainReadersConfig as BrainReadersConfig
    from cfx.data.config import DataConfig as DataConfig
    from cfx.data.config import load_cohort as load_cohort
    from cfx.data.config import open_cohort as open_cohort
    from cfx.data.export import to_nifti as to_nifti
    from cfx.data.lidc import LidcConfig as LidcConfig
    from cfx.data.nifti import NiftiConfig as NiftiConfig
    from cfx.data.npz import NpzConfig as NpzConfig
    from cfx.data.png import PngConfig as PngConfig
    from cfx.data.zarr import ZarrConfig as ZarrConfig

_HOME = {
    "BrainConfig": "cfx.data.brain",
    "BrainReadersConfig": "cfx.data.brain_readers",
    "Cohort": "cfx.core.cohort",
    "DataConfig": "cfx.data.config",
    "LidcConfig": "cfx.data.lidc",
    "NiftiConfig": "cfx.data.nifti",
    "NpzConfig": "cfx.data.npz",
    "PngConfig": "cfx.data.png",
    "ZarrConfig": "cfx.data.zarr",
    "load_cohort": "cfx.data.config",
    "open_cohort": "cfx.data.config",
    "to_nifti": "cfx.data.export",
}

__all__ = [
    "BrainConfig",
    "BrainReadersConfig",
    "Cohort",
    "DataConfig",
    "LidcConfig",
    "NiftiConfig",
    "NpzConfig",
    "PngConfig",
    "ZarrConfig",
    "load_cohort",
    "open_cohort",
    "to_nifti",
]


def __getattr__(name: str) -> object:
    """Fetch a public name from the file it lives in.

    Raises:
        AttributeError: the name is not one of `__all__`.
    """
    if name not in _HOME:
        raise AttributeError(f"module 'cfx.data' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)

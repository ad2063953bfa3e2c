"""One configuration type for every source of images, and the one function that reads them all."""

from typing import Annotated

from pydantic import Field

from cfx.core.cohort import Cohort, Source
from cfx.data.brain import BrainConfig, load_brain
from cfx.data.nifti import NiftiConfig, load_nifti
from cfx.data.npz import NpzConfig, load_npz
from cfx.data.png import PngConfig, load_png

DataConfig = Annotated[BrainConfig | NpzConfig | PngConfig | NiftiConfig, Field(discriminator="kind")]
"""A source of images; in YAML the key `kind` (brain, npz, png or nifti) says which."""


def load_cohort(config: DataConfig) -> Cohort:
    """Read or simulate the images that a configuration names.

    Raises:
        InputError: as the reader of that kind (`load_brain`, `load_npz`, `load_png`, `load_nifti`).
    """
    match config:
        case NpzConfig():
            return load_npz(config)
        case PngConfig():
            return load_png(config)
        case NiftiConfig():
            return load_nifti(config)
        case BrainConfig():
            return load_brain(config)


def open_cohort(config: DataConfig) -> Source:
    """The images that a configuration names, to be read as rows are asked for.

    Raises:
        InputError: as `load_cohort`.
    """
    return load_cohort(config)

"""Segmentation as a distribution: what several experts would have drawn, and how near drawn masks come to it."""

import cfx.segmentation.meanings  # noqa: F401 - puts this room's metrics into the catalogue
from cfx.segmentation.result import Drawn, Segmentations
from cfx.segmentation.sample import sample_masks
from cfx.segmentation.select import representative

__all__ = ["Drawn", "Segmentations", "representative", "sample_masks"]

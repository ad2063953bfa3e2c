"""Segmentation as a distribution: what several experts would have drawn, and how near drawn masks come to it."""

from cfx.segmentation.result import Drawn, Segmentations
from cfx.segmentation.sample import sample_masks

__all__ = ["Drawn", "Segmentations", "sample_masks"]

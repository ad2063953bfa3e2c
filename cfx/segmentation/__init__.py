"""Segmentation distributions: which masks several experts would have drawn of an image."""

import cfx.segmentation.meanings  # noqa: F401 - puts this room's metrics into the catalogue

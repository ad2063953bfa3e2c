"""Detectors that ask how far the features of an image are from those of the images they are fitted to."""

"""Detectors that ask how sure a classifier is."""

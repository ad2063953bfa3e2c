"""Conformal prediction: sets, intervals and masks that keep a promised level with any network, in finite samples."""

from cfx.conformal.classification import APS, LAC, RAPS, Calibrated, Conformal, Mondrian
from cfx.conformal.result import Certainty, Intervals, PredictionSets

__all__ = ["APS", "LAC", "RAPS", "Calibrated", "Certainty", "Conformal", "Intervals", "Mondrian", "PredictionSets"]

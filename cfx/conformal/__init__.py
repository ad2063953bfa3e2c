"""Conformal prediction: sets, intervals and masks that keep a promised level with any network, in finite samples."""

from cfx.conformal.acceptance import Acceptance, Accepted, accept_counterfactuals
from cfx.conformal.classification import APS, LAC, RAPS, Calibrated, Conformal, Mondrian
from cfx.conformal.regression import CQR, Volumes, volumes_of
from cfx.conformal.result import Certainty, Intervals, PredictionSets
from cfx.conformal.segmentation import ControlledMasks, Margins, RiskControl
from cfx.conformal.weighted import Weighted, covariate_ratios, label_ratios

__all__ = [
    "APS", "CQR", "LAC", "RAPS", "Acceptance", "Accepted", "Calibrated", "Certainty", "Conformal", "ControlledMasks",
    "Intervals", "Margins", "Mondrian", "PredictionSets", "RiskControl", "Volumes", "Weighted",
    "accept_counterfactuals", "covariate_ratios", "label_ratios", "volumes_of",
]  # fmt: skip

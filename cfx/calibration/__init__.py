"""Calibration: do probabilities mean what they say, of images and of voxels, and can one number mend it?"""

from cfx.calibration.measures import (
    accuracy,
    brier,
    classwise_ece,
    debiased_error,
    ece,
    error_to_true_p,
    figures,
    nll,
    reliability,
)
from cfx.calibration.segmentation import ImageCalibration, image_calibration
from cfx.calibration.tally import Tally
from cfx.calibration.temperature import Temperature

__all__ = [
    "ImageCalibration", "Tally", "Temperature", "accuracy", "brier", "classwise_ece", "debiased_error", "ece",
    "error_to_true_p", "figures", "image_calibration", "nll", "reliability",
]  # fmt: skip

"""Out-of-distribution detection: is an image one that the networks should be asked about?"""

from cfx.ood.detector import Detector, Scored
from cfx.ood.fit import Fitted, fit, score
from cfx.ood.registry import DETECTORS, build_detector
from cfx.ood.result import Membership, OodScores

__all__ = [
    "DETECTORS", "Detector", "Fitted", "Membership", "OodScores", "Scored", "build_detector", "fit", "score",
]  # fmt: skip

"""Out-of-distribution detection: is an image one that the networks should be asked about?"""

from cfx.ood.detector import Detector, Scored
from cfx.ood.fit import Fitted, fit, score
from cfx.ood.kind import kind_of_shift
from cfx.ood.registry import DETECTORS, build_detector
from cfx.ood.result import Membership, OodScores
from cfx.ood.shifted import Kind, Shifted

__all__ = [
    "DETECTORS", "Detector", "Fitted", "Kind", "Membership", "OodScores", "Scored", "Shifted", "build_detector", "fit",
    "kind_of_shift", "score",
]  # fmt: skip

"""Results that an atlas can hold, by the name of their class; a class is imported when it is first asked for."""

from importlib import import_module

from cfx.core.errors import AtlasError
from cfx.core.rows import Rows

KINDS = {
    "Accepted": "cfx.conformal.acceptance",
    "Attributions": "cfx.attribution.result",
    "ControlledMasks": "cfx.conformal.segmentation",
    "Counterfactuals": "cfx.counterfactual.result",
    "Hits": "cfx.commands.bench.remedies",
    "ImageCalibration": "cfx.calibration.segmentation",
    "Intervals": "cfx.conformal.result",
    "Measurements": "cfx.counterfactual.metrics.rows",
    "OodScores": "cfx.ood.result",
    "PredictionSets": "cfx.conformal.result",
    "Scores": "cfx.confounder.intervention",
    "Segmentations": "cfx.segmentation.result",
    "Sensitivity": "cfx.confounder.observed.sensitivity",
}
"""Name of each class of results, and the module it is in."""


def kind_of(name: str) -> type[Rows]:
    """The class of results called `name`.

    Raises:
        AtlasError: there is none.
    """
    if name not in KINDS:
        raise AtlasError(f"expected an atlas of {' or '.join(KINDS)}, got one of {name}")
    found: type[Rows] = getattr(import_module(KINDS[name]), name)
    return found

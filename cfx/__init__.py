"""Counterfactual explanations of image classifiers: what a classifier is right about, and for what reason.

The names below load on first use, so that `import cfx` is quick and pulls in neither torch nor its ecosystem.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cfx import attribution as attribution
    from cfx import calibration as calibration
    from cfx import conformal as conformal
    from cfx import ood as ood
    from cfx import report as report
    from cfx import segmentation as segmentation
    from cfx.atlas import read_atlas as read_atlas
    from cfx.atlas import write_atlas as write_atlas
    from cfx.attribution import attribute as attribute
    from cfx.confounder.audit import audit as audit
    from cfx.core.cohort import Cohort as Cohort
    from cfx.counterfactual import explain as explain
    from cfx.counterfactual.result import Counterfactuals as Counterfactuals
    from cfx.data.config import load_cohort as load_cohort
    from cfx.models.adapt import adapt as adapt
    from cfx.models.opening import load as load
    from cfx.report.page import write_report as write_report

    __version__: str

_HOME = {
    "Cohort": "cfx.core.cohort",
    "Counterfactuals": "cfx.counterfactual.result",
    "adapt": "cfx.models.adapt",
    "attribute": "cfx.attribution",
    "audit": "cfx.confounder.audit",
    "explain": "cfx.counterfactual",
    "load": "cfx.models.opening",
    "load_cohort": "cfx.data.config",
    "read_atlas": "cfx.atlas",
    "write_atlas": "cfx.atlas",
    "write_report": "cfx.report.page",
}

_ROOMS = ("attribution", "calibration", "conformal", "ood", "report", "segmentation")
"""Rooms that are asked by their name: `cfx.ood.fit`."""

__all__ = [
    "Cohort", "Counterfactuals", "__version__", "adapt", "attribute", "attribution", "audit", "calibration",
    "conformal", "explain", "load", "load_cohort", "ood", "read_atlas", "report", "segmentation", "write_atlas",
    "write_report",
]  # fmt: skip


def __getattr__(name: str) -> object:
    """Fetch a public name from the room it lives in.

    Raises:
        AttributeError: the name is not one of `__all__`.
    """
    if name == "__version__":
        return import_module("importlib.metadata").version("cfx")
    if name in _ROOMS:
        return import_module(f"cfx.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'cfx' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    """The public names, for completion."""
    return sorted(__all__)

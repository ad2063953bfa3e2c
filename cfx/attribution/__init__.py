"""Attribution: where a classifier looks, told apart from what a change would be."""

from cfx.attribution.attribute import BASELINES, attribute
from cfx.attribution.captum_adapter import Captum
from cfx.attribution.method import Found, Method, Question
from cfx.attribution.registry import ATTRIBUTIONS, build_attribution
from cfx.attribution.result import TOLERANCE, Attributions, Completeness

__all__ = [
    "ATTRIBUTIONS", "BASELINES", "TOLERANCE", "Attributions", "Captum", "Completeness", "Found", "Method", "Question",
    "attribute", "build_attribution",
]  # fmt: skip

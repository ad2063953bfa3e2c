"""Counterfactual explanations: the smallest realistic change of an image that changes a classifier's mind."""

import cfx.counterfactual.meanings  # noqa: F401 - puts this room's metrics into the catalogue
from cfx.counterfactual.diverse import diverse
from cfx.counterfactual.explain import Depth, explain, explain_batches
from cfx.counterfactual.method import Method
from cfx.counterfactual.minimal import Minimal
from cfx.counterfactual.registry import METHODS, build_method
from cfx.models.goal import typical_margins
from cfx.models.judge import Judge
from cfx.models.wrappers import Finding, Near

__all__ = [
    "METHODS", "Depth", "Finding", "Judge", "Method", "Minimal", "Near", "build_method", "diverse",
    "explain", "explain_batches", "typical_margins",
]  # fmt: skip

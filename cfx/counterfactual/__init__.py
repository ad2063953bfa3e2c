"""Counterfactual explanations: the smallest realistic change of an image that changes a classifier's mind."""

from cfx.counterfactual.explain import Depth, explain
from cfx.counterfactual.judge import Finding, Judge, typical_margins
from cfx.counterfactual.minimal import Minimal

__all__ = ["Depth", "Finding", "Judge", "Minimal", "explain", "typical_margins"]

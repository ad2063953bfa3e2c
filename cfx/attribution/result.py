"""What an attribution returns: a map of every image, what it sums to, and whether that is what it promises."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.codes import Code
from cfx.core.rows import Rows, about

TOLERANCE = 1e-4
"""Largest completeness error of a map that is called complete."""


class Completeness(Code):
    """Whether a map sums to what it divides up; `meaning` says it in a sentence."""

    COMPLETE = 0, "The map, and what biases hold, sum to the change of the output, to a relative 1e-4."
    INCOMPLETE = 1, "They do not: the quadrature is too coarse, or an operation hides its nonlinearity."
    UNDEFINED = 2, "The theory promises no sum: of this method, or for an operation of this network."
    REFUSED = 3, "No map can be had of this image; it is zero."


@dataclass(frozen=True)
class Attributions(Rows):
    """Where a classifier looks, one row an image: evidence for the target, and against it.

    Attributes:
        map: Positive where the voxel speaks for the target, negative where against; of unsigned methods (saliency,
            difference, controls) how much. `m` channels: those of the image, or one.
        target: Class that the map is about.
        value: Output f(x) that is divided up.
        value_baseline: Output of the baseline; NaN for methods without one.
        bias: What the biases of the network hold and no voxel does (`epsilon-lrp`); 0 elsewhere.
        completeness_error: abs(sum of the map + bias - change) / max(abs(change), a thousandth of the outputs), where
            the change is f(x) - f(baseline), or f(x) of methods without a baseline; NaN where nothing is promised.
        verdict: `Completeness` codes.
        remark: Why a map is undefined or refused; empty where it is not.
        row: Index of the row in the user's input.
        nfe_classifier: Classifier evaluations spent on the row, those of gradients included.
        nfe_classifier_backward: Classifier gradients.
        seconds: Wall-clock seconds spent on the row: an equal share of those of its batch.
        method: Name of the method.
        baseline: Which baseline: a name, `images` or `counterfactual`.
        output: What is divided up: `logit` of the target, or its `margin` over the best other.
    """

    map: Float[Tensor, "n m *space"]
    target: Int[Tensor, " n"]
    value: Float[Tensor, " n"]
    value_baseline: Float[Tensor, " n"]
    bias: Float[Tensor, " n"]
    completeness_error: Float[Tensor, " n"]
    verdict: Int[Tensor, " n"] = field(metadata=about(codes=Completeness))
    remark: tuple[str, ...]
    row: Int[Tensor, " n"]
    nfe_classifier: Int[Tensor, " n"]
    nfe_classifier_backward: Int[Tensor, " n"]
    seconds: Float[Tensor, " n"]
    method: str
    baseline: str
    output: str

    @property
    def verdicts(self) -> tuple[str, ...]:
        """The verdict of every row as a lower-case word."""
        return tuple(Completeness(code).name.lower() for code in self.verdict.tolist())

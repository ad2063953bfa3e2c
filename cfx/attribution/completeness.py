"""How far a map is from summing to what it divides up, and what that says of it.

    error = |sum A + bias - D| / max(|D|, s),    s = (|f(x)| + |f(b)|) / 1000

D is f(x) - f(b), or f(x) of methods without a baseline. Below s a change is lost in the rounding of the outputs, and
would be divided by next to nothing.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cfx.attribution.method import Found, Whole
from cfx.attribution.result import TOLERANCE, Completeness

_SMALL = 1e-3
_NO_RULE = "no rule for "


def error(
    total: Float[Tensor, " b"], whole: Float[Tensor, " b"], at_x: Float[Tensor, " b"], at_baseline: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """Completeness error of maps.

    Args:
        total: Sum of each map and of what goes to biases.
        whole: What it divides up.
        at_x: Outputs of the images.
        at_baseline: Outputs of the baselines.
    """
    return (total - whole).abs() / scale_of(whole, at_x, at_baseline)


def scale_of(
    whole: Float[Tensor, " b"], at_x: Float[Tensor, " b"], at_baseline: Float[Tensor, " b"]
) -> Float[Tensor, " b"]:
    """What an error is relative to, max(|D|, s)."""
    small = _SMALL * (at_x.abs() + at_baseline.abs())
    return torch.maximum(whole.abs(), small).clamp_min(torch.finfo(whole.dtype).tiny)


def verdicts(
    found: Found, wrong: Float[Tensor, " b"], whole: Whole, usable: Tensor
) -> tuple[Int[Tensor, " b"], tuple[str, ...]]:
    """The verdict of every row, and the remark on it.

    Args:
        found: What the method found.
        wrong: The completeness error.
        whole: What the map promises to sum to.
        usable: Rows whose outputs and maps are finite.
    """
    theory = whole != "" and not found.foreign
    otherwise = Completeness.INCOMPLETE if theory else Completeness.UNDEFINED
    code = torch.where(wrong <= TOLERANCE, int(Completeness.COMPLETE), int(otherwise))
    if found.refused:
        usable = torch.zeros_like(usable)
    code = torch.where(usable, code, int(Completeness.REFUSED))
    refused = found.refused or "an output or a gradient that is not finite"
    about = "no sum is promised" if whole == "" else _NO_RULE + ", ".join(sorted(found.foreign))
    said = {Completeness.REFUSED: refused, Completeness.UNDEFINED: about}
    return code, tuple(said.get(Completeness(k), "") for k in code.tolist())

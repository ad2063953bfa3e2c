"""Class priors of unlabelled rows, if all that moved is how common the classes are: q(x | y) = p(x | y).

Black-box shift estimation. A classifier's predictions f of labelled rows have the joint shares C_ij = p(f = i, y = j),
of new rows the shares m_i = q(f = i) = sum_j C_ij w_j with w_j = q(y = j) / p(y = j); hence w = C^-1 m. It needs a
classifier that knows its classes (C has an inverse), not one that is calibrated.

Expectation maximisation. With probabilities p(y | x) under the prior p(y), the likelihood of q(y) is maximised by

    r_ij = p(y = j | x_i) q_j / p_j / (the same summed over j),    q_j <- mean_i r_ij

It uses more than the decision, and asks for calibrated probabilities; so p(y) is taken to be their mean over rows of
the reference (Alexandari et al.), which repairs a common bias.

Weights of rows, one line a resample, give intervals by the Bayesian bootstrap (`core.statistics.row_weights`).

References: Saerens, Latinne, Decaestecker (2002), "Adjusting the outputs of a classifier to new a priori
probabilities"; Lipton, Wang, Smola (2018), "Detecting and correcting for label shift with black box predictors";
Alexandari, Kundaje, Shrikumar (2020), "Maximum likelihood with bias-corrected calibration is hard-to-beat at label
shift adaptation".
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from cfx.core.errors import InputError

_STEPS, _ENOUGH = 1000, 1e-5  # of expectation maximisation: at most so many, until no prior moves by more


def black_box(
    predicted: Int[Tensor, " n"],
    y: Int[Tensor, " n"],
    new: Int[Tensor, " m"],
    k: int,
    weights: Float[Tensor, "draws n"] | None = None,
    new_weights: Float[Tensor, "draws m"] | None = None,
) -> Float[Tensor, "draws k"]:
    """Priors of new rows by black-box shift estimation, put back into [0, 1] where chance takes them out; float64.

    Args:
        predicted: Predicted classes of labelled rows.
        y: Their labels.
        new: Predicted classes of the new rows.
        k: Number of classes.
        weights: Weights of the labelled rows, one line a draw; one draw of equal ones by default.
        new_weights: The same of the new rows.

    Raises:
        InputError: no new row, or a class without labelled rows.
    """
    if absent := sorted(set(range(k)) - set(y.tolist())):
        raise InputError(f"y: expected labelled rows of all {k} classes, got none of {absent}")
    f, own, q = (F.one_hot(v.long(), k).double() for v in (predicted, y, new))
    joint = torch.einsum("dn,ni,nj->dij", _shares(weights, len(y)), f, own)
    told = _shares(new_weights, len(new)) @ q
    ratio = (torch.linalg.pinv(joint) @ told[:, :, None])[:, :, 0]
    prior: Tensor = (ratio * joint.sum(1)).clamp(min=0)
    return prior / prior.sum(1, keepdim=True)


def expectation_maximisation(
    p: Float[Tensor, "m k"], prior: Float[Tensor, " k"], weights: Float[Tensor, "draws m"] | None = None
) -> Float[Tensor, "draws k"]:
    """Priors of new rows of the largest likelihood, float64.

    Args:
        p: Class probabilities of the new rows.
        prior: Mean probabilities of rows of the reference.
        weights: Weights of the new rows, one line a draw; one draw of equal ones by default.

    Raises:
        InputError: no new row, or a class that never has any probability.
    """
    if not bool((prior > 0).all()):
        raise InputError(f"prior: expected every class to have some probability, got {prior.tolist()}")
    w, ratio = _shares(weights, len(p)), p.double() / prior.double()
    found = prior.double().expand(len(w), -1)
    for _ in range(_STEPS):
        part = ratio * found[:, None]
        again = torch.einsum("dm,dmk->dk", w, part / part.sum(2, keepdim=True))
        moved, found = float((again - found).abs().max()), again
        if moved < _ENOUGH:
            break
    return found


def _shares(weights: Tensor | None, n: int) -> Float[Tensor, "draws n"]:
    """Weights of sum 1 in every draw.

    Raises:
        InputError: no row.
    """
    if not n:
        raise InputError("new: expected at least one row, got none")
    w = torch.ones(1, n, dtype=torch.float64) if weights is None else weights.double()
    return w / w.sum(1, keepdim=True)

"""Are the columns of a classifier in another order than the numbers of the labels?

Half of all data sets call the diseased class 0, and a classifier whose columns are exchanged looks like a bad one until
its mistakes are looked at: they are the same ones for all images of a class. With S[k, j] the share of the labelled
images of class k that are decided as j, the order is the permutation pi that maximises sum_k S[k, pi(k)], an assignment
problem (Kuhn 1955). It is said to be another one only where

    it explains far more    images right under pi and not as they are, against the reverse: an exact sign test
    it explains well        the skill under pi is shown, and above one half
    it holds for all        each class that moves is mostly decided as pi says

so that a classifier that is merely bad, or takes one class for another, keeps its order. What is asked need not be a
classifier: a generator that knows labels decides by the label under which it denoises best (Li et al. 2023, "Your
diffusion model is secretly a zero-shot classifier").
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.stats import binomtest
from torch import Tensor

from cfx.models.competence import competence_of

_NO_CHANCE = 1e-3  # p of the sign test between the two orders
_WELL = 0.5  # skill under the other order
_MOSTLY = 0.6  # share of a class that is decided as the other order says


def exchanged_order(
    logits: Float[Tensor, "n k"], y: Int[Tensor, " n"], groups: Int[Tensor, " n"] | None = None
) -> tuple[int, ...] | None:
    """The columns that the classes 0 .. k-1 are in, if these are not the columns 0 .. k-1; else None.

    Args:
        logits: What is said of labelled images, one column a class; the largest wins.
        y: Their classes; negative where not known.
        groups: Subject of every image; None where every one is one.

    Returns:
        Entry c is the column that says class c. None also where there are labels beyond the columns.
    """
    k, known = logits.shape[1], y >= 0
    logits, y = logits[known], y[known]
    if not len(y) or int(y.max()) >= k:
        return None
    decided = logits.argmax(1)
    share = torch.stack([decided[y == c].bincount(minlength=k) / (y == c).sum().clamp(min=1) for c in range(k)])
    order = torch.as_tensor(linear_sum_assignment(-(share + 1e-6 * torch.eye(k)).numpy())[1])  # a tie moves nothing
    moved = (order != torch.arange(k)).nonzero().flatten()
    there = torch.stack([(y == c).any() for c in range(k)])
    if not len(moved) or bool((share[moved, order[moved]] < _MOSTLY)[there[moved]].any()):
        return None
    skill = competence_of(logits[:, order], y, None if groups is None else groups[known])
    well = skill is not None and skill.shown and skill.skill.value > _WELL
    return tuple(order.tolist()) if well and _far_more(decided == order[y], decided == y) else None


def _far_more(one: Tensor, other: Tensor) -> bool:
    """Whether one way is right where the other is not so much more often than the reverse that it is no chance."""
    won, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return won > lost and bool(binomtest(won, won + lost, alternative="greater").pvalue < _NO_CHANCE)


def both_orders(order: Sequence[int], names: Sequence[str]) -> str:
    """The order of the labels and that of the columns in words.

    Args:
        order: As `exchanged_order` returns it.
        names: Names of the classes; empty where they have none.
    """
    said = list(names) if len(names) == len(order) else [f"class {c}" for c in range(len(order))]
    columns = [said[order.index(j)] for j in range(len(order))]
    return f"the labels count {', '.join(said)}, its columns {', '.join(columns)}"

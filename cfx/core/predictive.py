"""Uncertainty of a prediction that several members make: an ensemble, dropout masks, posterior draws, augmentations.

With p_m(y | x) the probabilities of member m and p = mean_m p_m, all in nats:

    total       H(p)                   entropy of the mean
    aleatoric   mean_m H(p_m)          what the members agree to be uncertain of
    epistemic   H(p) - mean_m H(p_m)   mutual information of label and member: what they disagree about

The last is the mean Kullback-Leibler divergence of the members from their mean, so it is at least 0, 0 only where all
agree, and at most the logarithm of the number of members or of classes, whichever is less.

References: Depeweg, Hernandez-Lobato, Doshi-Velez, Udluft (2018), "Decomposition of uncertainty in Bayesian deep
learning"; Houlsby, Huszar, Ghahramani, Lengyel (2011), "Bayesian active learning for classification".
"""

import torch
from jaxtyping import Float
from torch import Tensor


def entropy(p: Float[Tensor, "*n k"]) -> Float[Tensor, "*n"]:
    """-sum_k p_k log p_k in nats, with 0 log 0 = 0.

    Args:
        p: Probabilities, the classes along the last axis.
    """
    h: Tensor = torch.special.entr(p).sum(-1)
    return h


def expected_entropy(members: Float[Tensor, "m *n k"]) -> Float[Tensor, "*n"]:
    """Mean entropy of the members in nats.

    Args:
        members: Probabilities of every member, the classes along the last axis.
    """
    return entropy(members).mean(0)


def mutual_information(members: Float[Tensor, "m *n k"]) -> Float[Tensor, "*n"]:
    """What the members disagree about, mean_m KL(p_m || p) in nats, never below 0 but for rounding.

    Summed as p ((1 + r) log(1 + r) - r) with r = p_m / p - 1, since the r add up to nothing: no term is negative and
    all vanish where the members agree, while a difference of two entropies is left with their rounding.

    Args:
        members: Probabilities of every member, the classes along the last axis.
    """
    mean = members.mean(0)
    r = torch.where(mean > 0, (members - mean) / mean.clamp_min(torch.finfo(mean.dtype).tiny), 0.0)
    apart: Tensor = mean * (torch.special.xlog1py(1 + r, r) - r)
    return apart.sum(-1).mean(0)

"""How good scores, decisions, masks and forecasts are, in closed form.

    AUROC                P(s+ > s-) + P(s+ = s-) / 2 of a positive and a negative drawn at random (Mann and Whitney)
    average precision    sum over thresholds of precision times the rise of recall, no interpolation
    balanced accuracy    mean over classes of the share that is decided right
    Dice                 2 |a and b| / (|a| + |b|)
    log-loss             -log p(y)
    CRPS                 E|X - y| - E|X - X'| / 2 of independent draws X, X' of the forecast
    pinball loss         max(tau (y - q), (tau - 1) (y - q)), least on average where q is the tau-quantile of y

The last three are proper: no forecast does better on average than the truth (so is the Brier score, in
`cfx.core.calibration`). In the pinball loss the argument is y - q: with q - y it finds the quantile of
1 - tau.

References: Hanley and McNeil (1982) for the area under the ROC curve; Dice (1945); Koenker and Bassett (1978),
"Regression quantiles"; Gneiting and Raftery (2007), "Strictly proper scoring rules, prediction, and estimation"; Ferro
(2014), "Fair scores for ensemble forecasts".
"""

import math

import torch
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from cfx.core.overlap import dice_of, overlaps


def auroc(
    score: Float[Tensor, "*#m n"], positive: Bool[Tensor, "*#m n"], weight: Float[Tensor, "*#m n"] | None = None
) -> Float[Tensor, "*m"]:
    """Area under the ROC curve, ties counted half, float64; NaN where there is no positive or no negative.

    Args:
        score: Scores, higher for positives.
        positive: Which rows are positive.
        weight: Weight of every row, how often a resample drew it, say; 1 by default. Leading axes broadcast.
    """
    rising, order = score.sort(dim=-1)
    first, last = _ties(rising)
    weight = torch.ones_like(score, dtype=torch.float64) if weight is None else weight.double()
    up, down = torch.where(positive, weight, 0.0), torch.where(positive, 0.0, weight)
    up, down, order, first, last = torch.broadcast_tensors(up, down, order, first, last)
    up, down = up.gather(-1, order), down.gather(-1, order)
    passed = down.cumsum(-1)  # negatives so far
    below = (passed - down).gather(-1, first) + passed.gather(-1, last)  # twice those below, ties half
    area: Tensor = (up * below).sum(-1) / (2 * up.sum(-1) * down.sum(-1))
    return area


def false_alarms_at(score: Float[Tensor, " n"], positive: Bool[Tensor, " n"], found: float) -> float:
    """Share of the negatives at or above the highest threshold that at least a share `found` of the positives reaches.

    With .95 it is called FPR95. NaN where there is no positive or no negative.

    Args:
        score: Scores, higher for positives.
        positive: Which rows are positive.
        found: Share of the positives, in (0, 1].
    """
    high, low = score[positive].sort(descending=True).values, score[~positive]
    if not len(high) or not len(low):
        return float("nan")
    return float((low >= high[math.ceil(found * len(high) - 1e-9) - 1]).double().mean())


def average_precision(score: Float[Tensor, "b n"], truth: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Area under the precision-recall curve of each row, by the step rule; tied scores count as one threshold.

    NaN where a row has no positive.
    """
    score, order = score.sort(dim=1, descending=True)
    hit = truth.gather(1, order).double()
    caught, seen = hit.cumsum(1), torch.arange(1, hit.shape[1] + 1, dtype=torch.float64)
    precision = (caught / seen).gather(1, _ties(score)[1])  # at a threshold it is read after its last tie
    return ((precision * hit).sum(1) / caught[:, -1]).float()


def _ties(ordered: Float[Tensor, "*m n"]) -> tuple[Int[Tensor, "*m n"], Int[Tensor, "*m n"]]:
    """Places of the first and of the last value that equals each one, of sorted values."""
    n = ordered.shape[-1]
    place, change = torch.arange(n), ordered.diff(dim=-1) != 0
    edge = torch.ones_like(ordered[..., :1], dtype=torch.bool)
    first = torch.where(torch.cat([edge, change], -1), place, 0).cummax(-1).values
    last = torch.where(torch.cat([change, edge], -1), place, n).flip(-1).cummin(-1).values.flip(-1)
    return first, last


def class_weights(y: Shaped[Tensor, "*m n"]) -> Float[Tensor, "*m n"]:
    """What turns a mean over rows into a mean over classes, n / (k n_y) of k classes, float64; its own mean is 1.

    Args:
        y: Classes, each line a labelling of its own in which all of them occur (elsewhere the weights are NaN).
    """
    classes = [y == k for k in y.unique()]
    return torch.stack([c / c.double().mean(-1, keepdim=True) for c in classes]).mean(0)


def balanced_accuracy(right: Shaped[Tensor, "*m n"], y: Shaped[Tensor, "*m n"]) -> Float[Tensor, "*m"]:
    """Mean over the classes that occur of the share decided right, float64.

    Args:
        right: Whether each decision is right: true or false, or 1, 0 and a half for no decision.
        y: Classes, as in `class_weights`.
    """
    return (class_weights(y) * right).mean(-1)


def dice(a: Bool[Tensor, "n ..."], b: Bool[Tensor, "n ..."]) -> Float[Tensor, " n"]:
    """Dice overlap of two masks, row by row; 1 where both are empty."""
    a, b = a.flatten(1), b.flatten(1)
    return dice_of((a & b).sum(1), a.sum(1), b.sum(1))


def pairwise_dice(a: Bool[Tensor, "n ..."], b: Bool[Tensor, "m ..."]) -> Float[Tensor, "n m"]:
    """Dice overlap of every mask of one set with every one of another."""
    return overlaps(a[None], b[None]).dice[0].float()


def log_loss(probability: Float[Tensor, "*n k"], y: Int[Tensor, "*n"]) -> Float[Tensor, "*n"]:
    """Log-loss in nats of every forecast; infinite where what happened had probability 0."""
    return -probability.gather(-1, y[..., None])[..., 0].log()


def pinball_loss(q: Float[Tensor, "..."], y: Float[Tensor, "..."], tau: float) -> Float[Tensor, "..."]:
    """Pinball loss of forecasts q of the tau-quantile, in the units of y."""
    return torch.maximum(tau * (y - q), (tau - 1) * (y - q))


def crps(draws: Float[Tensor, "*n s"], y: Float[Tensor, "*n"], *, fair: bool = False) -> Float[Tensor, "*n"]:
    """Continuous ranked probability score of forecasts given as draws, in the units of y; lower is better.

    Args:
        draws: Draws of every forecast.
        y: What happened.
        fair: Without the bias of finitely many draws, which is E|X - X'| / 2 s: the mean over pairs is taken over
            different draws (Ferro 2014); needs two. By default the draws themselves are the forecast.
    """
    s = draws.shape[-1]
    rank = torch.arange(1, s + 1, dtype=draws.dtype, device=draws.device)
    apart = ((2 * rank - s - 1) * draws.sort(dim=-1).values).sum(-1)  # half the sum of |X - X'| over ordered pairs
    return (draws - y[..., None]).abs().mean(-1) - apart / (s * (s - 1 if fair else s))

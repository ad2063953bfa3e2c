"""Small statistics on per-row values: bootstrap intervals and average precision."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from cfx.core.errors import InputError
from cfx.core.random import uniform


def bootstrap_interval(
    values: Shaped[Tensor, "n ..."],
    statistic: Callable[[Tensor], Tensor] = lambda v: v.double().mean(1),
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """Percentile bootstrap interval over rows (Efron 1979).

    Args:
        values: One entry a row; columns of a row stay together, so a statistic of several columns is paired.
        statistic: Resampled values `(draws, n, ...)` to `(draws,)`; the mean by default.
        draws: Resamples.
        level: Coverage.
        seed: Seed of the resampling.

    Raises:
        InputError: no rows, or `level` outside (0, 1).
    """
    if len(values) == 0:
        raise InputError("values: expected at least one row, got none")
    if not 0 < level < 1:
        raise InputError(f"level: expected a number in (0, 1), got {level}")
    n = len(values)
    chosen = (uniform((n,), seed=seed, row=torch.arange(draws), stream=0).double() * n).long().clamp(max=n - 1)
    found = statistic(values[chosen]).double()
    low, high = found.quantile(torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)).tolist()
    return low, high


def average_precision(score: Float[Tensor, "b n"], truth: Bool[Tensor, "b n"]) -> Float[Tensor, " b"]:
    """Area under the precision-recall curve of each row, by the step rule; tied scores count as one threshold.

    NaN where a row has no positive.
    """
    score, order = score.sort(dim=1, descending=True)
    hit = truth.gather(1, order).double()
    caught, seen = hit.cumsum(1), torch.arange(1, hit.shape[1] + 1, dtype=torch.float64)
    # precision at a threshold is read after its last tie
    last = torch.cat([score[:, 1:] != score[:, :-1], torch.ones_like(truth[:, :1])], 1)
    at = torch.where(last, torch.arange(hit.shape[1]), hit.shape[1]).flip(1).cummin(1).values.flip(1)
    precision = (caught / seen).gather(1, at)
    return ((precision * hit).sum(1) / caught[:, -1]).float()

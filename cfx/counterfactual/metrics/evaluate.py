"""Means of the per-row metrics with their bootstrap intervals: one flat row of a table."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.cohort import Cohort
from cfx.core.statistics import bootstrap_interval, paired_ratio
from cfx.counterfactual.metrics.rows import per_row
from cfx.counterfactual.result import Counterfactuals


def evaluate(
    result: Counterfactuals, cohort: Cohort | None = None, *, distances: Sequence[nn.Module] = ()
) -> dict[str, float]:
    """Flat metrics of a result; means have `_low` and `_high` (95 % bootstrap over rows).

    Args:
        result: All rows of a run, failures included.
        cohort: The cohort of the same rows; with `x_true` the error to the truth and the localisation are added.
        distances: Perceptual distances `(x, x_cf) -> (n,)`, reported as `feature_distance`, or as `lpips` if it is one.

    Returns:
        The means of `per_row`, `n`, `nfe_unet_forward_max` and `seconds_per_image`; with truth also
        `error_to_truth_ratio`, the ratio of the means with and without the edit.

    Raises:
        InputError: an empty result, or a cohort of other rows.
    """
    return summarise(per_row(result, cohort, distances=distances))


def summarise(rows: Mapping[str, Float[Tensor, " n"]]) -> dict[str, float]:
    """What `evaluate` returns, of per-row metrics that were measured before."""
    out = {"n": float(len(rows["validity"]))} | means(rows) | _ratio(rows)
    return out | {"nfe_unet_forward_max": float(rows["nfe_unet_forward"].max())}


def means(rows: Mapping[str, Float[Tensor, " n"]]) -> dict[str, float]:
    """Mean of every per-row metric over the rows for which it has a meaning, `_low` and `_high` beside it.

    A metric without a meaning for any row is left out.
    """
    out: dict[str, float] = {}
    for name, values in rows.items():
        some = values[~values.isnan()].double()
        if len(some):
            out[name] = float(some.mean())
            out[f"{name}_low"], out[f"{name}_high"] = bootstrap_interval(some)
    return out


def _ratio(rows: Mapping[str, Tensor]) -> dict[str, float]:
    if "error_to_truth" not in rows or not bool((rows["error_to_truth_no_edit"] > 0).any()):
        return {}
    ratio = paired_ratio(rows["error_to_truth"], rows["error_to_truth_no_edit"])
    name = "error_to_truth_ratio"
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}

"""Means of the per-row metrics with their bootstrap intervals: one flat row of a table."""

from collections.abc import Mapping, Sequence

from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.cohort import Cohort, subjects
from cfx.core.statistics import bootstrap_interval, paired_ratio
from cfx.counterfactual.metrics.rows import per_row
from cfx.counterfactual.result import Counterfactuals

MEDIANS = ("gate_p", "gate_p_before")
"""Metrics of which a summary has the median: a mean of p-values says nothing."""


def evaluate(
    result: Counterfactuals, cohort: Cohort | None = None, *, distances: Sequence[nn.Module] = ()
) -> dict[str, float]:
    """Flat metrics of a result; means have `_low` and `_high` (95 % bootstrap over subjects, or rows without a cohort).

    Args:
        result: All rows of a run, failures included.
        cohort: The cohort of the same rows, which says whose they are (`cfx.core.cohort.subjects`); with `x_true` the
            error to the truth and the localisation are added.
        distances: Perceptual distances `(x, x_cf) -> (n,)`, reported as `feature_distance`, or as `lpips` if it is one.

    Returns:
        The means of `per_row` (medians of p-values), `n`, `nfe_unet_forward_max` and `seconds_per_image`; with truth
        also `error_to_truth_ratio`, the ratio of the means with and without the edit.

    Raises:
        InputError: an empty result, or a cohort of other rows.
    """
    return summarise(per_row(result, cohort, distances=distances), None if cohort is None else subjects(cohort))


def summarise(rows: Mapping[str, Float[Tensor, " n"]], groups: Int[Tensor, " n"] | None = None) -> dict[str, float]:
    """What `evaluate` returns, of per-row metrics that were measured before; `groups` as in `means`."""
    mean = {name: values for name, values in rows.items() if name not in MEDIANS}
    out = {"n": float(len(rows["validity"]))} | means(mean, groups) | medians(rows) | truth_ratio(rows, groups)
    return out | {"nfe_unet_forward_max": float(rows["nfe_unet_forward"].max())}


def means(rows: Mapping[str, Float[Tensor, " n"]], groups: Int[Tensor, " n"] | None = None) -> dict[str, float]:
    """Mean of every per-row metric over the rows for which it has a meaning, `_low` and `_high` beside it.

    A metric without a meaning for any row is left out.

    Args:
        rows: The metrics.
        groups: Subject of every row: intervals are over subjects. None where every row is one.
    """
    out: dict[str, float] = {}
    for name, values in rows.items():
        some = ~values.isnan()
        if bool(some.any()):
            known, of = values[some].double(), None if groups is None else groups[some]
            out[name] = float(known.mean())
            out[f"{name}_low"], out[f"{name}_high"] = bootstrap_interval(known, groups=of)
    return out


def medians(rows: Mapping[str, Float[Tensor, " n"]]) -> dict[str, float]:
    """Median of the metrics of `MEDIANS` over the rows for which they have a meaning."""
    known = {name: rows[name][~rows[name].isnan()] for name in MEDIANS if name in rows}
    return {name: float(values.quantile(0.5)) for name, values in known.items() if len(values)}


def truth_ratio(rows: Mapping[str, Float[Tensor, " n"]], groups: Int[Tensor, " n"] | None = None) -> dict[str, float]:
    """`error_to_truth_ratio`, mean error over mean error of no edit; nothing without truth. `groups` as in `means`."""
    if "error_to_truth" not in rows or not bool((rows["error_to_truth_no_edit"] > 0).any()):
        return {}
    ratio = paired_ratio(rows["error_to_truth"], rows["error_to_truth_no_edit"], groups=groups)
    name = "error_to_truth_ratio"
    return {name: ratio.value, f"{name}_low": ratio.low, f"{name}_high": ratio.high}

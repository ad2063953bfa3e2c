"""What a set of counterfactuals is worth: every row counted, each mean with its bootstrap interval."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cfx.core.errors import InputError
from cfx.core.statistics import average_precision, bootstrap_interval
from cfx.core.values import Cohort, Counterfactuals, Verdict

TRUE_EFFECT = 0.25
"""A pixel belongs to the true effect where |x_true - x| exceeds this, an eighth of the range."""


def evaluate(
    result: Counterfactuals, cohort: Cohort | None = None, *, distance: nn.Module | None = None
) -> dict[str, float]:
    """Flat metrics of a result; means have `_low` and `_high` (95 % bootstrap over rows).

    Args:
        result: All rows of a run, failures included.
        cohort: The cohort of the same rows; with `x_true` the error to the truth and the localisation are added.
        distance: Perceptual distance `(x, x_cf) -> (n,)` with a `name`, reported under that name.

    Returns:
        `validity`, `oracle_validity`, `stable`, `l1`, `l2`, `edited_share`, `nfe_*`, `seconds_per_image`; with truth
        also `error_to_truth` (root mean square over the image, mean over rows), `error_to_truth_no_edit`,
        `error_to_truth_ratio`, `localisation_auprc` (mean of each row's), `localisation_base_rate`.

    Raises:
        InputError: an empty result, or a cohort of other rows.
    """
    if len(result) == 0:
        raise InputError("result: expected at least one row, got none")
    change = (result.x_cf - result.x).flatten(1)
    rows: dict[str, Tensor] = {
        "validity": result.margin_after >= result.margin - 1e-5,
        "stable": (result.verdict != Verdict.UNSTABLE) & (result.verdict != Verdict.REFUSED),
        "l1": change.abs().mean(1),
        "l2": _rms(change),
        "edited_share": result.mask.flatten(1).float().mean(1),
        "nfe_unet_forward": result.nfe_forward,
    }
    if result.oracle_probs_after is not None:
        rows["oracle_validity"] = result.oracle_probs_after.argmax(1) == result.target
    if distance is not None:
        rows["feature_distance"] = _distances(distance, result)
    out = {"n": float(len(result))}
    for name, values in rows.items():
        out[name] = float(values.double().mean())
        out[f"{name}_low"], out[f"{name}_high"] = bootstrap_interval(values.double())
    out["nfe_unet_forward_max"] = float(result.nfe_forward.max())
    out["nfe_unet_backward"] = float(result.nfe_backward.double().mean())
    out["nfe_classifier"] = float(result.nfe_classifier.double().mean())
    out["nfe_classifier_backward"] = float(result.nfe_classifier_backward.double().mean())
    out["seconds_per_image"] = result.seconds / len(result)
    if cohort is not None and cohort.x_true is not None:
        out |= against_truth(result, cohort.x_true)
    return out


def against_truth(result: Counterfactuals, x_true: Float[Tensor, "n c *space"]) -> dict[str, float]:
    """Distance to the true counterfactual beside that of no edit, and how well the edit is localised.

    Raises:
        InputError: truth of another shape than the images.
    """
    if x_true.shape != result.x.shape:
        raise InputError(f"x_true: expected shape {tuple(result.x.shape)}, got {tuple(x_true.shape)}")
    error = torch.stack([_rms((v - x_true).flatten(1)) for v in (result.x_cf, result.x)], 1)
    effect = ((x_true - result.x).abs().amax(1) > TRUE_EFFECT).flatten(1)
    some = effect.any(1)
    precision = average_precision((result.x_cf - result.x).abs().amax(1).flatten(1)[some], effect[some])
    with_, without = error.double().mean(0).tolist()
    out = {"error_to_truth": with_, "error_to_truth_no_edit": without, "error_to_truth_ratio": with_ / without}
    out["error_to_truth_low"], out["error_to_truth_high"] = bootstrap_interval(error[:, 0])
    ratio = bootstrap_interval(error, lambda e: e[..., 0].double().mean(1) / e[..., 1].double().mean(1))
    out["error_to_truth_ratio_low"], out["error_to_truth_ratio_high"] = ratio
    if some.any():
        out["localisation_auprc"] = float(precision.mean())
        out["localisation_auprc_low"], out["localisation_auprc_high"] = bootstrap_interval(precision)
        out["localisation_base_rate"] = float(effect[some].double().mean())
    return out


@torch.no_grad()
def _distances(distance: nn.Module, result: Counterfactuals) -> Float[Tensor, " n"]:
    device = next((p.device for p in distance.parameters()), result.x.device)
    pairs = zip(result.x.split(64), result.x_cf.split(64), strict=True)
    return torch.cat([distance(a.to(device), b.to(device)).cpu() for a, b in pairs])


def _rms(v: Float[Tensor, "n p"]) -> Float[Tensor, " n"]:
    return v.square().mean(1).sqrt()

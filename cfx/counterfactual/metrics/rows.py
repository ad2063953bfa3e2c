"""One number a row for everything a result alone, or a result beside its truth, can say.

    e = x_cf - x (the edit),   e* = x_true - x (the true effect, simulated data)

    l1 = mean |e|              l2 = rms(e)                    error_to_truth = rms(x_cf - x_true)
    edit_energy = rms(e) / rms(e*)                            cosine_to_truth = <e, e*> / (||e|| ||e*||)

A metric that has no meaning for a row (the cosine to an effect that is zero, say) is NaN there, by the data alone and
never by the method, so that methods can be compared row by row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.broadcast import rms
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.rows import Rows
from cfx.core.scores import average_precision, dice
from cfx.counterfactual.metrics.measure import apart, probability
from cfx.counterfactual.reading import Reading
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.models.gate import OUT
from cfx.models.perceptual import Lpips

TRUE_EFFECT = 0.25
"""A pixel belongs to the true effect where |x_true - x| exceeds this, an eighth of the range."""

CHANGED = 0.05
"""A pixel counts as changed where |x_cf - x| exceeds this, a fortieth of the range: about what the eye can tell."""


@dataclass(frozen=True)
class Measurements(Rows):
    """What was measured of every row, as an atlas keeps it.

    Attributes:
        row: Index of the row in the user's input.
        values: One number a row for each metric, NaN where it has no meaning.
    """

    row: Int[Tensor, " n"]
    values: Mapping[str, Float[Tensor, " n"]]


def per_row(
    result: Counterfactuals, cohort: Cohort | None = None, *, distances: Sequence[nn.Module] = ()
) -> dict[str, Float[Tensor, " n"]]:
    """All per-row metrics, float64, NaN where one has no meaning for a row.

    Args:
        result: All rows of a run, failures included.
        cohort: The cohort of the same rows; `x_true` and `lesion` add the metrics that need them.
        distances: Perceptual distances `(x, x_cf) -> (n,)`. One is `lpips` if it is `cfx.models.perceptual.Lpips`,
            whose weights are real, and `feature_distance` otherwise.

    Returns:
        `validity`, `stable` (NaN in rows that no edit carried to the margin), `oracle_validity` (with an oracle),
        `probability_change` (of the target class), `l1`, `l2`, `edited_share` (pixels that differ at all),
        `changed_share` (that differ by more than `CHANGED`), `nfe_unet_forward`, `nfe_unet_backward`, `nfe_classifier`,
        `nfe_classifier_backward`, `seconds_per_image`; those of `reading_rows`, of `gate_rows`, of `truth_rows`
        with truth and of `lesion_rows` with lesion masks.

    Raises:
        InputError: an empty result, or a cohort of other rows.
    """
    if len(result) == 0:
        raise InputError("result: expected at least one row, got none")
    change = (result.x_cf - result.x).abs()
    before, after = (probability(p, result.target) for p in (result.probs_before, result.probs_after))
    unstable = result.verdict == Verdict.UNSTABLE
    rows: dict[str, Tensor] = {
        "validity": result.reached,
        "stable": (~unstable).double().masked_fill(~unstable & (result.verdict != Verdict.FLIPPED), torch.nan),
        "probability_change": after - before,
        "l1": change.flatten(1).mean(1),
        "l2": rms(change),
        "edited_share": result.edited.flatten(1).double().mean(1),
        "changed_share": (change.amax(1) > CHANGED).flatten(1).double().mean(1),
        "nfe_unet_forward": result.nfe_unet_forward,
        "nfe_unet_backward": result.nfe_unet_backward,
        "nfe_classifier": result.nfe_classifier,
        "nfe_classifier_backward": result.nfe_classifier_backward,
        "seconds_per_image": result.seconds,
    }
    if result.oracle_probs_after is not None:
        rows["oracle_validity"] = result.oracle_probs_after.argmax(1) == result.target
    rows |= reading_rows(result) | gate_rows(result)
    for distance in distances:
        key = "lpips" if isinstance(distance, Lpips) else "feature_distance"
        rows[key] = apart(result.x, result.x_cf, distance)
    if cohort is not None and cohort.x_true is not None:
        rows |= truth_rows(result, cohort.x_true)
    if cohort is not None and cohort.lesion is not None:
        rows |= lesion_rows(result, cohort)
    return {name: values.double() for name, values in rows.items()}


def reading_rows(result: Counterfactuals) -> dict[str, Float[Tensor, " n"]]:
    """What the classifier reads of every edit, and whether it agreed to the generator's classes, as far as known.

    Returns:
        `consent`, `read_share`, `read_alone`, `rest_alone`, and `reading_carried` (1 or 0), NaN where there is none.
    """
    names = ("consent", "read_share", "read_alone", "rest_alone")
    rows = {name: v for name in names if (v := getattr(result, name)) is not None}
    if "read_share" in rows:
        carried = torch.tensor([word == Reading.CARRIED for word in result.reading]).to(rows["read_share"])
        rows["reading_carried"] = carried.masked_fill(rows["read_share"].isnan(), torch.nan)
    return rows


def gate_rows(result: Counterfactuals) -> dict[str, Float[Tensor, " n"]]:
    """Whether edited images are in distribution to the gate, after the edit and before; nothing without a gate.

    Returns:
        `gate_p`, `gate_p_before`, and `gate_out`, `gate_out_before` (1 where that is at most `cfx.models.gate.OUT`);
        NaN in rows that were not edited.
    """
    if result.gate_p is None or result.gate_p_before is None:
        return {}
    rows = {"gate_p": result.gate_p, "gate_p_before": result.gate_p_before}
    rows |= {"gate_out": (result.gate_p <= OUT).double(), "gate_out_before": (result.gate_p_before <= OUT).double()}
    return {name: values.double().masked_fill(result.gate_p.isnan(), torch.nan) for name, values in rows.items()}


def truth_rows(result: Counterfactuals, x_true: Float[Tensor, "n c *space"]) -> dict[str, Float[Tensor, " n"]]:
    """How near every row is to its true counterfactual, and how well the edit is localised.

    Returns:
        `error_to_truth` and `error_to_truth_no_edit` (root mean square over the image); `cosine_to_truth` (0 for an
        empty edit) and `edit_energy`, NaN where the true effect is zero; `localisation_auprc` of |edit| against the
        pixels whose true effect exceeds `TRUE_EFFECT`, and its `localisation_base_rate`, NaN where there are none.

    Raises:
        InputError: truth of another shape than the images.
    """
    if x_true.shape != result.x.shape:
        raise InputError(f"x_true: expected shape {tuple(result.x.shape)}, got {tuple(x_true.shape)}")
    edit, effect = result.x_cf - result.x, x_true - result.x
    size, true_size = rms(edit.double()), rms(effect.double())
    inner = (edit.double() * effect.double()).flatten(1).mean(1)
    there = (effect.abs().amax(1) > TRUE_EFFECT).flatten(1)
    nowhere = ~there.any(1)
    return {
        "error_to_truth": rms(result.x_cf - x_true).double(),
        "error_to_truth_no_edit": rms(result.x - x_true).double(),
        "cosine_to_truth": (inner / (size * true_size)).where(size > 0, 0.0).masked_fill(true_size == 0, torch.nan),
        "edit_energy": (size / true_size).masked_fill(true_size == 0, torch.nan),
        "localisation_auprc": average_precision(edit.abs().amax(1).flatten(1), there).double(),
        "localisation_base_rate": there.double().mean(1).masked_fill(nowhere, torch.nan),
    }


def lesion_rows(result: Counterfactuals, cohort: Cohort) -> dict[str, Float[Tensor, " n"]]:
    """Dice coefficient of the changed pixels and the lesion that should have gone.

    Changed means |x_cf - x| > `TRUE_EFFECT`, the size from which the project calls a change an effect: a threshold
    fixed in advance, where the usual one (Otsu's, or a share of the map's own maximum) finds a lesion in any map.

    A cohort knows the lesions of x only. They are the difference of the two masks where the counterfactual has none,
    so rows without a lesion, and rows sent to the class they are labelled with, are NaN.

    Returns:
        `lesion_dice`; with `x_true` also `lesion_dice_truth`, what the true counterfactual scores: the figure to read
        it against, below 1 where the disease changes more than its lesions (0.23 on the simulated brains).

    Raises:
        InputError: masks of another shape than the images.
    """
    lesion, shape = cohort.lesion, (len(result), 1, *result.x.shape[2:])
    if lesion is None or lesion.shape != shape:
        raise InputError(f"lesion: expected shape {shape}, got {None if lesion is None else tuple(lesion.shape)}")
    asked = lesion.flatten(1).any(1)
    if cohort.y is not None and cohort.y.ndim == 1:
        asked &= cohort.y != result.target
    images = {"lesion_dice": result.x_cf} | ({} if cohort.x_true is None else {"lesion_dice_truth": cohort.x_true})
    changed = {name: (v - result.x).abs().amax(1, keepdim=True) > TRUE_EFFECT for name, v in images.items()}
    return {name: dice(v, lesion).where(asked, torch.nan) for name, v in changed.items()}

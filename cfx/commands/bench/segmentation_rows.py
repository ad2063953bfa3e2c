"""The rows of `results.json` of a bench of mask samplers: a figure an image, its mean, an interval over subjects.

`ged_debiased`, `diversity` and what has no number in its name are of all the masks that a method drew. Where the true
distribution is known, with t true masks T of an image and N samples,

    truth_ged_N     2 mean d(S, T) - V(S, S) - U(T, T):  N masks of the truth have D / N, D the diversity of the truth
    truth_ratio_N   mean truth_ged_N / mean D / N:       how many times as far as equally many true masks
    truth_ged       U in both: the distance of the distributions, 0 for the truth

(V and U: means over all ordered pairs, and over pairs of different masks.) A method that drew masks of the first images
only is compared with the first method on these.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cfx.core.overlap import within
from cfx.core.statistics import bootstrap_interval, paired_difference, paired_ratio
from cfx.display.catalogue import Metric, register
from cfx.segmentation.meanings import SAMPLES
from cfx.segmentation.metrics import empty_ece, empty_share, evaluate, ged, reader_calibration
from cfx.segmentation.metrics.drawings import alike, layers
from cfx.segmentation.select import representative

Row = dict[str, Any]
Masks = UInt8[Tensor, "n s *space"]
Columns = dict[str, Float[Tensor, " n"]]
"""A figure an image, by name."""

OF_SAMPLES = ("ged", "ci", "d_max", "hm_iou", "s_c", "d_a", "ci_printed", "best_m_iou")
"""Figures that say how many samples they are of."""
OF_ALL = ("ged_debiased", "ged_limit", "diversity", "reader_diversity", "ncc", "consensus_dice", "volume_crps")
"""Figures of all samples."""
COMPARED = ("ged_debiased", "ged_4", "ged_16", "ci_4", "d_max_4", "truth_ged")
"""Figures in which methods are compared with the first, image by image."""
POOL, CHOSEN = 50, 4
"""Samples that a few are chosen from, and how many."""
_OURS = "_vs_ours"

register(
    Metric("diversity_ratio", "diversity / readers'", "Diversity of the samples over that of the readers; 1 is best."),
    Metric(
        "representative_ged_4", "GED_4 chosen", "GED_4 of four of fifty samples, chosen to represent them all.", "lower"
    ),
    Metric("representative_ratio", "chosen / drawn", "GED_4 of chosen samples over that of the first four.", "lower"),
    Metric(
        "empty_ece", "empty ECE",
        "Expected calibration error of the probability of an empty mask, against the share of readers who drew nothing "
        "or, where it is known, against the true probability.", "lower",
    ),
    Metric("truth_ged", "GED to the truth", "Squared energy distance of sampled to true distribution.", "lower", ".4f"),
    *(
        Metric(f"truth_ged_{n}", f"GED_{n} to the truth", f"The same of {n} samples; of true ones not 0.", "lower")
        for n in SAMPLES
    ),
    *(
        Metric(
            f"truth_ratio_{n}", f"/ {n} true masks", f"Their distance to the truth over that of {n} true masks.",
            "lower", ".2f",
        )
        for n in SAMPLES
    ),
    *(
        Metric(f"{key}{_OURS}", f"{heading} less ours", "Paired by image, with an interval over subjects.", "", "+.3f")
        for key, heading in (
            ("ged_debiased", "GED debiased"), ("ged_4", "GED_4"), ("ged_16", "GED_16"), ("ci_4", "CI_4"),
            ("d_max_4", "D_max_4"), ("truth_ged", "GED to the truth"),
        )
    ),
    Metric("nfe_a_mask", "evaluations a mask", "Evaluations of the costly network a mask, beside one an image."),
    Metric("samples_per_second", "masks / s", "Masks drawn a second.", "higher", ".3g"),
    Metric("train_steps", "steps", "Steps that the network was trained.", "", ".0f"),
    Metric("parameters", "parameters", "Weights of the network.", "", ".3g"),
)  # fmt: skip


@dataclass(frozen=True)
class Readers:
    """Whom methods are held against.

    Attributes:
        masks: What they drew.
        subject: Number of every image's subject; None where every image is one.
        classes: Labels a voxel may have, background included.
    """

    masks: UInt8[Tensor, "n r *space"]
    subject: Int[Tensor, " n"] | None
    classes: int


@dataclass(frozen=True)
class Truth:
    """A known distribution.

    Attributes:
        masks: True masks.
        empty: Exact probability of an empty mask, of every image.
    """

    masks: Masks
    empty: Float[Tensor, " n"]


@dataclass(frozen=True)
class Answer:
    """What one method drew.

    Attributes:
        masks: Of the first images; all of them, or as many as a slow method was given.
        samples: Numbers of samples to give figures for, ascending.
        facts: What else its row says.
        control: Whether it is no sampler, so that nothing is chosen from what it says.
    """

    masks: Masks
    samples: tuple[int, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    control: bool = False


def table_rows(answers: Mapping[str, Answer | str], readers: Readers, truth: Truth | None = None) -> list[Row]:
    """A row a method, in their order.

    Args:
        answers: What every method drew, or why it could not; the first is the one that others are compared with.
        readers: Whom to hold it against.
        truth: The known distribution, if there is one.
    """
    found = {name: columns(a, readers, truth) for name, a in answers.items() if isinstance(a, Answer)}
    first = next(iter(answers))
    rows: list[Row] = []
    for name, answer in answers.items():
        if isinstance(answer, str):
            rows.append({"method": name, "n": 0, "error": answer})
            continue
        row = {"method": name, "n": len(answer.masks), "control": answer.control} | _means(found[name], readers)
        row |= _ratios(found[name], readers, truth) | _pooled(answer, readers, truth) | dict(answer.facts)
        if name != first and first in found:
            row |= _compared(found[name], found[first], readers)
        rows.append(row)
    return rows


def columns(answer: Answer, readers: Readers, truth: Truth | None = None) -> Columns:
    """All figures of every image that a method drew masks of."""
    masks, k = answer.masks, readers.classes
    y = readers.masks[: len(masks)]
    found: Columns = {}
    for n in answer.samples:
        scores = evaluate(masks[:, :n], y, k)
        found |= {f"{name}_{n}": getattr(scores, name) for name in OF_SAMPLES}
    found |= {name: getattr(scores, name) for name in OF_ALL}
    if masks.shape[1] >= POOL and not answer.control:
        found[f"representative_ged_{CHOSEN}"] = ged(representative(masks[:, :POOL], CHOSEN, k), y, k)
    return found | ({} if truth is None else _known(answer, truth.masks[: len(masks)], k))


def _known(answer: Answer, true: Masks, classes: int) -> Columns:
    """Distances to the true distribution."""
    found = {f"truth_ged_{n}": ged(answer.masks[:, :n], true, classes, reader_form="u") for n in answer.samples}
    own = layers(true, "truth", classes)
    return found | {
        "truth_ged": ged(answer.masks, true, classes, form="u", reader_form="u"),
        "truth_diversity": within(alike(own, own).distance, "u"),
    }


def _means(found: Columns, readers: Readers) -> Row:
    """Mean of every figure with its interval over subjects."""
    row: Row = {}
    for name, values in found.items():
        low, high = bootstrap_interval(values, groups=_groups(readers, values))
        row |= {name: float(values.mean()), f"{name}_low": low, f"{name}_high": high}
    return row


def _groups(readers: Readers, values: Float[Tensor, " n"]) -> Int[Tensor, " n"] | None:
    return None if readers.subject is None else readers.subject[: len(values)]


def _ratios(found: Columns, readers: Readers, truth: Truth | None) -> Row:
    """Ratios of means."""
    pairs = {"diversity_ratio": (found["diversity"], found["reader_diversity"])}
    chosen = f"representative_ged_{CHOSEN}"
    if chosen in found and f"ged_{CHOSEN}" in found:
        pairs["representative_ratio"] = (found[chosen], found[f"ged_{CHOSEN}"])
    if truth is not None:
        some = [n for n in SAMPLES if f"truth_ged_{n}" in found]
        pairs |= {f"truth_ratio_{n}": (found[f"truth_ged_{n}"], found["truth_diversity"] / n) for n in some}
    row: Row = {}
    for name, (a, b) in pairs.items():
        if bool((b > 0).any()):  # readers who never differ have no ratio
            row |= _said(name, paired_ratio(a, b.clamp(min=0), groups=_groups(readers, a)))
    return row


def _said(name: str, estimate: tuple[float, float, float]) -> Row:
    return dict(zip((name, f"{name}_low", f"{name}_high"), estimate, strict=True))


def _pooled(answer: Answer, readers: Readers, truth: Truth | None) -> Row:
    """Figures of all images together."""
    y = readers.masks[: len(answer.masks)]
    empty = empty_share(y) if truth is None else truth.empty[: len(y)]
    calibration = reader_calibration(answer.masks, y, readers.classes)
    return {"reader_ece": calibration.ece, "empty_ece": empty_ece(answer.masks, empty)}


def _compared(found: Mapping[str, Tensor], ours: Mapping[str, Tensor], readers: Readers) -> Row:
    """What a method has more than the first, on the images that both drew masks of."""
    row: Row = {}
    for name in COMPARED:
        if name in found and name in ours:
            n = min(len(found[name]), len(ours[name]))
            a, b = found[name][:n], ours[name][:n]
            row |= {f"n{_OURS}": n} | _said(f"{name}{_OURS}", paired_difference(a, b, groups=_groups(readers, a)))
    return row

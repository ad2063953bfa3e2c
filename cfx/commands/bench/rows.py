"""From measurements to the rows of `results.json`: one a method, the reference rows, and who beats whom on what."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cfx.commands.bench.cells import Cell
from cfx.core.cohort import Cohort, subjects
from cfx.core.errors import InputError
from cfx.core.sets import frechet_distance, kernel_distance, split_distance
from cfx.core.statistics import paired_difference
from cfx.counterfactual.metrics import (
    cout,
    evaluate,
    identity_edit,
    latent_divergence,
    means,
    penultimate,
    per_row,
    random_real,
)
from cfx.counterfactual.metrics.evaluate import truth_ratio
from cfx.counterfactual.metrics.realism import FeatureSpace
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.models.autoencoder import Vae
from cfx.models.classifiers import Staged
from cfx.models.perceptual import FeatureDistance, Lpips

Row = dict[str, Any]
REFERENCES = ("identity", "random-real", "ddim-reconstruction")
"""Rows beside the methods: doing nothing, showing a real image of the target class, and plain reconstruction."""
COMPARED = ("l1", "lpips", "feature_distance", "error_to_truth", "localisation_auprc", "oracle_validity")
"""Metrics on which the first method is compared with the others, row by row."""
DIRECTED = ("cosine_to_truth", "localisation_auprc", "validity", "oracle_validity", "l1")
"""Metrics given for each target class by itself, besides `error_to_truth_ratio`."""
_SPLITS, _DRAWS = 4, 60  # of the realism distances: each draw costs a singular value decomposition a class and half


@dataclass(frozen=True)
class Measures:
    """What results are measured with, besides the images and their truth.

    Attributes:
        classifier: The classifier that was explained.
        oracle: The independent one, or None.
        distances: Perceptual distances: in the oracle's features, and LPIPS, as far as they are known.
        space: The oracle's pooled features, or None.
        reference: Labelled real images, or None.
        autoencoder: Autoencoder of such images, or None.
    """

    classifier: nn.Module
    oracle: nn.Module | None = None
    distances: tuple[nn.Module, ...] = ()
    space: FeatureSpace | None = None
    reference: Cohort | None = None
    autoencoder: Vae | None = None

    @classmethod
    def of(
        cls,
        classifier: nn.Module,
        oracle: nn.Module | None,
        reference: Cohort | None,
        autoencoder: object,
        lpips: Lpips | None = None,
    ) -> "Measures":
        """Everything these networks allow to measure; an oracle of another package lends no features."""
        vae = autoencoder if isinstance(autoencoder, Vae) else None
        known = () if lpips is None else (lpips,)
        if not isinstance(oracle, Staged):
            return cls(classifier, oracle, known, reference=reference, autoencoder=vae)
        name = "features of the oracle"
        distances = (*known, FeatureDistance(oracle, name))
        return cls(classifier, oracle, distances, penultimate(oracle, name), reference, vae)

    def row(self, result: Counterfactuals, cohort: Cohort) -> Row:
        """All metrics of a result under flat names."""
        found: dict[str, Any] = evaluate(result, cohort, distances=self.distances)
        more = {"cout": cout(result, self.classifier)}
        if self.autoencoder is not None and self.reference is not None and self.reference.y is not None:
            more["latent_divergence"] = latent_divergence(result, self.autoencoder, self.reference)
        found |= means(more, subjects(cohort)) | self._realism(result, cohort)
        return found | {"n": len(result), "directions": _directions(result, cohort)}

    def _realism(self, result: Counterfactuals, cohort: Cohort) -> dict[str, float]:
        """Split-form distances of the edited set to real images of the target classes; none of too few rows."""
        if self.space is None:
            return {}
        labelled = cohort.y is not None and cohort.y.ndim == 1
        label, target = (cohort.y, result.target) if labelled else (None, None)
        real, edited, groups = self.space(result.x), self.space(result.x_cf), subjects(cohort)
        out: dict[str, float] = {}
        for name, distance in (("frechet", frechet_distance), ("kernel", kernel_distance)):
            try:
                found = split_distance(
                    real, edited, distance, label=label, target=target, groups=groups, splits=_SPLITS, draws=_DRAWS
                )
            except InputError:
                return {}
            out |= {name: found.value, f"{name}_low": found.low, f"{name}_high": found.high}
        return out


def table_rows(
    depth: str,
    cells: Mapping[str, Cell | str],
    cohort: Cohort,
    measures: Measures,
    about: Mapping[str, Row] | None = None,
) -> list[Row]:
    """The rows of one depth: the methods in order, failed ones with an `error`, then the reference rows.

    Args:
        depth: The depth.
        cells: What was measured, or what went wrong, by method; the first is compared with the others.
        cohort: The images the methods worked on; a method with fewer rows worked on the first of them.
        measures: What to measure with.
        about: What else is said of each method: whether it was `tuned`, its `start_sigma`.
    """
    first = next(iter(cells))
    against = cells[first]
    rows: list[Row] = []
    for name, cell in cells.items():
        base: Row = {"method": name, "depth": depth} | dict((about or {}).get(name, {}))
        if isinstance(cell, str):
            rows.append(base | {"n": 0, "error": cell, "comparisons": {}, "directions": {}})
            continue
        images = cohort[: len(cell.result)]
        row = base | measures.row(cell.result, images) | means(cell.laws, subjects(images)) | {"comparisons": {}}
        row |= efforts(cell.result)
        row["peak_memory_mb"] = cell.cost["peak_memory_mb"]
        if name != first and isinstance(against, Cell):
            row["comparisons"] = {first: compare(against.result, cell.result, cohort, measures)}
        if "ddim_seconds" in cell.cost:
            row["seconds_over_reconstruction"] = row["seconds_per_image"] / cell.cost["ddim_seconds"]
        rows.append(row)
    done = [cell for cell in cells.values() if isinstance(cell, Cell)]
    if done:
        rows += [
            {"depth": depth} | row for row in _references(max(done, key=lambda c: len(c.result)), cohort, measures)
        ]
        rows += [{"depth": depth} | _reconstruction(cell) for cell in done if "ddim_seconds" in cell.cost]
    return [_plain(row) for row in rows]


def efforts(result: Counterfactuals) -> Row:
    """What rows cost (generator evaluations and back-propagations) by how far they came; None where none did.

    Returns:
        `flip_rate`, the share of rows that an attempt flipped; `nfe_to_flip`, mean over these until the first one did;
        `nfe_to_margin`, mean over the rows that reached the margin; `nfe_failing`, mean over those that did not.
    """
    spent, reached = (result.nfe_unet_forward + result.nfe_unet_backward).double(), result.reached
    until = spent * torch.nan if result.nfe_to_flip is None else result.nfe_to_flip.double()
    until = until.where(result.verdict != Verdict.ALREADY, 0.0)
    return {
        "flip_rate": float((~until.isnan()).double().mean()),
        "nfe_to_flip": _mean(until[~until.isnan()]),
        "nfe_to_margin": _mean(spent[reached]),
        "nfe_failing": _mean(spent[~reached]),
    }


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def compare(a: Counterfactuals, b: Counterfactuals, cohort: Cohort, measures: Measures) -> Row:
    """Result a against result b on the images both worked on.

    Returns:
        `n`, and for each of `COMPARED` that is known `difference` (mean of a - b), `low`, `high` (95 % bootstrap over
        subjects, paired) and `verdict`: whether a is `lower` or `higher` with 95 %, else `unclear`.
    """
    n = min(len(a), len(b))
    ours, theirs = (per_row(r[:n], cohort[:n], distances=measures.distances) for r in (a, b))
    out: Row = {"n": n}
    groups = subjects(cohort[:n])
    for name in COMPARED:
        if name in ours and not bool(ours[name].isnan().all()):
            found = paired_difference(ours[name], theirs[name], groups=groups)
            verdict = "lower" if found.high < 0 else "higher" if found.low > 0 else "unclear"
            out[name] = {"difference": found.value, "low": found.low, "high": found.high, "verdict": verdict}
    return out


def _directions(result: Counterfactuals, cohort: Cohort) -> Row:
    """The metrics of `DIRECTED` for the rows sent to each class, by the class's name."""
    out: Row = {}
    every, groups = per_row(result, cohort), subjects(cohort)
    for k in result.target.unique().tolist():
        here = result.target == k
        rows, of = {name: values[here] for name, values in every.items()}, None if groups is None else groups[here]
        name = str(cohort.classes[k]) if k < len(cohort.classes) else str(k)
        figures = means({m: rows[m] for m in DIRECTED if m in rows}, of) | truth_ratio(rows, of)
        out[name] = {"n": int(here.sum())} | figures
    return out


def _references(cell: Cell, cohort: Cohort, measures: Measures) -> list[Row]:
    """Doing nothing, and a real image of the target class, on the images of a measurement."""
    results = {"identity": identity_edit(cell.result)}
    rows: list[Row] = []
    if measures.reference is not None:
        try:
            results["random-real"] = random_real(
                cell.result, measures.reference, measures.classifier, oracle=measures.oracle, seed=cell.result.seed
            )
        except InputError as error:  # no labels, or no image of a target class
            rows.append({"method": "random-real", "n": 0, "error": str(error), "comparisons": {}, "directions": {}})
    for name, result in results.items():
        row = measures.row(result, cohort[: len(result)]) | {"comparisons": {}, "peak_memory_mb": None}
        rows.append({"method": name} | {k: v for k, v in row.items() if not k.startswith("stable")})  # not tried
    return rows


def _reconstruction(cell: Cell) -> Row:
    """The cost of a plain DDIM reconstruction of the first method's images with as many evaluations as it spent."""
    zero = dict.fromkeys(("nfe_unet_backward", "nfe_classifier", "nfe_classifier_backward"), 0.0)
    row: Row = {"method": "ddim-reconstruction", "n": len(cell.result), "nfe_unet_forward": cell.cost["ddim_nfe"]}
    row |= zero | {"seconds_per_image": cell.cost["ddim_seconds"], "peak_memory_mb": None}
    return row | {"comparisons": {}, "directions": {}}


def _plain(value: Row) -> Row:
    """The value as JSON holds it: infinities and NaN become None."""
    return {k: _plain(v) if isinstance(v, dict) else _finite(v) for k, v in value.items()}


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value

"""The rows of `results.json` of a bench of detectors: areas under ROC curves with intervals, alarms, maps, cost.

The in-distribution images are the negatives of every shift. Intervals are of the Bayesian bootstrap (Rubin 1981), which
weighs subjects at random instead of drawing them: no resample lacks negatives, and pairs stay unbiased. Where a shift
shows the same subjects as the in-distribution images, both images of a subject have its weight, and a comparison of two
methods weighs both alike, over all shifts at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from cfx.commands.bench.ladder import INSIDE, Shift
from cfx.core.scores import auroc, average_precision, false_alarms_at
from cfx.core.statistics import row_weights
from cfx.display.catalogue import Metric, register
from cfx.ood import Membership, OodScores

Row = dict[str, Any]
_DRAWS = 1000
register(
    Metric("auroc_near", "near AUROC", "Mean over near shifts of the AUROC; those for development are left out."),
    Metric("auroc_near_min", "near, worst", "Lowest AUROC of a near shift."),
    Metric("auroc_beyond", "beyond AUROC", "Mean AUROC over covariates beyond the range of the cohort."),
    Metric("auroc_beyond_min", "beyond, worst", "Lowest of these."),
    Metric("auroc_far", "far AUROC", "Mean AUROC over far shifts."),
    Metric("fpr95_near", "near FPR95", "Share of in-distribution images out where 95 % of a near shift are; mean."),
    Metric("false_alarm", "false alarms", "Share of in-distribution images that are out at the level."),
    Metric("false_alarm_tolerated", "of tolerated", "Share of images of tolerated shifts that are out at the level."),
    Metric("map_auprc", "map AUPRC", "Area under the precision-recall curve of the map's pixels for planted lesions."),
    Metric("map_base_rate", "base rate", "Share of the pixels that are lesion: the AUPRC of a map that knows nothing."),
)


@dataclass(frozen=True)
class Found:
    """What one method said of every set.

    Attributes:
        scores: By name of the set; those of a slow method may be the first rows alone.
        units: Subject of every row of every set.
    """

    scores: Mapping[str, OodScores]
    units: Mapping[str, Int[Tensor, " _"]]

    def first(self, n: int) -> "Found":
        """The same of the first rows of every set."""
        return Found({name: scores[:n] for name, scores in self.scores.items()}, self.units)

    def pair(self, name: str) -> tuple[Float[Tensor, " k"], Bool[Tensor, " k"], Int[Tensor, " k"]]:
        """Scores of in-distribution images and those of a shift, which are which, and whose they are."""
        a, b = self.scores[INSIDE].score.double(), self.scores[name].score.double()
        of = torch.cat([self.units[INSIDE][: len(a)], self.units[name][: len(b)]])
        return torch.cat([a, b]), torch.cat([torch.zeros(len(a)), torch.ones(len(b))]).bool(), of

    def area(self, name: str) -> float:
        """AUROC of a shift."""
        return float(auroc(*self.pair(name)[:2]))

    def areas(self, name: str, weight: Float[Tensor, "draws units"]) -> Float[Tensor, " draws"]:
        """The same under weights of the subjects."""
        score, positive, of = self.pair(name)
        return auroc(score, positive, weight[:, of]).clamp(max=1)  # sums of weights round

    def subjects(self, names: Sequence[str]) -> int:
        """Number of subjects up to the last of these sets."""
        return 1 + max(int(self.units[name].max()) for name in (INSIDE, *names))


def spread(n: int, statistic: Callable[[Float[Tensor, "draws n"]], Tensor], seed: int = 0) -> tuple[float, float]:
    """Interval of a statistic of weighted subjects, 2.5 to 97.5 % of what random weights of n of them give."""
    found = statistic(row_weights(n, draws=_DRAWS, seed=seed)).double()
    low, high = found.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def table_rows(
    shifts: Sequence[Shift],
    results: Mapping[str, Mapping[str, OodScores] | str],
    units: Mapping[str, Tensor],
    truths: Mapping[str, Bool[Tensor, "n 1 *space"]],
) -> list[Row]:
    """A row a method, in their order; each but the first has what the first has more, under `comparisons`.

    Args:
        shifts: All sets.
        results: What every method said of every set by name, or why it could not.
        units: Subject of every row of every set.
        truths: What was planted where, by set.
    """
    found = {name: Found(r, units) for name, r in results.items() if not isinstance(r, str)}
    rows: list[Row] = []
    first = next(iter(results))
    for name, said in results.items():
        if isinstance(said, str):
            rows.append({"method": name, "n": 0, "error": said, "comparisons": {}})
            continue
        row = {"method": name} | _row(shifts, found[name], truths)
        compared = name != first and first in found
        rows.append(row | {"comparisons": {first: compare(found[first], found[name], shifts)} if compared else {}})
    return rows


def _row(shifts: Sequence[Shift], found: Found, truths: Mapping[str, Tensor]) -> Row:
    """The figures of one method."""
    columns: Row = {}
    for shift in shifts:
        if shift.kind is not None:
            part = _column(shift, found, truths.get(shift.name))
            columns |= {f"shift.{shift.name}.{key}": value for key, value in part.items()}
    return _summary(shifts, found, columns) | columns


def _column(shift: Shift, found: Found, truth: Tensor | None) -> Row:
    """The figures of one shift."""
    scores, n = found.scores[shift.name], found.subjects([shift.name])
    low, high = spread(n, lambda w: found.areas(shift.name, w))
    score, positive, _ = found.pair(shift.name)
    area = found.area(shift.name)
    row: Row = {
        "auroc": area, "auroc_low": min(low, area), "auroc_high": max(high, area),
        "fpr95": false_alarms_at(score, positive, 0.95), "out": _out(scores), "n": len(scores), "kind": shift.kind,
        "development": shift.development, "strength": shift.strength,
        "nfe_unet_forward": float(scores.nfe_unet_forward.double().mean()),
    }  # fmt: skip
    return row | _mapped(scores, truth)


def _mapped(scores: OodScores, truth: Tensor | None) -> Row:
    """How well a map finds what was planted, over the images in which something was."""
    if scores.map is None or truth is None:
        return {}
    there = truth[: len(scores)].flatten(1)
    some = there.any(1)
    if not bool(some.any()):
        return {}
    area = average_precision(scores.map.flatten(1)[some], there[some])
    return {"map_auprc": float(area.mean()), "map_base_rate": float(there[some].double().mean())}


def _out(scores: OodScores) -> float:
    return float((scores.verdict == int(Membership.OUT)).double().mean())


def _summary(shifts: Sequence[Shift], found: Found, columns: Row) -> Row:
    """The figures over several shifts; None where there is no such shift."""
    of = {kind: names(shifts, kind) for kind in ("tolerated", "beyond", "near", "far")}

    def every(kind: str, key: str) -> list[float]:
        return [v for name in of[kind] if (v := columns.get(f"shift.{name}.{key}")) is not None]

    sets = list(found.scores.values())
    seconds = [float(s.seconds.double().mean()) for s in sets]
    row: Row = {"n": len(found.scores[INSIDE])}
    for kind in ("near", "beyond", "far"):
        areas = every(kind, "auroc")
        row |= {f"auroc_{kind}": _mean(areas), f"auroc_{kind}_min": min(areas, default=None)}
        if areas:
            ends = spread(found.subjects(of[kind]), lambda w, some=of[kind]: _near(found, some, w))  # type: ignore[misc]
            row |= {f"auroc_{kind}_low": ends[0], f"auroc_{kind}_high": ends[1]}
    alarms = every("tolerated", "out")
    return row | {
        "fpr95_near": _mean(every("near", "fpr95")), "false_alarm": _out(found.scores[INSIDE]),
        "false_alarm_tolerated": _mean(alarms), "false_alarm_tolerated_max": max(alarms, default=None),
        "map_auprc": _mean(every("near", "map_auprc")), "map_base_rate": _mean(every("near", "map_base_rate")),
        "seconds_per_image": _mean(seconds), "level": found.scores[INSIDE].level,
    } | {
        key: _mean([float(getattr(s, key).double().mean()) for s in sets]) for key in NFE
    }  # fmt: skip


NFE = ("nfe_unet_forward", "nfe_unet_backward", "nfe_autoencoder", "nfe_classifier", "nfe_classifier_backward",
       "nfe_features")  # fmt: skip
"""What methods spent; the mean over the sets."""


def names(shifts: Sequence[Shift], kind: str) -> list[str]:
    """Shifts of a kind that summaries are made of: those that no choice was made on."""
    return [shift.name for shift in shifts if shift.kind == kind and not shift.development]


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def _near(found: Found, some: Sequence[str], weight: Tensor) -> Float[Tensor, " draws"]:
    """Mean AUROC over some shifts under weights of the subjects."""
    return torch.stack([found.areas(name, weight) for name in some]).nanmean(0)


def compare(a: Found, b: Found, shifts: Sequence[Shift]) -> Row:
    """Method a less method b in mean AUROC over near shifts and over far ones, on the images that both worked on."""
    n = min(len(a.scores[INSIDE]), len(b.scores[INSIDE]))
    a, b = a.first(n), b.first(n)
    row: Row = {"n": n}
    for kind in ("near", "beyond", "far"):
        some = names(shifts, kind)
        if some:
            row[f"auroc_{kind}"] = _difference(a, b, some)
    return row


def _difference(a: Found, b: Found, some: Sequence[str]) -> Row:
    value = sum(a.area(name) - b.area(name) for name in some) / len(some)
    low, high = spread(a.subjects(some), lambda w: _near(a, some, w) - _near(b, some, w))
    verdict = "higher" if low > 0 else "lower" if high < 0 else "unclear"
    return {"difference": value, "low": low, "high": high, "verdict": verdict}

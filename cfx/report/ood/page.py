"""The page: how many images are out of distribution and what that means, the scores, and the images, worst first.

What it holds is bounded whatever the number of rows: pictures of the `CARDS` lowest p-values, the table by `LINES`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from cfx.atlas import Atlas
from cfx.core.cohort import Cohort
from cfx.core.conformal import chance_of_so_many, conformal_quantile
from cfx.core.statistics import wilson_interval
from cfx.display.images import array, centre, data_uri, picture
from cfx.display.templates import render
from cfx.ood import Membership, OodScores
from cfx.report.numbers import percent, probability, span
from cfx.report.ood import figures

CARDS = 24
"""Most images that are shown."""
LINES = 500
"""Most rows of the table."""


@dataclass(frozen=True)
class Calibrated:
    """What was calibrated on what.

    Attributes:
        scores: Scores of the calibration images.
        fitted: Images that the detector was fitted to.
        settings: Its settings that differ from the defaults.
    """

    scores: Float[Tensor, " m"]
    fitted: int
    settings: Mapping[str, Any]

    def threshold(self, level: float) -> float | None:
        """The score above which an image is out; None where there are too few images for that level."""
        found = float(conformal_quantile(self.scores, level))
        return found if math.isfinite(found) else None


@dataclass(frozen=True)
class Card:
    """One image, its map, and what is known of it."""

    name: str
    out: bool
    facts: Sequence[tuple[str, str]]
    image: str
    map: str | None


def ood_page(atlas: Atlas[OodScores], calibrated: Calibrated, title: str, warned: Sequence[str] = ()) -> str:
    """The page as HTML, self-contained.

    Args:
        atlas: All rows.
        calibrated: What the p-values are made of.
        title: Name of the run.
        warned: What the run warned of.
    """
    scores = atlas.read(images=False)
    names = atlas.read_cohort(images=False).ids
    worst = worst_first(scores)
    return render(
        "cfx.report",
        "ood.html.j2",
        title=title,
        subtitle=f"{len(scores)} images, detector {scores.detector}, level {scores.level:g}",
        sentences=sentences(scores, calibrated),
        limits=_limits(scores),
        warned=warned,
        tiles=_tiles(scores),
        figure=_figure(scores, calibrated),
        cards=cards(atlas, scores, worst[:CARDS]),
        scale=figures.scale(),
        rows=[(names[i], *_numbers(scores, i)) for i in worst[:LINES]],
        hidden=max(0, len(scores) - LINES),
        made=_made(atlas, calibrated),
    )


def worst_first(scores: OodScores) -> list[int]:
    """Positions by score, highest first."""
    order: list[int] = scores.score.double().argsort(descending=True, stable=True).tolist()
    return order


def sentences(scores: OodScores, calibrated: Calibrated) -> list[str]:
    """What came out, in words: the count first, then what it means and what it stands on."""
    n, out, m = len(scores), int((scores.verdict == int(Membership.OUT)).sum()), scores.calibrated
    low, high = wilson_interval(out / n, n)
    are = "is" if out == 1 else "are"
    head = f"{out} of {n} images {are} out of distribution ({percent(out / n)}, 95 % interval {span(low, high)})."
    level = _level(scores)
    if calibrated.threshold(scores.level) is None:
        few = math.ceil(1 / scores.level - 1e-9) - 1
        chance = f"With {m} calibration images nothing can be out at level {level}; it takes at least {few}."
    else:
        some = max(out, 1)
        rare = probability(chance_of_so_many(some, n, m, scores.level))
        chance = (
            f"Out means: more unusual than all but {level} of images like those it was calibrated on. If all {n} were "
            f"like them, about {scores.level * n:.1f} would be out by chance, and {some} or more with "
            f"probability {rare}."
        )
    found = int(scores.discoveries(scores.level).sum())
    together = (
        f"Looked at all at once, {found} stand out so clearly that on average at most {level} of these "
        "are false alarms (Benjamini and Hochberg)."
    )
    basis = (
        f"The detector {scores.detector} was fitted to {calibrated.fitted} in-distribution images and calibrated on "
        f"{m} others of other subjects; each p-value is the share of these that are at least as unusual."
    )
    return [head, chance, together, basis]


def _level(scores: OodScores) -> str:
    """The level in percent, as it was given."""
    return f"{100 * scores.level:g} %"


def _limits(scores: OodScores) -> list[str]:
    return [
        f"The level holds over in-distribution images as a whole ({_level(scores)} of them are called out), not "
        "for every kind of them: a rare scanner among them may be called out more often.",
        "In distribution means like the reference images; whether those are what the networks were trained on, or what "
        "they are right about, is not asked here. An image that is in may still be decided wrongly.",
        "A map shows what the detector found unusual. It is no segmentation, and its colours are those of the images "
        "below alone.",
    ]


def _tiles(scores: OodScores) -> list[tuple[str, str, str]]:
    n, out = len(scores), int((scores.verdict == int(Membership.OUT)).sum())
    nfe = {
        "U-Net": scores.nfe_unet_forward, "autoencoder": scores.nfe_autoencoder, "classifier": scores.nfe_classifier,
        "features": scores.nfe_features,
    }  # fmt: skip
    spent = [f"{float(v.double().mean()):.3g} {name}" for name, v in nfe.items() if int(v.sum())]
    return [
        (f"{percent(out / n)}", "out of distribution", f"{out} of {n} images"),
        (f"{_level(scores)}", "level", "share of in-distribution images that may be called out"),
        (f"{float(scores.p.min()):.2g}", "lowest p-value", f"none can be below {1 / (scores.calibrated + 1):.2g}"),
        (str(scores.calibrated), "calibration images", "in distribution, not fitted to"),
        (", ".join(spent) or "none", "evaluations an image", f"{float(scores.seconds.double().mean()):.2g} s an image"),
    ]


def _figure(scores: OodScores, calibrated: Calibrated) -> str:
    """The two histograms; scores far beyond those of calibration do not squeeze these."""
    known, score = calibrated.scores.double(), scores.score.double()
    span = float(known.max() - known.min()) or 1.0
    calm = min(float(torch.cat([known, score]).max()), float(known.max()) + 2 * span)
    return figures.against(known, score, calibrated.threshold(scores.level), calm)


def cards(atlas: Atlas[OodScores], scores: OodScores, shown: Sequence[int]) -> list[Card]:
    """Cards of some positions, in their order."""
    rows = sorted(int(scores.row[i]) for i in shown)
    found, cohort = atlas.read(rows), atlas.read_cohort(rows)
    ends = None if found.map is None or not len(rows) else figures.limits(found.map)
    at = {row: k for k, row in enumerate(rows)}
    return [_card(found, cohort, at[int(scores.row[i])], ends) for i in shown]


def _card(found: OodScores, cohort: Cohort, k: int, ends: tuple[float, float] | None) -> Card:
    place = centre(array(found.map[k, 0])) if found.map is not None else tuple(s // 2 for s in cohort.space)
    seen = None if found.map is None or ends is None else figures.coloured(found.map[k], place, ends)
    p, score, verdict = _numbers(found, k)
    more = [(name.replace("_", " "), f"{float(v[k]):.3g}") for name, v in found.statistics.items()]
    facts = [("p", p), ("score", score), *more[:4]]
    return Card(cohort.ids[k], verdict == "out", facts, data_uri(picture(array(cohort.x[k]), place)), seen)


def _numbers(scores: OodScores, k: int) -> tuple[str, str, str]:
    verdict = "out" if int(scores.verdict[k]) == int(Membership.OUT) else "in"
    return f"{float(scores.p[k]):.3g}", f"{float(scores.score[k]):.4g}", verdict


def _made(atlas: Atlas[OodScores], calibrated: Calibrated) -> list[tuple[str, str]]:
    """What the rows were made of, and where."""
    about, settings = atlas.attributes, ", ".join(f"{k} {v}" for k, v in calibrated.settings.items())
    made = about.get("made", {})
    found = [("settings", settings or "the detector's own"), ("command", made.get("command", ""))]
    found += [("hardware", made.get("hardware", "")), ("date", made.get("date", ""))]
    return [(k, v) for k, v in found if v] + sorted(about["cfx_fingerprint"].items())

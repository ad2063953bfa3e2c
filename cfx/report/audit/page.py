"""The page of an audit: how good the networks are, the verdict, what it rests on, and what it does not say."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cfx.confounder.audit import Audit
from cfx.confounder.intervention import IDENTITY, NEEDED, OPPOSITE, ROUND_TRIP, ROUND_TRIP_SAME, SAME, UNTOUCHED
from cfx.confounder.observed.balance import Balance
from cfx.confounder.observed.clusters import Clusters
from cfx.confounder.probes.table import HEAD, comparison
from cfx.confounder.reliance import Outcome, Reliance
from cfx.confounder.witnesses import Witnesses
from cfx.core.crossed import Effect
from cfx.display.templates import render
from cfx.models.gate import OUT
from cfx.report.audit import figures

MEANING = {
    "untouched": "the images as they are",
    IDENTITY: "through the same machinery, unchanged",
    ROUND_TRIP: "changed as for opposite and back, interpolated as often: what changing alone does",
    ROUND_TRIP_SAME: "changed as for same and back",
    SAME: "with the confounder of another image of the same class",
    OPPOSITE: "with the confounder of an image of the other class",
    "random": "a random warp of the inside, as large as that of opposite, outline kept",
    "normalised": "with the mean shape",
}


@dataclass(frozen=True)
class Section:
    """A heading, paragraphs, figures and a table; `numbers` are the columns set as figures."""

    title: str
    text: Sequence[str] = ()
    figures: Sequence[tuple[str, str]] = ()
    header: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numbers: Sequence[int] = ()


def audit_page(found: Audit, title: str) -> str:
    """The page as HTML, self-contained."""
    r = found.reliance
    calm = r.verdict is Outcome.RELIES and r.plan.role == "mediator"
    return render(
        "cfx.report",
        "audit.html.j2",
        title=title,
        subtitle=f"{r.n} images, {len(r.by_seed)} networks, role declared: {r.plan.role}",
        competence=_competence(r),
        judged=r.verdict is not Outcome.UNJUDGED,
        kind="mediator" if calm else str(r.verdict).replace(" ", "-"),
        verdict=str(r.verdict).capitalize(),
        sentence=r.sentence,
        tiles=_tiles(r),
        sections=_sections(found),
        unit=r.unit,
    )


def _competence(r: Reliance) -> str:
    """How good the networks are."""
    if r.scored:
        return "A score of images, which has no classes to know; the classes here are those of the images."
    found = r.competence
    more = f" AUC {found.auc:.2f}, calibration error {found.ece:.2g}." if math.isfinite(found.auc) else ""
    return f"The mean of the networks decides the untouched images with {found}.{more}"


def _tiles(r: Reliance) -> list[tuple[str, str, str]]:
    lost = r.accuracy[SAME] - r.accuracy[OPPOSITE]
    return [
        (f"{r.effect.value:+.2f}", f"effect ({r.unit})", f"{r.effect.low:+.2f} to {r.effect.high:+.2f}"),
        (_p(r.effect.p_value), "p, crossed", f"by sign flips {_p(r.p_sign_flip)}"),
        (_p(r.p_equivalence), "p, equivalence", f"margin {r.margin:.2f} {r.unit}"),
        (f"{lost:+.1%}", "accuracy lost", f"{r.accuracy[SAME]:.1%} to {r.accuracy[OPPOSITE]:.1%}, balanced"),
        (f"{r.flipped:.1%}", "decisions changed", f"exact McNemar p {_p(r.p_mcnemar)}"),
        (str(r.excluded), "images left out", "their change did not come out as it should"),
    ]


def _sections(found: Audit) -> list[Section]:
    parts = [_arms(found.reliance), _doses(found.reliance), _examples(found)]
    parts += [] if found.exact is None else [_exact(found.reliance, found.exact)]
    if (w := found.witnesses) is not None:
        parts += [
            _evidence(found.reliance, w),
            *_masks(found.reliance, w),
            *_observational(w),
            _balance(w.balance),
            *([] if w.clusters is None else [_groups(w, w.clusters)]),
        ]
    return [*parts, _plan(found), _limits(found.reliance)]


def _arms(r: Reliance) -> Section:
    rows = [
        [
            name.replace("_", " "),
            _effect(e),
            f"{r.accuracy[name]:.3f}",
            *([f"{r.out[name].value:.1%}"] if r.out else []),
            MEANING.get(name, "a part of the way"),
        ]
        for name, e in r.arms.items()
    ]
    text = [
        "What each arm does to the score of the untouched image, its margin towards the other class. The effect is "
        "opposite minus same: both arms are changed alike and differ only in whose confounder they show. The control "
        "is round trip minus round trip same, changed and interpolated as much, but ending as they began. The band is "
        "the margin: an effect within it counts as none, and controls must lie there. Dots on the right are networks.",
        f"Effect {_effect(r.effect)}, control {_effect(r.control)}, effect less control {_effect(r.net)} {r.unit}.",
    ]
    alt = "Forest plot of the effect and of every arm, with one dot a network"
    header = [
        "Arm",
        f"Change ({r.unit})",
        "Balanced accuracy",
        *(["Out of distribution"] if r.out else []),
        "What it is",
    ]
    text += [_out(r)] if r.out else []
    return Section("The intervention", text, [(figures.effects(r), alt)], header, rows, (1, 2, 3) if r.out else (1, 2))


def _out(r: Reliance) -> str:
    """What the gate says of the arms."""
    same, other, untouched = (f"{r.out[k].value:.1%}" for k in (SAME, OPPOSITE, UNTOUCHED))
    low, high = r.out[OPPOSITE].low, r.out[OPPOSITE].high
    return (
        f"Out of distribution to the gate (p at most {OUT:g}): {other} [{low:.1%}, {high:.1%}] of the images of "
        f"opposite and {same} of same, {untouched} of the untouched ones."
    )


def _doses(r: Reliance) -> Section:
    text = [f"A confounder that is used acts by degrees. Slope of a whole dose: {_effect(r.slope)} {r.unit}."]
    return Section("Dose and response", text, [(figures.doses(r.doses, r.unit), "Score against dose")])


def _examples(found: Audit) -> Section:
    shown = {k: v for k, v in found.examples.items() if k in (*NEEDED, "random", "normalised")}
    text = ["Two images of each class in every arm; red is brighter in opposite than in same, blue darker."]
    return Section("What was shown", text, [(figures.gallery(shown, found.names), "Images in every arm")])


def _exact(r: Reliance, exact: Reliance) -> Section:
    rows = [
        [name, _effect(v.effect), str(v.verdict)] for name, v in (("shape transfer", r), ("exact, rendered", exact))
    ]
    text = ["These images are simulated: the same subjects can be rendered with the other planted shape, exactly."]
    return Section("Against the truth", text, (), ["Intervention", f"Effect ({r.unit})", "Verdict"], rows, (1,))


def _evidence(r: Reliance, found: Witnesses) -> Section:
    rows = [["reliance (intervention)", _effect(r.effect), _p(found.adjusted["reliance"])]]
    if found.partial is not None:
        name = "partial, observational: predictions and confounder, given the class"
        rows.append([name, f"R² {found.partial.statistic:.3f}", _p(found.adjusted["partial"])])
    if found.full is not None:
        name = "full, observational: class and predictions, given the confounder"
        rows.append([name, f"R² {found.full.statistic:.3f}", "-"])
    for rung in () if found.ladder is None else found.ladder.rungs:
        ba = rung.scores["ba"]
        p = _p(found.adjusted["probe"]) if found.ladder and rung is found.ladder.rungs[-1] else "-"
        rows.append([f"probe: class from the mask, {rung.name}", f"BA {ba.value:.3f} [{ba.low:.3f}, {ba.high:.3f}]", p])
    text = [
        "One question, several witnesses. The intervention speaks of the classifier, the partial test of how its "
        "predictions go with the confounder, the probe of the data alone: what could be learned. The p-values "
        "are adjusted by Holm over the tests that have one here.",
    ]
    return Section("All evidence", text, (), ["Evidence", "Size", "p (Holm)"], rows, (1, 2))


def _masks(r: Reliance, found: Witnesses) -> list[Section]:
    """The classes told apart by their masks alone, in the layout in which such comparisons are usually printed."""
    if found.ladder is None:
        return []
    a, b = found.balance.classes
    lines = [
        (rung.name, comparison(a, b, rung.scores, rung.p_value, alpha=r.plan.alpha)) for rung in found.ladder.rungs
    ]
    text = [
        "TNR is the share of the first class, TPR that of the second that is recognised; a tick where BA beats chance."
    ]
    header = ["View of the mask", *HEAD]
    return [Section("Told from the mask alone", text, (), header, [[name, *line] for name, line in lines], (3, 4, 5))]


def _observational(found: Witnesses) -> list[Section]:
    if not found.observational:
        return []
    p = found.observational_adjusted
    rows = [[name, f"{t.statistic:.3f}", _p(p[name])] for name, t in found.observational.items()]
    text = [
        "Observational: do the predictions know more of a covariate than the class explains? An association is no "
        "cause, and none here enters the verdict. Adjusted by Holm over the covariates.",
    ]
    header = ["Covariate", "R² given the class", "p (Holm)"]
    return [Section("What predictions go with (observational)", text, (), header, rows, (1, 2))]


def _balance(b: Balance) -> Section:
    rows = [(c.name, c.difference, c.low, c.high, c.finding == "differs") for c in b.rows]
    advice = f"Match the classes on {', '.join(b.matching)}." if b.matching else "No covariate calls for matching."
    seen = b.two_sample["image"]
    together = f"What is read off the images tells them apart with AUC {seen.auc:.2f} (p {_p(seen.p_value)})."
    text = [f"Do the classes match in what should not tell them apart? Finding: {b.finding}. {together} {advice}"]
    return Section("The data", text, [(figures.love(rows), "Love plot of standardised differences")])


def _groups(found: Witnesses, clusters: Clusters) -> Section:
    rows = [[a.name, f"{a.value:.3f}", a.measure, _p(a.p_holm)] for a in found.associations]
    sizes = ", ".join(map(str, clusters.sizes))
    text = [f"Sensitivity maps fall into {len(clusters.sizes)} group(s) of {sizes}. What goes with them:"]
    header = ["Column", "Association", "Measure", "p (Holm)"]
    return Section("Ways of deciding", text, (), header, rows if len(clusters.sizes) > 1 else (), (1, 3))


def _plan(found: Audit) -> Section:
    rows = [[k, str(v)] for k, v in found.reliance.plan.model_dump().items()]
    text = [f"Written before the first network ran. SHA-256 {found.plan_sha256}."]
    return Section("The plan", text, (), ["Key", "Value"], rows)


def _limits(r: Reliance) -> Section:
    scope = "this way of training" if len(r.by_seed) > 1 else "this one network"
    return Section(
        "What is claimed, and what is not",
        [
            f"The verdict is about {scope}, on images like these, and about a change like the one shown above. "
            "No reliance means an effect within the margin, not none at all.",
            "Whether reliance is a fault depends on the causal role that was declared. A mediator, such as a shape "
            "that the disease itself changes, is a legitimate reason. Data cannot tell the roles apart.",
        ],
    )


def _effect(e: Effect) -> str:
    return f"{e.value:+.3f} [{e.low:+.3f}, {e.high:+.3f}]"


def _p(p: float) -> str:
    return f"{p:.2g}" if p >= 1e-4 else "< 0.0001"

"""The reliance test: does a classifier use a confounder, by how much, and may its absence be claimed?

Of image i and network k, in logits, positive where the decision moves towards the other class:

    effect    e[k, i] = score(opposite) - score(same)                 the confounder, and what changing differs in
    control   c[k, i] = score(round_trip) - score(round_trip_same)    the latter alone: the shape is its own
    net       e - c                                                   the confounder

All arms of e and c are changed as much and as often, so that what changing does to any image alike cancels in each.
Networks, images and donors are random samples (`core.crossed`): the verdict speaks of the way of training, not of one
network on these images. With the margin m and the level alpha of the plan, fixed beforehand:

    not judged      the networks' mean is not shown to know the classes (`models.competence`): nothing to be right about
                    (unless the plan says `judge_anyway`)
    no reliance     e and e - c lie within (-m, m), each by two one-sided tests (Schuirmann 1987)
    relies          e and e - c differ from 0 in the same direction, e confirmed by sign flips over images and networks
    artefact        one of them holds of e, but a control speaks against it: identity, a round trip (each against the
                    untouched image) or c differs from 0 and is not shown, by two one-sided tests, to lie within
                    (-m, m); or c differs from 0, and what holds of e does not hold of e - c
    inconclusive    neither holds, or a control is too uncertain: more networks or images are needed

Which errors are controlled: `relies` needs two rejections and `no reliance` two, so each is an intersection-union test
(Berger 1982) of level alpha. `relies` is said with probability at most alpha where the confounder does nothing, and
where it does nothing beyond what changing does; `no reliance` where it does m or more. The controls can only take a
claim away. How often each is said in truth is measured in docs/bench/reliance.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from cfx.confounder.intervention import (
    IDENTITY,
    NEEDED,
    OPPOSITE,
    ROUND_TRIP,
    ROUND_TRIP_SAME,
    SAME,
    UNTOUCHED,
    Scores,
    dose_arm,
)
from cfx.confounder.plan import Plan
from cfx.core.crossed import Effect, crossed_effect, sign_flip
from cfx.core.errors import InputError
from cfx.core.groups import numbered, sums
from cfx.core.scores import balanced_accuracy
from cfx.core.statistics import Estimate, wilson_interval
from cfx.models.competence import Competence, competence_of
from cfx.models.gate import OUT

_CONTROLS = (IDENTITY, ROUND_TRIP, ROUND_TRIP_SAME)


class Outcome(StrEnum):
    """What may be said."""

    RELIES = "relies"
    NONE = "no reliance"
    INCONCLUSIVE = "inconclusive"
    ARTEFACT = "artefact"
    UNJUDGED = "not judged"


@dataclass(frozen=True)
class Reliance:
    """Outcome of a reliance test.

    Attributes:
        plan: What was fixed beforehand.
        verdict: What may be said.
        effect: score(opposite) - score(same), logits.
        control: The same of both round trips: what changing alone does.
        net: The effect less the control, image by image.
        competence: How well the networks' mean decides the untouched images.
        margin: Largest effect that counts as none, logits.
        p_sign_flip: The larger p of sign flips over images and over networks (images alone with one network).
        p_equivalence: p of the two one-sided tests against the margin.
        arms: What each arm does to the score of the untouched image, logits.
        doses: Change of the score at every dose, 1 (`opposite`) the last, logits.
        slope: The same for a whole dose, by regression on all doses.
        accuracy: Balanced accuracy of the networks' mean score in every arm.
        p_mcnemar: Exact McNemar test of right decisions, `same` against `opposite`, image by image.
        flipped: Share of images that `opposite` decides otherwise than `same`.
        explained: Share of the accuracy above chance that goes with the confounder, (BA_same - BA_opposite) /
            (BA_same - 0.5); NaN where `same` is at chance.
        by_seed: Mean effect of every network.
        by_row: Mean effect of every image that took part.
        n: Images that took part.
        excluded: Images left out because their change did not come out as it should.
        quality: Mean of every quality number over the images that took part.
        out: Share of the images of each arm that are out of distribution to the gate (p at most `cfx.models.gate.OUT`);
            none without a gate. Where more are out in an arm than untouched, the networks were shown what they are not
            made for, and so much less is known of their reasons.
        scored: Whether the networks are scores (`cfx.models.wrappers.Score`): there is no competence to ask for, and
            effects are in standard deviations of the score.
    """

    plan: Plan
    verdict: Outcome
    effect: Effect
    control: Effect
    net: Effect
    competence: Competence
    margin: float
    p_sign_flip: float
    p_equivalence: float
    arms: Mapping[str, Effect]
    doses: Mapping[float, Effect]
    slope: Effect
    accuracy: Mapping[str, float]
    p_mcnemar: float
    flipped: float
    explained: float
    by_seed: Float[Tensor, " k"]
    by_row: Float[Tensor, " n"]
    n: int
    excluded: int
    quality: Mapping[str, float]
    out: Mapping[str, Estimate] = field(default_factory=dict)
    scored: bool = False

    @property
    def unit(self) -> str:
        """What effects are measured in."""
        return "standard deviations" if self.scored else "logits"

    @property
    def fault(self) -> bool:
        """Whether the classifier is right for a wrong reason: it relies on what was declared a confounder."""
        return self.verdict is Outcome.RELIES and self.plan.role == "confounder"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        what, e = self.plan.confounder, self.effect
        who = "score" if self.scored else "classifier"
        size = f"{e.value:+.2f} {self.unit} [{e.low:+.2f}, {e.high:+.2f}], p = {e.p_value:.2g}"
        size += "" if len(self.by_seed) > 1 else " (one network; others trained alike may differ)"
        match self.verdict:
            case Outcome.RELIES if self.plan.role == "confounder":
                return f"The {who} relies on {what}, a confounder: {size}."
            case Outcome.RELIES if self.plan.role == "mediator":
                return f"The {who} uses {what}, by which the classes themselves differ; that is no fault: {size}."
            case Outcome.RELIES:
                return f"The {who} relies on {what}, a collider: its data were selected by it: {size}."
            case Outcome.NONE:
                return f"No reliance on {what} beyond {self.margin:.2f} {self.unit}: {size}."
            case Outcome.ARTEFACT:
                return f"The change of {what} itself moves the {who}; nothing can be said: {size}."
            case Outcome.UNJUDGED:
                return f"Not judged, no competence: {self.competence} is not shown to be better than guessing."
            case _:
                return f"Inconclusive: more networks or images are needed to judge {what}: {size}."

    def summary(self) -> dict[str, Any]:
        """Flat figures, for `summary.json`."""
        e, plan = self.effect, self.plan
        values: dict[str, Any] = {"verdict": str(self.verdict), "fault": self.fault}
        values |= {"role": plan.role, "confounder": plan.confounder, "networks": len(self.by_seed)}
        values |= {"effect": e.value, "effect_low": e.low, "effect_high": e.high, "p_value": e.p_value}
        for name in ("control", "net"):
            part = getattr(self, name)
            values |= {f"{name}_effect": part.value, f"{name}_effect_low": part.low, f"{name}_effect_high": part.high}
        ba = self.competence.accuracy
        if self.scored:
            values |= {"unit": self.unit}
        else:
            values |= {"competence": ba.value, "competence_low": ba.low, "competence_high": ba.high}
            values |= {"auc": self.competence.auc}
        values["judged"] = self.verdict is not Outcome.UNJUDGED
        values |= {} if values["judged"] else {"why": self.sentence}
        values |= {k: getattr(self, k) for k in ("p_sign_flip", "p_equivalence", "p_mcnemar", "margin")}
        values |= {k: getattr(self, k) for k in ("n", "excluded", "flipped", "explained")}
        for name, arm in self.arms.items():
            values |= {f"{name}_arm": arm.value, f"{name}_arm_low": arm.low, f"{name}_arm_high": arm.high}
        for name, share in self.out.items():
            key = f"gate_out_{name}"
            values |= {key: share.value, f"{key}_low": share.low, f"{key}_high": share.high}
        return values | {f"ba_{name}": value for name, value in self.accuracy.items()} | dict(self.quality)


def decide(scores: Scores, plan: Plan, *, groups: Int[Tensor, " _"] | None = None, scored: bool = False) -> Reliance:
    """Judge measured scores by a plan.

    Args:
        scores: The scores.
        plan: The plan.
        groups: Subject of every image, where some have several: subjects are the random sample then.
        scored: Whether the networks are scores, which have no classes to know.

    Raises:
        InputError: another number of networks than the plan says, fewer than two rows of each class whose change came
            out as it should, or a dose of the plan that no arm shows.
    """
    plan.check_networks(scores.networks)
    missing = [name for name in NEEDED if name not in scores.score]
    if missing:
        raise InputError(f"scores: expected the arms {list(NEEDED)}, got none called {missing}")
    absent = [t for t in plan.doses if dose_arm(t) not in scores.score]
    if absent:
        raise InputError(f"plan.doses: expected doses among the arms {list(scores.score)}, got {absent}")
    ok = scores.ok
    y = scores.y[ok]
    if len(y.unique()) < 2 or int(y.unique(return_counts=True)[1].min()) < 2:
        raise InputError(f"scores: expected two usable rows of two classes, got {int(ok.sum())} of {len(ok)}")
    s = {name: scores.arm(name)[:, ok].double() for name in scores.score}
    e, parts = effect_of(scores)
    sample: dict[str, Any] = {"groups": None if groups is None else numbered(groups, len(ok))[ok], "alpha": plan.alpha}
    effect = crossed_effect(e, donors=parts, **sample)
    (c, undone), (n, beyond) = control_of(scores), net_of(scores)
    control, net = crossed_effect(c, donors=undone, **sample), crossed_effect(n, donors=beyond, **sample)
    competence = _competence(s[UNTOUCHED].mean(0), y, sample["groups"], plan.alpha)
    known = plan.judge_anyway or competence.shown or scored
    margin = plan.margin * float(s[UNTOUCHED].abs().mean())
    arms = {k: crossed_effect(v - s[UNTOUCHED], **sample) for k, v in s.items() if k != UNTOUCHED}
    curve = {t: s[dose_arm(t)] - s[scores.start] for t in plan.doses} | {1.0: s[OPPOSITE] - s[scores.start]}
    own = e.mean(0) if groups is None else sums(e.mean(0), numbered(sample["groups"], e.shape[1]))
    flipped = [own, e.mean(1)] if len(e) > 1 else [own]
    flips = [sign_flip(values, draws=plan.flips, seed=plan.seed) for values in flipped]
    right = {name: score.mean(0) < 0 for name, score in s.items()}
    accuracy = {name: float(balanced_accuracy(r, y)) for name, r in right.items()}
    lost, won = int((right[SAME] & ~right[OPPOSITE]).sum()), int((right[OPPOSITE] & ~right[SAME]).sum())
    return Reliance(
        plan=plan,
        verdict=_verdict(effect, net, known, [control, *(arms[k] for k in _CONTROLS)], margin, max(flips)),
        effect=effect,
        control=control,
        net=net,
        competence=competence,
        margin=margin,
        arms=arms,
        p_sign_flip=max(flips),
        p_equivalence=effect.p_equivalence(margin),
        doses={t: crossed_effect(v, **sample) for t, v in curve.items()},
        slope=_slope(curve, sample),
        accuracy=accuracy,
        p_mcnemar=float(stats.binomtest(lost, lost + won).pvalue) if lost + won else 1.0,
        flipped=float((right[SAME] != right[OPPOSITE]).double().mean()),
        explained=_explained(accuracy),
        by_seed=e.mean(1),
        by_row=e.mean(0),
        n=int(ok.sum()),
        excluded=int((~ok).sum()),
        quality={name: float(q[ok].mean()) for name, q in scores.quality.items()},
        out={name: _share_out(p[ok], sample["groups"]) for name, p in scores.gate_p.items()},
        scored=scored,
    )


def _share_out(p: Float[Tensor, " m"], groups: Int[Tensor, " m"] | None) -> Estimate:
    """Share of images that are out of distribution, with Wilson's interval of as many units as there are subjects."""
    share = float((p <= OUT).double().mean())
    return Estimate(share, *wilson_interval(share, len(p) if groups is None else len(groups.unique())))


Parts = tuple[Float[Tensor, "k m"], list[tuple[Tensor, Tensor]]]


def effect_of(scores: Scores) -> Parts:
    """score(opposite) - score(same) of the rows that take part, and its two parts with their donors (if any)."""
    return _difference(scores, (OPPOSITE, IDENTITY), (SAME, IDENTITY))


def control_of(scores: Scores) -> Parts:
    """The same of the round trips."""
    return _difference(scores, (ROUND_TRIP, IDENTITY), (ROUND_TRIP_SAME, IDENTITY))


def net_of(scores: Scores) -> Parts:
    """The effect less the control: each arm against its own round trip."""
    return _difference(scores, (OPPOSITE, ROUND_TRIP), (SAME, ROUND_TRIP_SAME))


def _difference(scores: Scores, other: tuple[str, str], own: tuple[str, str]) -> Parts:
    """(a - b) of the arms that borrow from the other class less (a - b) of those that borrow from their own."""
    s = {name: scores.arm(name)[:, scores.ok].double() for name in (*other, *own)}
    parts = s[other[0]] - s[other[1]], s[own[1]] - s[own[0]]
    lenders = [] if scores.other is None or scores.own is None else [scores.other[scores.ok], scores.own[scores.ok]]
    return parts[0] + parts[1], list(zip(parts, lenders, strict=False))


def _competence(score: Float[Tensor, " m"], y: Int[Tensor, " m"], groups: Tensor | None, alpha: float) -> Competence:
    """How well these margins towards the other class decide."""
    toward_one = torch.where(y == 1, -score, score)
    found = competence_of(torch.stack([torch.zeros_like(toward_one), toward_one], 1), y, groups, level=1 - alpha)
    assert found is not None  # there are two classes
    return found


def _verdict(
    effect: Effect, net: Effect, known: bool, controls: Sequence[Effect], margin: float, p_flip: float
) -> Outcome:
    """What may be said, see the head of this module; `known`: of networks that know their classes, or are taken to.

    The first of the controls is that of the effect.
    """
    alpha = effect.alpha
    if not known:
        return Outcome.UNJUDGED
    none = [e.p_equivalence(margin) < alpha for e in (effect, net)]
    moves = [max(effect.p_value, p_flip) < alpha, net.p_value < alpha and net.value * effect.value > 0]
    loose = [c for c in controls if not c.p_equivalence(margin) < alpha]
    for outcome, said in ((Outcome.NONE, none), (Outcome.RELIES, moves)):
        if all(said) and not loose:
            return outcome
    blamed = loose or controls[:1] if none[0] or moves[0] else []
    return Outcome.ARTEFACT if any(c.p_value < alpha for c in blamed) else Outcome.INCONCLUSIVE


def _explained(accuracy: Mapping[str, float]) -> float:
    above = accuracy[SAME] - 0.5
    return (accuracy[SAME] - accuracy[OPPOSITE]) / above if above > 0 else float("nan")


def _slope(curve: Mapping[float, Tensor], sample: Mapping[str, Any]) -> Effect:
    """Least-squares slope of the score on the dose (0 at dose 0), of every network and image."""
    t = torch.tensor([0.0, *curve], dtype=torch.float64)
    weight = (t - t.mean()) / (t - t.mean()).square().sum()
    return crossed_effect(torch.tensordot(weight[1:], torch.stack([*curve.values()]), 1), **sample)

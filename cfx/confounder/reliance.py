"""The reliance test: does a classifier use a confounder, by how much, and may its absence be claimed?

Effect of image i on network k: e[k, i] = score(opposite) - score(same), in logits; positive where the other class's
confounder moves the decision towards that class. Networks, images and donors are random samples (`core.crossed`), so
the verdict speaks of the way of training, not of one network on these images.

    artefact        the effect differs from none, but a control arm (identity, round trip) has 10 % of it or more; or
                    a control alone is larger than the margin where no reliance would be claimed
    no reliance     the effect lies within (-m, m): two one-sided tests (Schuirmann 1987), m fixed beforehand
    relies          the effect differs from 0, confirmed by sign flips over images and over networks
    inconclusive    neither: more networks or images are needed
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from jaxtyping import Float, Int
from scipy import stats
from torch import Tensor

from cfx.confounder.intervention import IDENTITY, OPPOSITE, ROUND_TRIP, SAME, UNTOUCHED, Scores, dose_arm
from cfx.confounder.plan import Plan
from cfx.core.crossed import Effect, crossed_effect, sign_flip
from cfx.core.errors import InputError
from cfx.core.groups import numbered, sums
from cfx.core.scores import balanced_accuracy


class Outcome(StrEnum):
    """What may be said."""

    RELIES = "relies"
    NONE = "no reliance"
    INCONCLUSIVE = "inconclusive"
    ARTEFACT = "artefact"


@dataclass(frozen=True)
class Reliance:
    """Outcome of a reliance test.

    Attributes:
        plan: What was fixed beforehand.
        verdict: What may be said.
        effect: score(opposite) - score(same), logits.
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
    """

    plan: Plan
    verdict: Outcome
    effect: Effect
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

    @property
    def fault(self) -> bool:
        """Whether the classifier is right for a wrong reason: it relies on what was declared a confounder."""
        return self.verdict is Outcome.RELIES and self.plan.role == "confounder"

    @property
    def sentence(self) -> str:
        """The verdict in words."""
        what, e = self.plan.confounder, self.effect
        size = f"{e.value:+.2f} logits [{e.low:+.2f}, {e.high:+.2f}], p = {e.p_value:.2g}"
        size += "" if len(self.by_seed) > 1 else " (one network; others trained alike may differ)"
        match self.verdict:
            case Outcome.RELIES if self.plan.role == "confounder":
                return f"The classifier relies on {what}, a confounder: {size}."
            case Outcome.RELIES if self.plan.role == "mediator":
                return f"The classifier uses {what}, by which the disease acts; that is no fault: {size}."
            case Outcome.RELIES:
                return f"The classifier relies on {what}, a collider: its data were selected by it: {size}."
            case Outcome.NONE:
                return f"No reliance on {what} beyond {self.margin:.2f} logits: {size}."
            case Outcome.ARTEFACT:
                return f"The change of {what} itself moves the classifier; nothing can be said: {size}."
            case _:
                return f"Inconclusive: more networks or images are needed to judge {what}: {size}."

    def summary(self) -> dict[str, Any]:
        """Flat figures, for `summary.json`."""
        e, plan = self.effect, self.plan
        values: dict[str, Any] = {"verdict": str(self.verdict), "fault": self.fault}
        values |= {"role": plan.role, "confounder": plan.confounder, "networks": len(self.by_seed)}
        values |= {"effect": e.value, "effect_low": e.low, "effect_high": e.high, "p_value": e.p_value}
        values |= {k: getattr(self, k) for k in ("p_sign_flip", "p_equivalence", "p_mcnemar", "margin")}
        values |= {k: getattr(self, k) for k in ("n", "excluded", "flipped", "explained")}
        for name, arm in self.arms.items():
            values |= {f"{name}_arm": arm.value, f"{name}_arm_low": arm.low, f"{name}_arm_high": arm.high}
        return values | {f"ba_{name}": value for name, value in self.accuracy.items()} | dict(self.quality)


def decide(scores: Scores, plan: Plan, *, groups: Int[Tensor, " _"] | None = None) -> Reliance:
    """Judge measured scores by a plan.

    Args:
        scores: The scores.
        plan: The plan.
        groups: Subject of every image, where some have several: subjects are the random sample then.

    Raises:
        InputError: another number of networks than the plan says, fewer than two rows of each class whose change came
            out as it should, or a dose of the plan that no arm shows.
    """
    plan.check_networks(scores.networks)
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
        verdict=_verdict(effect, margin, arms, max(flips), plan),
        effect=effect,
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
    )


def effect_of(scores: Scores) -> tuple[Float[Tensor, "k m"], list[tuple[Tensor, Tensor]]]:
    """score(opposite) - score(same) of the rows that take part, and its two parts with their donors (if any)."""
    s = {name: scores.arm(name)[:, scores.ok].double() for name in (IDENTITY, SAME, OPPOSITE)}
    effect = s[OPPOSITE] - s[SAME]
    if scores.other is None or scores.own is None:
        return effect, []
    other, own = scores.other[scores.ok], scores.own[scores.ok]
    return effect, [(s[OPPOSITE] - s[IDENTITY], other), (s[IDENTITY] - s[SAME], own)]


def _verdict(effect: Effect, margin: float, arms: Mapping[str, Effect], p_flip: float, plan: Plan) -> Outcome:
    control = max(abs(arms[name].value) for name in (IDENTITY, ROUND_TRIP))
    if effect.p_equivalence(margin) < plan.alpha:
        return Outcome.NONE if control < margin else Outcome.ARTEFACT
    if max(effect.p_value, p_flip) < plan.alpha:
        return Outcome.RELIES if control < plan.artefact * abs(effect.value) else Outcome.ARTEFACT
    return Outcome.INCONCLUSIVE


def _explained(accuracy: Mapping[str, float]) -> float:
    above = accuracy[SAME] - 0.5
    return (accuracy[SAME] - accuracy[OPPOSITE]) / above if above > 0 else float("nan")


def _slope(curve: Mapping[float, Tensor], sample: Mapping[str, Any]) -> Effect:
    """Least-squares slope of the score on the dose (0 at dose 0), of every network and image."""
    t = torch.tensor([0.0, *curve], dtype=torch.float64)
    weight = (t - t.mean()) / (t - t.mean()).square().sum()
    return crossed_effect(torch.tensordot(weight[1:], torch.stack([*curve.values()]), 1), **sample)

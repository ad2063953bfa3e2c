"""A run in plain words: how good the classifier is, what came out, and the four figures a physician asks for.

A share of rows has Wilson's interval, with as many units as there are subjects: rows of one subject are alike, and to
count each subject once errs on the side of doubt.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cfx.core.cohort import Cohort, subjects
from cfx.core.statistics import Estimate, wilson_interval
from cfx.counterfactual.result import Counterfactuals, Verdict
from cfx.counterfactual.standing import Standing
from cfx.models.gate import OUT
from cfx.report.numbers import NONE, count, number, percent, probability, span
from cfx.report.reading import ORDER, run_sentence
from cfx.runtime.folder import Scalar

FAILED = {
    Verdict.BUDGET: "could not be changed enough within the search",
    Verdict.UNSTABLE: "turned back once noise was added and removed again, so the change may only trick this network",
    Verdict.REFUSED: "could not be worked on, as the classifier's answer was no number",
    Verdict.ALREADY: "had the class asked for already, and stayed as it was",
}
"""What became of the rows that were not flipped."""


@dataclass(frozen=True)
class Tile:
    """A headline figure: its value, what it is, and what to know about it."""

    value: str
    name: str
    remark: str


@dataclass(frozen=True)
class Share:
    """`k` of `n` rows, which are of so many `subjects`."""

    k: int
    n: int
    subjects: int

    @property
    def value(self) -> float:
        """The share."""
        return self.k / self.n

    @property
    def estimate(self) -> Estimate:
        """The share with its 95 % interval."""
        return Estimate(self.value, *wilson_interval(self.value, self.subjects))

    @property
    def interval(self) -> str:
        """Its 95 % interval in words."""
        once = "" if self.subjects == self.n else f", counting each of {self.subjects:,} subjects once"
        return f"95 % interval {span(self.estimate.low, self.estimate.high)}{once}"

    def __str__(self) -> str:
        return f"{self.k:,} of {self.n:,}"


@dataclass(frozen=True)
class Tally:
    """What there is to count in a result.

    Attributes:
        result: All rows; their images may be left unread.
        cohort: The cohort of the same rows, or None.
        metrics: Flat metrics of the run.
        pictured: Share of the image that changed visibly, of the rows that have pictures `(m,)`.
    """

    result: Counterfactuals
    cohort: Cohort | None
    metrics: Mapping[str, Scalar]
    pictured: Tensor

    def rows(self, verdict: Verdict) -> int:
        """Rows of a verdict."""
        return int((self.result.verdict == verdict).sum())

    def share(self, hit: Tensor, among: Tensor) -> Share | None:
        """How many of the rows `among` (boolean) are a `hit`; None if there are none."""
        n, of = int(among.sum()), None if self.cohort is None else subjects(self.cohort)
        return Share(int((hit & among).sum()), n, n if of is None else len(of[among].unique())) if n else None

    @cached_property
    def stands(self) -> Standing:
        """What the result itself knows of its networks."""
        return Standing.of(self.result.standing)

    @cached_property
    def is_flipped(self) -> Tensor:
        """Rows whose verdict is `flipped`."""
        return self.result.verdict == Verdict.FLIPPED

    @cached_property
    def flipped(self) -> Share:
        """Flipped of all rows."""
        n, of = len(self.result), None if self.cohort is None else subjects(self.cohort)
        return Share(int(self.is_flipped.sum()), n, n if of is None else len(of.unique()))

    @cached_property
    def agreed(self) -> Share | None:
        """Flipped rows that the oracle gives to the target too; None without an oracle or a flipped row."""
        after = self.result.oracle_probs_after
        return None if after is None else self.share(after.argmax(1) == self.result.target, self.is_flipped)

    @cached_property
    def agreed_before(self) -> int:
        """Flipped rows that the oracle gave to the target before anything was changed."""
        before = self.result.oracle_probs_before
        return 0 if before is None else int(((before.argmax(1) == self.result.target) & self.is_flipped).sum())

    @cached_property
    def labels(self) -> Tensor | None:
        """The class of each row's label, -1 where that is no class of the classifier; None without labels."""
        y = None if self.cohort is None else self.cohort.y
        if y is None or y.ndim != 1:
            return None
        known = (y >= 0) & (y < self.result.probs_before.shape[1])
        return torch.where(known, y, -1).long() if bool(known.any()) else None

    @cached_property
    def right(self) -> Share | None:
        """Labelled rows whose input the classifier gives to its label; None without labels."""
        if self.labels is None:
            return None
        answers = self.result.probs_before.nan_to_num(-1).argmax(1)
        return self.share((answers == self.labels) & self.result.probs_before.isfinite().all(1), self.labels >= 0)

    @cached_property
    def commonest(self) -> float:
        """Share of the commonest label: what always giving the same answer scores; NaN without labels."""
        known = torch.zeros(0).long() if self.labels is None else self.labels[self.labels >= 0]
        return float(known.bincount().max()) / len(known) if len(known) else math.nan

    @property
    def pixel(self) -> str:
        """What an image consists of."""
        return "voxels" if self.result.x.ndim == 5 else "pixels"


def unjudged(t: Tally) -> list[str]:
    """Why the run is not judged; nothing where it is, or where nobody asked."""
    if t.metrics.get("judged") is not False:
        return []
    return list(t.stands.reasons.values()) or [str(t.metrics.get("why") or "Why was not recorded.")]


def remarks(t: Tally) -> list[str]:
    """What else is known of the networks that a reader should know."""
    found = [*t.stands.remarks.values(), *(t.stands.reasons.values() if t.stands.anyway else ())]
    return found or [text for text in [str(t.metrics.get("remarks") or "")] if text]


def classifier(t: Tally) -> str:
    """How good the classifier is beside its `skills`; also that nobody knows."""
    if t.right is None and not skills(t):
        return (
            "That could not be told: there are no labelled images of its classes, neither as a reference nor among "
            "these. Nothing below says that it is right."
        )
    return _on_data(t)


@dataclass(frozen=True)
class Skill:
    """How good the classifier is on some images, formatted: balanced accuracy, area under the curve, calibration."""

    images: str
    accuracy: str
    auc: str
    ece: str


def skills(t: Tally) -> list[Skill]:
    """How good the classifier is on the reference and on the images themselves, where a run measured it."""
    found = []
    for prefix, on in (("", "reference images"), ("data_", "these images")):
        if (accuracy := _estimate(t.metrics, f"{prefix}competence")) is not None:
            auc, ece = (_estimate(t.metrics, f"{prefix}{name}") for name in ("auc", "ece"))
            area = NONE if auc is None else probability(auc.value)
            found.append(Skill(on, _ranged(accuracy), area, NONE if ece is None else number(ece.value, 2)))
    return found


def sentences(t: Tally) -> list[str]:
    """The verdict: what was changed, what failed, what is read of it, what oracle and gate say, how large it is.

    Of a run that is not judged nothing is said of what the classifier reads.
    """
    read = "" if unjudged(t) else run_sentence(t.result)
    oracle = _oracle(t)
    if unjudged(t) and t.agreed is not None:
        oracle += " That speaks of the generator: it draws what the oracle knows, whatever the classifier is."
    return [text for text in (_changed(t), _others(t), read, oracle, _gate(t), _size(t)) if text]


def tiles(t: Tally) -> list[Tile]:
    """How many flipped, how much of the change is read, whether the oracle agrees, and how large the change is."""
    return [_flipped_tile(t), _read_tile(t), _oracle_tile(t), _size_tile(t)]


def _changed(t: Tally) -> str:
    k, n = t.flipped.k, t.flipped.n
    if n == 1:
        return f"The image was {'' if k else 'not '}changed so that the classifier decides otherwise."
    who = f"All {n:,} images were" if k == n else f"{k:,} of {n:,} images {'was' if k == 1 else 'were'}"
    return f"{who if k else f'None of the {n:,} images was'} changed so that the classifier decides otherwise."


def _others(t: Tally) -> str:
    left = t.flipped.n - t.flipped.k
    parts = [(k, said) for verdict, said in FAILED.items() if (k := t.rows(verdict))]
    if not left:
        return ""
    if left == 1:
        return f"{'It' if t.flipped.n == 1 else 'The other'} {parts[0][1]}."
    who = f"Of the other {left:,}" if t.flipped.k else "Of these"
    return f"{who}, {'; '.join(f'{k:,} {said}' for k, said in parts)}."


def _oracle(t: Tally) -> str:
    if t.result.oracle_probs_after is None:
        return (
            "No independent network (oracle) was asked: whether the change shows anything of the new class to anyone "
            "but this classifier is not known."
        )
    if (found := t.agreed) is None:
        return ""
    if found.n == 1:
        return f"An independent network, the oracle, {'agrees' if found.k else 'does not agree'}{_before(t)}."
    return f"An independent network, the oracle, agrees with {found.k:,} of these {found.n:,}{_before(t)}."


def _before(t: Tally) -> str:
    """What the oracle had said before: to agree with it then proves nothing of the change."""
    if not t.agreed_before:
        return ""
    return f" ({t.agreed_before:,} of the flipped it gave to the new class before the change)"


def _gate(t: Tally) -> str:
    if t.result.gate_p is None or t.result.gate_p_before is None:
        return ""
    edited = ~t.result.gate_p.isnan()
    if (found := t.share(t.result.gated_out, edited)) is None:
        return ""
    before = int(((t.result.gate_p_before <= OUT) & edited).sum())
    return (
        f"Out of distribution to the gate (p at most {OUT:g}): {found} edited images; before the edit it was "
        f"{before:,} of them."
    )


def _size(t: Tally) -> str:
    found = size(t)
    if found is None:
        return ""
    over = f" on average over {found[1]}" if len(t.result) > 1 else ""
    return f"The change covers {percent(found[0].value)} of the {t.pixel}{over}."


def _on_data(t: Tally) -> str:
    if t.right is None:
        return ""
    guess = "" if better_than_guessing(t) else ", which is not shown to be better than guessing"
    return (
        f"Of the {count(t.right.n, 'labelled image')} here it decides {percent(t.right.value)} rightly{guess} "
        f"({t.right.interval}; always the commonest answer: {percent(t.commonest)})."
    )


def better_than_guessing(t: Tally) -> bool:
    """Whether the interval of the accuracy is above what always giving the commonest label scores."""
    return t.right is not None and t.right.estimate.low > t.commonest


def size(t: Tally) -> tuple[Estimate, str] | None:
    """Share of the image that changes visibly, with its interval, and over which rows; None if nobody measured it."""
    if (stated := _estimate(t.metrics, "changed_share")) is not None:
        return stated, f"all {count(len(t.result), 'row')}"
    if not len(t.pictured):
        return None
    return Estimate(float(t.pictured.mean()), math.nan, math.nan), f"the {count(len(t.pictured), 'row')} pictured below"


def _estimate(metrics: Mapping[str, Scalar], name: str) -> Estimate | None:
    """A metric with its interval, NaN where it has none."""
    value, *ends = (metrics.get(f"{name}{end}") for end in ("", "_low", "_high"))
    if not isinstance(value, float | int):
        return None
    return Estimate(float(value), *(float(end) if isinstance(end, float | int) else math.nan for end in ends))


def _flipped_tile(t: Tally) -> Tile:
    already = t.rows(Verdict.ALREADY)
    there = f"; {already:,} had the class already" if already else ""
    return Tile(str(t.flipped), "images flipped", f"{percent(t.flipped.value)}, {t.flipped.interval}{there}")


def _oracle_tile(t: Tally) -> Tile:
    if t.result.oracle_probs_after is None:
        return Tile(NONE, "oracle agrees", "not known: no independent network was asked")
    if (found := t.agreed) is None:
        return Tile(NONE, "oracle agrees", "no row was flipped")
    before = f"; {t.agreed_before:,} it gave to the new class before" if t.agreed_before else ""
    return Tile(str(found), "oracle agrees", f"{percent(found.value)} of the flipped, {found.interval}{before}")


def _size_tile(t: Tally) -> Tile:
    found = size(t)
    if found is None:
        return Tile(NONE, f"of the {t.pixel} change", "not measured")
    interval = f", {span(found[0].low, found[0].high)}" if math.isfinite(found[0].low) else ""
    return Tile(
        percent(found[0].value),
        f"of the {t.pixel} change",
        f"visibly, by over 1/40 of the range; mean of {found[1]}{interval}",
    )


def _read_tile(t: Tally) -> Tile:
    name, words = "of the change is read", [word for word in t.result.reading if word]
    if unjudged(t) or t.result.read_share is None or not words:
        return Tile(NONE, name, "not judged" if unjudged(t) else "not measured")
    counts = ", ".join(f"{word} {words.count(word):,}" for word in ORDER if word in words)
    share = float(t.result.read_share.double().nanmean())
    return Tile(percent(share), name, f"by the classifier; mean of {count(len(words), 'row')}: {counts}")


def _ranged(found: Estimate) -> str:
    """An estimate with its interval, where it has one."""
    interval = f" [{probability(found.low)}, {probability(found.high)}]" if math.isfinite(found.low) else ""
    return f"{probability(found.value)}{interval}"


def directions(t: Tally, names: Mapping[int, str]) -> list[tuple[str, str, str]]:
    """Rows by predicted and target class: (direction, flipped, oracle agrees), the commonest first."""
    before, k = t.result.probs_before, t.result.probs_before.shape[1]
    finite = before.isfinite().all(1)
    pair = torch.where(finite, before.nan_to_num(-1).argmax(1) * k + t.result.target.long(), -1)
    codes, counts = pair[finite].unique(return_counts=True)
    return [
        _direction(t, pair == code, divmod(code, k), names)
        for code in codes[counts.argsort(descending=True, stable=True)].tolist()
    ]


def _direction(t: Tally, here: Tensor, pair: tuple[int, int], names: Mapping[int, str]) -> tuple[str, str, str]:
    """The line of the rows that are `here`."""
    after = t.result.oracle_probs_after
    agreed = None if after is None else t.share(after.argmax(1) == t.result.target, here & t.is_flipped)
    source, target = (names.get(c, str(c)) for c in pair)
    return f"{source} → {target}", str(t.share(t.is_flipped, here)), str(agreed or NONE)

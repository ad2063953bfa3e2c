"""What kind of shift a batch of images has been through, in words; that there is none is an answer too.

A batch is compared with reference images of the distribution, which the detector was neither fitted nor calibrated to.
With s the OOD score, f the prediction and y the label of an image, three questions are asked, by permutation of who is
in the batch, and adjusted together by Holm: so no shift at all is called one with probability `level` at most.

    score    are the batch's scores higher than the reference's, among images of the same prediction (van Elteren)?
    label    are its mean class probabilities others?
    concept  with labels: is it right as often as the reference, given the prediction (given the label, where the label
             moved: that class priors move P(y | f) is no change of concept)?

Scores that are higher are a **covariate** shift if a treatment of the images takes at least half of that away, surely
(sign flips over images): intensities matched to the reference's (`cfx.core.intensity`), or batch normalisation with the
batch's own statistics where a network has any (`cfx.models.batch_norm`). The reference is treated alike. What neither
explains is called **semantic**: content that is new, or an acquisition that is no matter of intensities (noise, blur,
motion), which looks the same to such a test. Where scores are as usual, predictions that moved are a **label** shift,
with class priors by black-box shift estimation and by expectation maximisation (`cfx.core.priors`), and labels that do
not follow are a **concept** shift. After a shift of intensities the label question is asked of the matched images;
after a semantic one neither is asked: predictions about what is unknown say nothing of how common it is.

References: Moreno-Torres et al. (2012), "A unifying view on dataset shift"; van Elteren (1960); Rabanser, Guennemann,
Lipton (2019), "Failing loudly", for testing predictions.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cfx.core.calibration import reliability, top_label
from cfx.core.cohort import Cohort, Source, as_source, subjects
from cfx.core.crossed import sign_flip
from cfx.core.errors import InputError
from cfx.core.groups import sums
from cfx.core.intensity import Norm
from cfx.core.priors import black_box, expectation_maximisation
from cfx.core.scores import auroc
from cfx.core.statistics import Estimate, holm, row_weights
from cfx.core.strata import apart, permuted_p, placed, stratified_ranks
from cfx.models.batch_norm import LAYERS, target_statistics
from cfx.models.competence import competence_of
from cfx.models.judge import Classifier, Judge
from cfx.ood.fit import Fitted, Images
from cfx.ood.shifted import Kind, Shifted, Treated

_FEWEST = 8  # subjects on either side: with fewer even the clearest shift is hardly told from chance
_HALF = 0.5  # of the excess of the scores that a treatment has to take away


def kind_of_shift(
    x: Images,
    reference: Images,
    detector: Fitted,
    *,
    classifier: Classifier | None = None,
    level: float = 0.05,
    permutations: int = 999,
    seed: int = 0,
) -> Shifted:
    """Say what kind of shift a batch has been through, if any.

    Args:
        x: The batch; labels are used where it has them.
        reference: Images of the distribution, none of which the detector was fitted or calibrated to; labels are used
            likewise. Rows of one subject count once.
        detector: A fitted detector.
        classifier: A classifier of these classes; by default the one that the detector asks. Without any, only scores
            are asked.
        level: Probability at which no shift at all may be called one.
        permutations: Permutations of every test.
        seed: Seed of permutations and intervals.

    Raises:
        InputError: fewer than 8 subjects on either side, images of another shape than the detector's, or labels that
            are no classes of the classifier.
    """
    if not 0 < level < 1 or permutations < 1 / level:
        raise InputError(
            f"level, permutations: expected a level in (0, 1) and at least {1 / max(level, 1e-9):.0f} permutations, "
            f"got {level} and {permutations}"
        )
    if not isinstance(detector, Fitted):
        raise InputError(f"detector: expected a fitted one, cfx.ood.fit(...), got {type(detector).__name__}")
    both = _Both(_whole(as_source(x, "x")), _whole(as_source(reference, "reference")), detector, seed)
    judge = detector.tools.classifier if classifier is None else Judge(classifier, device=detector.tools.device)
    answers = None if judge is None else both.answers(judge)
    found = _Found(both, answers, level, permutations)
    return found.result()


_Way = Callable[[Tensor | None, Tensor | None], Tensor]  # weights of the batch's and the reference's rows to priors


class _Both:
    """The batch and the reference as one table of subjects."""

    def __init__(self, target: Cohort, known: Cohort, detector: Fitted, seed: int) -> None:
        self.target, self.known, self.detector, self.seed = target, known, detector, seed
        of = [torch.arange(len(c)) if (s := subjects(c)) is None else s for c in (target, known)]
        counts = [int(s.max()) + 1 if len(s) else 0 for s in of]
        for name, n in zip(("x", "reference"), counts, strict=True):
            if n < _FEWEST:
                raise InputError(
                    f"{name}: expected at least {_FEWEST} subjects to tell a shift from chance, got {n}; a single "
                    "image has a p-value of its own (Fitted.score)"
                )
        self.of = torch.cat([of[0], of[1] + counts[0]])
        self.batch = torch.arange(sum(counts)) < counts[0]

    def subjectwise(self, values: Float[Tensor, "n *k"]) -> Float[Tensor, "g *k"]:
        """Mean of every subject's rows."""
        count = sums(torch.ones(len(self.of)).double(), self.of)
        return sums(values.double(), self.of) / count.view(-1, *[1] * (values.ndim - 1))

    def scores(self, images: Callable[[Tensor], Tensor] = lambda x: x) -> Float[Tensor, " g"]:
        """Score of every subject, of these images."""
        return self._scored(images, lambda _: nullcontext())

    def adapted(self) -> Float[Tensor, " g"] | None:
        """Scores with batch normalisation of either side's own statistics; None where no network of images has any.

        Raises:
            InputError: as `target_statistics`.
        """
        tools = self.detector.tools
        judges = [judge.classifier for judge in (tools.classifier, *tools.ensemble) if judge is not None]
        modules = {id(m): m for m in (tools.features, *judges) if isinstance(m, nn.Module)}.values()
        normed = [m for m in modules if any(isinstance(layer, LAYERS) for layer in m.modules())]
        return self._scored(lambda x: x, partial(_adapting, normed)) if normed else None

    def _scored(
        self, images: Callable[[Tensor], Tensor], around: Callable[[Tensor], AbstractContextManager[object]]
    ) -> Float[Tensor, " g"]:
        parts = []
        for cohort in (self.target, self.known):
            x = images(cohort.x)
            with around(x):
                parts.append(self.detector.score(x).score)
        return self.subjectwise(torch.cat(parts))

    def answers(self, judge: Judge) -> "_Answers":
        """What a classifier says of all images."""
        p = torch.cat([judge.probabilities(c.x) for c in (self.target, self.known)])
        y = [_labels(judge, c, p.shape[1], name) for c, name in ((self.target, "x"), (self.known, "reference"))]
        return _Answers(judge, p, *y)

    @property
    def matched(self) -> Callable[[Tensor], Tensor]:
        """Images with the reference's intensities."""
        return Norm.of(self.known.x).match


@dataclass(frozen=True)
class _Answers:
    """Probabilities of all images, and the labels of either side where there are any."""

    judge: Judge
    p: Float[Tensor, "n k"]
    y: Int[Tensor, " m"] | None
    known_y: Int[Tensor, " r"] | None


class _Found:
    """The questions, asked one after another."""

    def __init__(self, both: _Both, answers: _Answers | None, level: float, permutations: int) -> None:
        self.both, self.answers, self.level = both, answers, level
        self.permuted = partial(permuted_p, group=both.batch, draws=permutations, seed=both.seed)
        self.unasked: list[str] = []
        self.knows = self._knows()

    def result(self) -> Shifted:
        both, scores = self.both, self.both.scores()
        p = {"score": self._p_score(scores)}
        if self.answers is not None and self.knows:
            p |= self._p_answers(self.answers)
        adjusted = dict(zip(p, holm(torch.tensor(list(p.values())).double()).tolist(), strict=True))
        moved = [name for name in p if adjusted[name] <= self.level]
        skill = self._skill()  # of the images as they are; priors may be those of treated ones
        kinds, treated = self._kinds(moved, scores)
        return Shifted(
            kinds=tuple(kinds), p_values=p, adjusted=adjusted, level=self.level, auc=float(auroc(scores, both.batch)),
            treated=treated, unasked=tuple(self.unasked), n=len(both.target), reference_n=len(both.known),
            **self._priors(), **skill,
        )  # fmt: skip

    def _knows(self) -> bool:
        """Whether a classifier is there and may be asked about classes; else that is said."""
        a = self.answers
        if a is None:
            self.unasked.append("No classifier was given: whether class priors or labels moved was not asked.")
            return False
        if a.known_y is None:
            self.unasked.append("The reference has no labels: that the classifier knows its classes is taken on trust.")
            return True
        found = competence_of(a.p[len(self.both.target) :].clamp(min=1e-30).log(), a.known_y, subjects(self.both.known))
        if found is None or not found.shown:
            self.unasked.append(
                "The classifier is not shown to know its classes on the reference: whether class priors or labels "
                "moved was not asked."
            )
            return False
        return True

    def _p_score(self, scores: Float[Tensor, " g"]) -> float:
        strata = None if self.answers is None else self._predicted(self.answers.p)
        ranks = stratified_ranks(scores, strata)
        return self.permuted(lambda who: who @ ranks, strata=strata)

    def _predicted(self, p: Float[Tensor, "n k"]) -> Int[Tensor, " g"]:
        return self.both.subjectwise(p).argmax(1)

    def _p_answers(self, a: _Answers) -> dict[str, float]:
        p = {"label": self._p_label(a.p)}
        if a.y is None or a.known_y is None:
            self.unasked.append("There are no labels on both sides: whether they still follow was not asked.")
            return p
        y = torch.cat([a.y, a.known_y])
        right = self.both.subjectwise((a.p.argmax(1) == y).double())
        own = self.both.subjectwise(torch.nn.functional.one_hot(y, a.p.shape[1]).double()).argmax(1)
        strata = own if p["label"] <= self.level else self._predicted(a.p)
        return p | {"concept": self.permuted(partial(apart, right, self.both.batch, strata), strata=strata)}

    def _p_label(self, p: Float[Tensor, "n k"]) -> float:
        values = self.both.subjectwise(p)
        values = values - values.mean(0)
        return self.permuted(lambda who: (who @ values).abs().amax(1))

    def _kinds(self, moved: list[str], scores: Tensor) -> tuple[list[Kind], dict[str, Treated]]:
        """The kinds that follow from the questions whose answer is yes."""
        if "score" not in moved:
            return [kind for name, kind in (("label", Kind.LABEL), ("concept", Kind.CONCEPT)) if name in moved], {}
        treated = {name: self._treated(scores, after) for name, after in self._treatments()}
        auc = float(auroc(scores, self.both.batch))
        helps = [n for n, t in treated.items() if t.p <= self.level and t.auc - 0.5 <= _HALF * (auc - 0.5)]
        if not helps:
            if self.knows:
                self.unasked.append("Predictions about what is new in kind say nothing of class priors or labels.")
            return [Kind.SEMANTIC], treated
        return [Kind.COVARIATE, *(self._label_after() if "intensity" in helps else [])], treated

    def _treatments(self) -> Iterator[tuple[str, Float[Tensor, " g"]]]:
        """Scores after each treatment."""
        yield "intensity", self.both.scores(self.both.matched)
        try:
            if (adapted := self.both.adapted()) is not None:
                yield "batch_norm", adapted
        except InputError as error:
            self.unasked.append(f"Batch normalisation was not adapted: {error}.")

    def _treated(self, before: Tensor, after: Tensor) -> Treated:
        batch = self.both.batch
        fall = placed(before[batch], before[~batch]) - placed(after[batch], after[~batch])
        p = sign_flip(fall, seed=self.both.seed) if float(fall.mean()) > 0 else 1.0
        return Treated(float(auroc(after, batch)), p)

    def _label_after(self) -> list[Kind]:
        """The label question, asked of the treated images, which the priors are then told from."""
        if self.answers is None or not self.knows:
            return []
        match = self.both.matched
        p = torch.cat([self.answers.judge.probabilities(match(c.x)) for c in (self.both.target, self.both.known)])
        self.answers = _Answers(self.answers.judge, p, self.answers.y, self.answers.known_y)
        return [Kind.LABEL] if self._p_label(p) <= self.level else []

    def _priors(self) -> dict[str, Any]:
        """Class priors with their intervals; rows of one subject have one weight."""
        a, n = self.answers, len(self.both.target)
        if a is None or not self.knows:
            return {}
        k, names = a.p.shape[1], tuple(self.both.known.classes) or tuple(map(str, range(a.p.shape[1])))
        weights = row_weights(len(self.both.batch), draws=200, seed=self.both.seed)[:, self.both.of]
        here, there = weights[:, :n], weights[:, n:]
        known = said = a.p[n:].double().mean(0)
        ways: dict[str, _Way] = {"em": lambda w, _: expectation_maximisation(a.p[:n], said, w)}
        if a.known_y is not None and len(a.known_y.unique()) == k:
            known = torch.nn.functional.one_hot(a.known_y, k).double().mean(0)
            f, y = a.p.argmax(1), a.known_y
            ways["black_box"] = lambda w, v: black_box(f[n:], y, f[:n], k, v, w)
        priors = {name: _estimates(way(None, None)[0], way(here, there)) for name, way in ways.items()}
        return {"priors": priors, "reference_priors": tuple(known.tolist()), "classes": names}

    def _skill(self) -> dict[str, Any]:
        """How right the classifier is on either side, where there are labels."""
        a, n = self.answers, len(self.both.target)
        if a is None:
            return {}
        found: dict[str, Any] = {}
        for prefix, p, y in (("", a.p[:n], a.y), ("reference_", a.p[n:], a.known_y)):
            if y is not None:
                sure, right = top_label(p, y)
                found[f"{prefix}accuracy"] = float(right.double().mean())
                found[f"{prefix}ece"] = reliability(sure, right).ece
        return found


def _whole(source: Source) -> Cohort:
    """All images of a source, in memory."""
    return source if isinstance(source, Cohort) else source[:]


def _labels(judge: Judge, cohort: Cohort, k: int, name: str) -> Int[Tensor, " n"] | None:
    """The classes of a side, None where it has none.

    Raises:
        InputError: labels that are no classes of the classifier.
    """
    y = judge.labels(cohort.y)
    if y is not None and (odd := sorted(set(y.tolist()) - set(range(k)))):
        raise InputError(f"{name}.y: expected classes 0 .. {k - 1} of the classifier, got {odd[:8]}")
    return y


@contextmanager
def _adapting(networks: list[nn.Module], x: Tensor) -> Iterator[None]:
    """The networks with the statistics of these images."""
    with ExitStack() as stack:
        for network in networks:
            stack.enter_context(target_statistics(network, x))
        yield


def _estimates(value: Float[Tensor, " k"], draws: Float[Tensor, "d k"]) -> tuple[Estimate, ...]:
    """Every class's share with its 95 % interval."""
    low, high = draws.quantile(torch.tensor([0.025, 0.975], dtype=draws.dtype), dim=0)
    return tuple(Estimate(*map(float, of)) for of in zip(value, low, high, strict=True))

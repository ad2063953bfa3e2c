"""An audit, whole: everything that is asked of classifiers about one suspected confounder.

1. measure    every network scores every arm of every image, and says where it looks      (shared among processes)
2. decide     the verdict of the plan, by the crossed test                                (every process)
3. hear       the other witnesses: probes, observational tests, balance, groups of maps   (the main process)
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cfx.confounder.apart import check_answers, check_weights
from cfx.confounder.intervention import Arms, Intervention, Scores, dose_arm, judges, measure
from cfx.confounder.observed.sensitivity import Sensitivity, smooth_gradients
from cfx.confounder.plan import Plan
from cfx.confounder.planted import Toggle
from cfx.confounder.reliance import Reliance, decide
from cfx.confounder.swap import ShapeSwap
from cfx.confounder.witnesses import Witnesses, hear
from cfx.core.cohort import Cohort, Source, subjects
from cfx.core.errors import CfxWarning, InputError
from cfx.core.gates import Gate
from cfx.models.doubts import of_outputs
from cfx.models.gate import check_gate
from cfx.models.judge import Classifier, Judge
from cfx.models.wrappers import Score
from cfx.runtime.config import check
from cfx.runtime.files import digest
from cfx.runtime.shares import together

if TYPE_CHECKING:
    from accelerate import Accelerator

_EXAMPLES = 2  # images of each class to look at
_LOOKED_AT = 32  # images that confirm a suspicion about outputs


@dataclass(frozen=True)
class Audit:
    """All findings of one audit.

    Attributes:
        plan_sha256: Digest of what was fixed before the first network ran.
        reliance: The intervention on the images.
        exact: The same with an exact intervention, where there is one to check an estimated one against.
        scores: What the networks said of every image in every arm.
        exact_scores: The same for the exact intervention.
        sensitivity: Where they look in every image; None of scores, which need not have a gradient.
        witnesses: The other evidence; None in other processes than the main one, which alone asks for it.
        examples: Some images `(b, c, *space)` of every arm.
        names: Their names.
    """

    plan_sha256: str
    reliance: Reliance
    exact: Reliance | None
    scores: Scores
    exact_scores: Scores | None
    sensitivity: Sensitivity | None
    witnesses: Witnesses | None
    examples: Arms
    names: Sequence[str]

    def summary(self) -> dict[str, Any]:
        """Flat figures, for `summary.json`."""
        values: dict[str, Any] = {"plan_sha256": self.plan_sha256} | self.reliance.summary()
        if self.exact is not None:
            e = self.exact.effect
            values |= {"exact_effect": e.value, "exact_effect_low": e.low, "exact_effect_high": e.high}
            values["exact_verdict"] = str(self.exact.verdict)
        return values | ({} if self.witnesses is None else self.witnesses.summary())


def audit(
    classifiers: Classifier | Sequence[Classifier],
    cohort: Source,
    plan: Plan | Mapping[str, Any],
    *,
    donors: Source | None = None,
    intervention: Intervention | None = None,
    exact: Intervention | None = None,
    leave_out: Sequence[str] = (),
    permutations: int = 999,
    batch_size: int = 64,
    gate: Gate | None = None,
    plan_sha256: str | None = None,
    accelerator: "Accelerator | None" = None,
) -> Audit:
    """Ask whether classifiers are right for the right reason: do they rely on one confounder?

    Args:
        classifiers: One or several networks, trained alike but for their seed: images to logits (one, or one a class).
            They are asked where they are and in evaluation mode; their own mode is restored. Or scores, such as an
            out-of-distribution detector's (`cfx.ood.Fitted.as_classifier`), for what these rely on.
        cohort: Labelled test images of the classes 0 and 1, in memory or any source of them, as the networks see them;
            never those they learned from.
        plan: What the verdict depends on, or a mapping of its keys; its `seeds` are the number of networks.
        donors: Whose shapes are lent, for the confounder `shape`; by default the test images lend each other theirs.
        intervention: What changes the confounder in these images (`confounder.planted.Toggle` for pairs of images with
            and without it); by default, and for `shape` only, the swap of shapes with donors.
        exact: An exact intervention on these images, to check that one against.
        leave_out: Covariates that the classes need not share, such as the severity of the disease.
        permutations: Permutations of every test that needs them.
        batch_size: Images worked on together.
        gate: What says whether the changed images are still in distribution, such as a detector that `cfx.ood.fit`
            fitted; no verdict depends on it.
        plan_sha256: Digest of what was written down before; that of the plan by default.
        accelerator: Share the images among its processes.

    Returns:
        All of it in the main process; the others lack the other witnesses.

    Raises:
        InputError: another number of networks than planned, or one of them several times; images without labels of both
            classes or needed masks; an intervention on other images, or none for a confounder that needs one; a network
            without these classes or with more, or with non-finite logits; a gate that gives no p-values; something
            else than each argument expects.
        CfxError: another process failed.

    Warns:
        CfxWarning: outputs that look like probabilities; see `cfx.models.doubts`.
    """
    checked = ready(classifiers, cohort, plan, donors, intervention, exact)
    networks, images, change, plan = checked.networks, checked.images, checked.change, checked.plan
    how: dict[str, Any] = {"batch_size": batch_size, "accelerator": accelerator}
    if gate is not None:
        check_gate(gate)
    scores = measure(networks, change, gate=gate, **how)
    check_answers(scores)
    exact_scores = None if exact is None else measure(networks, exact, gate=gate, **how)
    scored = isinstance(networks[0], Score)
    sensitivity = None if scored else smooth_gradients(networks, images.x, scores.y, seed=plan.seed, **how)
    groups, maps = subjects(images), None if sensitivity is None else sensitivity.map
    reliance, witnesses = decide(scores, plan, groups=groups, scored=scored), None
    with together(accelerator):
        if accelerator is None or accelerator.is_main_process:
            witnesses = hear(reliance, scores, images, maps, leave_out=leave_out, permutations=permutations)
    shown = torch.cat([(scores.y == k).nonzero().flatten()[:_EXAMPLES] for k in (0, 1)])
    return Audit(
        plan_sha256=digest(plan.model_dump(mode="json")) if plan_sha256 is None else plan_sha256,
        reliance=reliance,
        exact=None if exact_scores is None else decide(exact_scores, plan, groups=groups, scored=scored),
        scores=scores,
        exact_scores=exact_scores,
        sensitivity=sensitivity,
        witnesses=witnesses,
        examples=change.show(shown).arms,
        names=[images.ids[i] for i in shown.tolist()],
    )


@dataclass(frozen=True)
class Ready:
    """What an audit measures, checked.

    Attributes:
        networks: The networks.
        images: The test images.
        change: What changes the confounder.
        plan: The plan.
    """

    networks: Sequence[Classifier]
    images: Cohort
    change: Intervention
    plan: Plan


def ready(
    classifiers: object,
    cohort: object,
    plan: object,
    donors: object = None,
    intervention: Intervention | None = None,
    exact: Intervention | None = None,
) -> Ready:
    """Check the arguments of `audit`, before anything is measured.

    Raises:
        InputError: as `audit`.

    Warns:
        CfxWarning: as `audit`.
    """
    networks, images, planned = _several(classifiers), _read(cohort, "cohort"), _planned(plan)
    planned.check_networks(len(networks))
    if len({isinstance(f, Score) for f in networks}) > 1:
        raise InputError("classifiers: expected classifiers or scores, got some of each; audit them one kind at a time")
    change = _intervention(images, planned, None if donors is None else _read(donors, "donors"), intervention)
    _check_rows(images, intervention=change, exact=exact)
    _check_arms(images, planned, change)
    _look_at(judges(networks), images)
    return Ready(networks, images, change, planned)


def _several(classifiers: object) -> list[Classifier]:
    """One or several networks as a list; a `ModuleList` is several.

    Raises:
        InputError: a path, a class, or what cannot be called.
    """
    if isinstance(classifiers, nn.ModuleDict | Mapping):
        classifiers = classifiers.values()
    alone = callable(classifiers) and not isinstance(classifiers, nn.ModuleList)
    if alone or isinstance(classifiers, str) or not isinstance(classifiers, Iterable):
        classifiers = [classifiers]
    found: list[Any] = list(classifiers)
    for k, network in enumerate(found):
        if isinstance(network, str | PathLike):
            raise InputError(f"classifiers[{k}]: expected a network, got the path {str(network)!r}; open it: cfx.load")
        if isinstance(network, type):
            raise InputError(f"classifiers[{k}]: expected a network, got the class {network.__name__}; build one")
        if not callable(network):
            raise InputError(
                f"classifiers[{k}]: expected a network or a function of images, got {type(network).__name__}"
            )
    return found


def _read(source: object, name: str) -> Cohort:
    """Images in memory: tests compare all of them with each other.

    Raises:
        InputError: no cohort and no source of one.
    """
    if not isinstance(source, Source):
        came = type(source).__name__
        raise InputError(f"{name}: expected labelled images, Cohort(x, y=labels), got {came}")
    return source if isinstance(source, Cohort) else source[:]


def _planned(plan: object) -> Plan:
    """A plan, from its keys if need be.

    Raises:
        InputError: something else, or keys and values that are not part of one.
    """
    if isinstance(plan, Mapping):
        return check(Plan, plan, "plan")
    if not isinstance(plan, Plan):
        raise InputError(f'plan: expected a cfx.confounder.plan.Plan or {{"confounder": ...}}, got {plan!r:.60}')
    return plan


def _look_at(asked: Sequence[Judge], images: Cohort) -> None:
    """Show every network one image, twice; functions, and the first that may return probabilities, some more.

    Raises:
        InputError: more logits than the cohort has classes, one network several times, or as `Judge.check` and
            `Judge.check_company`.

    Warns:
        CfxWarning: as `of_outputs`; said of one network, since all are of a kind.
    """
    x, said, answers = images.x[:_LOOKED_AT], False, []
    for judge in asked:
        with judge.at_rest():
            logits = judge.logits(x[:1]).detach()
            _check_classes(judge, logits.shape[1], images)
            if judge.scores:  # without a gradient, and no probabilities
                answers.append(judge.check_company(x)[:1])
                continue
            judge.check(x[:1], logits)
            if not isinstance(judge.classifier, nn.Module):  # whose modules nobody can put at rest
                judge.check_company(x)
            if not said and of_outputs(judge, x[:1], logits.cpu()) is not None:
                message = of_outputs(judge, x, judge.answers(x))
                said = message is not None
                if message is not None:
                    warnings.warn(message, CfxWarning, stacklevel=3)
        answers.append(logits)
    check_weights([judge.classifier for judge in asked], answers)


def _check_classes(judge: Judge, k: int, images: Cohort) -> None:
    """Refuse a network of more classes than the images have: those that nobody asked of would be passed over."""
    n = max(2, len(images.classes))
    if k > n:
        raise InputError(
            f"{judge.name}: expected {n} logits, as the cohort has {n} classes, got {k}; of independent findings wrap "
            "the one that is meant, Finding(network, k); of more classes keep two, lambda x: network(x)[:, [0, 1]]"
        )


def _intervention(images: Cohort, plan: Plan, donors: Cohort | None, given: Intervention | None) -> Intervention:
    """What changes the confounder."""
    if given is not None and donors is not None:
        raise InputError("donors: expected none beside an intervention, which has its own, got some")
    if given is not None:
        return given
    if plan.confounder != "shape":
        raise InputError(
            f"intervention: expected one that changes {plan.confounder!r} in these images "
            "(confounder.planted.Toggle for pairs of images with and without it), got None"
        )
    return ShapeSwap.of(images, images if donors is None else donors, doses=plan.doses, seed=plan.seed)


def _check_rows(images: Cohort, **interventions: Intervention | None) -> None:
    """Refuse an intervention on other images than the cohort's."""
    if images.y is None or images.y.ndim != 1:
        raise InputError("cohort: expected images with one class label each, got none")
    found = images.y.unique().tolist()
    if found != [0, 1]:
        raise InputError(
            f"cohort.y: expected both classes 0 and 1, got {found}; of several classes audit two at a time: the rows "
            "of both, labelled 0 and 1, and networks with their two logits, lambda x: network(x)[:, [a, b]]"
        )
    for name, change in interventions.items():
        if change is not None and not torch.equal(change.y.cpu(), images.y):
            raise InputError(f"{name}: expected the {len(images)} images of the cohort, got others, by their classes")


def _check_arms(images: Cohort, plan: Plan, change: Intervention) -> None:
    """Refuse an intervention that shows other images, or not all that the plan asks for, before a network runs."""
    arms = change.show(torch.arange(1)).arms
    absent = [t for t in plan.doses if dose_arm(t) not in arms]
    if absent:
        raise InputError(f"plan.doses: expected doses that the intervention shows, {sorted(arms)}, got {absent}")
    if isinstance(change, Toggle) and not torch.equal(change.untouched.cpu(), images.x):
        raise InputError("intervention: expected the images of the cohort, untouched, got others")

"""One audit, whole: a plan written and hashed, then networks, interventions, tests, and a folder with the verdict."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from cfx.confounder.audit import Audit
from cfx.confounder.intervention import Intervention, Scores, measure
from cfx.confounder.observed.balance import balance
from cfx.confounder.observed.clusters import associations, cluster
from cfx.confounder.observed.independence import Independence, full_confounder_test, partial_confounder_test
from cfx.confounder.observed.sensitivity import smooth_gradients
from cfx.confounder.plan import Plan
from cfx.confounder.planted import simulated
from cfx.confounder.probes.probe import Ladder, ladder
from cfx.confounder.reliance import Reliance, decide
from cfx.confounder.swap import ShapeSwap
from cfx.core.cohort import Cohort
from cfx.core.errors import InputError
from cfx.core.statistics import holm
from cfx.data import BrainConfig, DataConfig, load_cohort
from cfx.models import load
from cfx.report.audit.page import audit_page
from cfx.runtime.config import RunConfig
from cfx.runtime.files import digest
from cfx.runtime.folder import RunFolder
from cfx.runtime.processes import make_accelerator
from cfx.training.config import TrainConfig
from cfx.training.repeats import train_seeds

_OUTCOMES = ("severity", "severity_true")  # of the simulated disease: what the classes are, not what they should share


class AuditConfig(RunConfig):
    """What to suspect, in which images, of which classifiers."""

    plan: Plan
    """What the verdict depends on."""
    data: DataConfig
    """Labelled test images; never those the classifiers were trained on."""
    donors: DataConfig | None = None
    """Whose shapes are borrowed, for the confounder `shape`; the test images by default."""
    classifiers: tuple[str, ...] = ()
    """Checkpoint folders of networks trained alike but for their seed."""
    train: TrainConfig | None = None
    """How to train them, where there are none yet; kept under the run's folder."""
    permutations: int = Field(default=999, ge=99)
    """Permutations of every test that needs them."""
    batch_size: int = Field(default=64, ge=1)
    """Images worked on together."""

    @model_validator(mode="after")
    def _networks(self) -> "AuditConfig":
        if bool(self.classifiers) == (self.train is not None):
            raise ValueError("classifiers, train: expected one of them, got both or neither")
        if self.classifiers and len(self.classifiers) != self.plan.seeds:
            got = f"{len(self.classifiers)} classifiers and seeds={self.plan.seeds}"
            raise ValueError(f"plan.seeds: expected the number of classifiers, got {got}")
        return self


def audit_run(config: AuditConfig) -> Audit:
    """Audit classifiers for one confounder and write `plan.json`, `summary.json`, `report.html`, `config.yaml`.

    Under `accelerate launch` the processes share the training; each then measures, and the main one writes.

    Raises:
        InputError: images without labels or needed masks, or a confounder that cannot be changed in them.
        CheckpointError, CfxError: a classifier cannot be read or trained.
    """
    make_accelerator()
    folder = RunFolder(config.folder)
    values = config.model_dump(mode="json")
    plan = {k: v for k, v in values.items() if k not in ("out", "batch_size")}
    sha = digest(plan)
    folder.config(config)
    folder.write("plan.json", json.dumps({"sha256": sha, **plan}, indent=2) + "\n")
    found = audit(config, _classifiers(config), sha)
    folder.summary(summary(found))
    folder.page(audit_page(found, config.name))
    return found


def _classifiers(config: AuditConfig) -> list[nn.Module]:
    """The networks, read or trained."""
    if config.train is None:
        return [load(path).eval() for path in config.classifiers]
    out = config.train.out or str(config.folder / config.train.name)
    return train_seeds(config.train.model_copy(update={"out": out}), config.plan.seeds)


def audit(config: AuditConfig, classifiers: Sequence[nn.Module], plan_sha256: str) -> Audit:
    """All tests of one confounder."""
    plan = config.plan
    intervention, cohort = _intervention(config)
    scores = measure(classifiers, intervention, batch_size=config.batch_size)
    reliance = decide(scores, plan)
    exact = None
    if plan.confounder == "shape" and _planted(config):
        toggle, _ = simulated(config.data, "shape", doses=plan.doses)  # type: ignore[arg-type]
        exact = decide(measure(classifiers, toggle, batch_size=config.batch_size), plan)
    assert cohort.y is not None
    yhat, c = _predictions(scores, cohort), _column(cohort, plan.confounder)
    common: dict[str, Any] = {"permutations": config.permutations, "seed": plan.seed}
    maps = smooth_gradients(classifiers, cohort.x, cohort.y, batch_size=config.batch_size, seed=plan.seed)
    clusters = cluster(maps, seed=plan.seed)
    columns = {"class": cohort.y, **cohort.covariates}
    partial = None if c is None else partial_confounder_test(yhat, cohort.y, c, **common)
    full = None if c is None else full_confounder_test(yhat, cohort.y, c, **common)
    steps = None if cohort.mask is None else ladder(cohort.mask, cohort.y, **common)
    shown = intervention.show(_examples(cohort.y))
    return Audit(
        plan_sha256=plan_sha256,
        reliance=reliance,
        exact=exact,
        ladder=steps,
        partial=partial,
        full=full,
        balance=balance(cohort, leave_out=[k for k in _OUTCOMES if k in cohort.covariates], seed=plan.seed),
        clusters=clusters,
        associations=associations(clusters.labels, columns, **common),
        adjusted=_adjusted(reliance, partial, steps),
        examples=shown.arms,
        names=[cohort.ids[i] for i in _examples(cohort.y).tolist()],
    )


def _planted(config: AuditConfig) -> bool:
    """Whether the confounder is planted in a simulated cohort."""
    data = config.data
    return isinstance(data, BrainConfig) and config.plan.confounder in {c.kind for c in data.confounders}


def _intervention(config: AuditConfig) -> tuple[Intervention, Cohort]:
    """What changes the confounder, and the untouched images."""
    plan = config.plan
    if plan.confounder == "shape":
        cohort = load_cohort(config.data)
        donors = cohort if config.donors is None else load_cohort(config.donors)
        return ShapeSwap.of(cohort, donors, doses=plan.doses, seed=plan.seed), cohort
    if not _planted(config):
        raise InputError(
            f"plan.confounder: expected shape, or an object planted in a simulated cohort, got {plan.confounder!r}; "
            "for your own pairs of images with and without it use cfx.confounder.planted.Toggle"
        )
    return simulated(config.data, plan.confounder, doses=plan.doses)  # type: ignore[arg-type]


def _predictions(scores: Scores, cohort: Cohort) -> Float[Tensor, " n"]:
    """Mean logit for class 1 over networks, of the untouched images."""
    toward = scores.score["untouched"].mean(0)
    assert cohort.y is not None
    return torch.where(cohort.y == 1, -toward, toward)


def _column(cohort: Cohort, confounder: str) -> Tensor | None:
    """What is known of the confounder in every row: its planted state, or a column of its name."""
    for name in (f"planted_{confounder}", confounder):
        if name in cohort.covariates:
            values = cohort.covariates[name]
            return (values > values.mean()).long() if len(values.unique()) == 2 else values
    return None


def _examples(y: Tensor, each: int = 2) -> Tensor:
    """The first rows of each class."""
    return torch.cat([(y == k).nonzero().flatten()[:each] for k in (0, 1)])


def _adjusted(reliance: Reliance, partial: Independence | None, steps: Ladder | None) -> dict[str, float]:
    """Holm's adjustment over the tests of one confounder."""
    p = {"reliance": max(reliance.effect.p_value, reliance.p_sign_flip)}
    p |= {} if partial is None else {"partial": partial.p_value}
    p |= {} if steps is None else {"probe": steps.rungs[-1].p_value}
    return dict(zip(p, holm(torch.tensor(list(p.values()), dtype=torch.float64)).tolist(), strict=True))


def summary(found: Audit) -> dict[str, Any]:
    """The flat figures of `summary.json`."""
    r = found.reliance
    values: dict[str, Any] = {"verdict": str(r.verdict), "fault": r.fault, "role": r.plan.role}
    values |= {"confounder": r.plan.confounder, "plan_sha256": found.plan_sha256}
    values |= _effect("effect", r) | {"p_value": r.effect.p_value, "p_sign_flip": r.p_sign_flip}
    values |= {"p_equivalence": r.p_equivalence, "margin": r.margin, "n": r.n, "excluded": r.excluded}
    values |= {"networks": len(r.by_seed), "p_mcnemar": r.p_mcnemar, "flipped": r.flipped, "explained": r.explained}
    for name, e in r.arms.items():
        values |= {f"{name}_arm": e.value, f"{name}_arm_low": e.low, f"{name}_arm_high": e.high}
    values |= {f"ba_{name}": value for name, value in r.accuracy.items()} | dict(r.quality)
    if found.exact is not None:
        values |= _effect("exact_effect", found.exact) | {"exact_verdict": str(found.exact.verdict)}
    for name, test in (("partial", found.partial), ("full", found.full)):
        values |= {} if test is None else {f"{name}_r2": test.statistic, f"{name}_p": test.p_value}
    values |= {f"p_holm_{name}": p for name, p in found.adjusted.items()}
    values |= {"balance": found.balance.finding, "clusters": len(found.clusters.sizes)}
    for rung in () if found.ladder is None else found.ladder.rungs:
        ba, auc = rung.scores["ba"], rung.scores["auc"]
        values |= {f"probe_{rung.name}_{k}": v for k, v in (("ba", ba.value), ("ba_low", ba.low), ("ba_high", ba.high))}
        values |= {f"probe_{rung.name}_auc": auc.value, f"probe_{rung.name}_p": rung.p_value}
    return values


def _effect(name: str, r: Reliance) -> dict[str, float]:
    return {name: r.effect.value, f"{name}_low": r.effect.low, f"{name}_high": r.effect.high}


CONFIG = AuditConfig


def command(config: AuditConfig, words: str) -> str:
    """Run, and say what came out."""
    reliance = audit_run(config).reliance
    return f"{reliance.verdict}: {reliance.sentence}\n\nwrote {config.folder}/report.html, summary.json, plan.json"

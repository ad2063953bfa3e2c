"""What else speaks of a confounder: tests of the data and of the predictions, beside the intervention.

They corroborate: their p-values are adjusted together with the intervention's (Holm), and none enters its verdict.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from cfx.confounder.intervention import UNTOUCHED, Scores
from cfx.confounder.observed.balance import Balance, balance
from cfx.confounder.observed.clusters import Association, Clusters, associations, cluster
from cfx.confounder.observed.conditional import levels_of
from cfx.confounder.observed.independence import Independence, full_confounder_test, partial_confounder_test
from cfx.confounder.probes.probe import Ladder, ladder
from cfx.confounder.reliance import Reliance
from cfx.core.cohort import SUBJECT, Cohort, subjects
from cfx.core.statistics import holm

_FEWEST = 20  # rows with a value from which a covariate is tested


@dataclass(frozen=True)
class Witnesses:
    """The other evidence of one audit.

    Attributes:
        ladder: How well the class can be told from the mask alone; None without masks.
        partial: Do the predictions depend on the confounder beyond the class? None where it is in no column.
        full: Does the class tell anything of the predictions beyond the confounder? None where it is in no column.
        observational: Do the predictions go with each covariate beyond the class? Association, not cause.
        balance: Do the classes match?
        clusters: Groups of sensitivity maps; None without maps.
        associations: What goes with these groups.
        adjusted: Holm-adjusted p of every test of this confounder, that of the intervention (`reliance`) among them.
    """

    ladder: Ladder | None
    partial: Independence | None
    full: Independence | None
    observational: Mapping[str, Independence]
    balance: Balance
    clusters: Clusters | None
    associations: Sequence[Association]
    adjusted: Mapping[str, float]

    @property
    def observational_adjusted(self) -> dict[str, float]:
        """Holm-adjusted p of the tests of the covariates."""
        return _holm({name: test.p_value for name, test in self.observational.items()})

    def summary(self) -> dict[str, Any]:
        """Flat figures, for `summary.json`."""
        values: dict[str, Any] = {
            "balance": self.balance.finding,
        }
        values |= {} if self.clusters is None else {"clusters": len(self.clusters.sizes)}
        values |= {f"p_holm_{name}": p for name, p in self.adjusted.items()}
        p = self.observational_adjusted
        for name, found in self.observational.items():
            values |= {f"observational_{name}_r2": found.statistic, f"observational_{name}_p_holm": p[name]}
        for name, test in (("partial", self.partial), ("full", self.full)):
            values |= {} if test is None else {f"{name}_r2": test.statistic, f"{name}_p": test.p_value}
        for rung in () if self.ladder is None else self.ladder.rungs:
            ba, name = rung.scores["ba"], f"probe_{rung.name}"
            values |= {f"{name}_ba": ba.value, f"{name}_ba_low": ba.low, f"{name}_ba_high": ba.high}
            values |= {f"{name}_auc": rung.scores["auc"].value, f"{name}_p": rung.p_value}
        return values


def hear(
    reliance: Reliance,
    scores: Scores,
    cohort: Cohort,
    maps: Float[Tensor, "n 1 *space"] | None,
    *,
    leave_out: Sequence[str] = (),
    permutations: int = 999,
) -> Witnesses:
    """Ask all other witnesses of the confounder that a reliance test was about.

    Args:
        reliance: The test.
        scores: What it was decided on.
        cohort: The same images, labelled by class; with masks, the class is read from these alone, too.
        maps: Their sensitivity maps; None of scores.
        leave_out: Covariates that the classes need not share, such as the severity of the disease.
        permutations: Permutations of every test that needs them.

    Raises:
        InputError: as the tests.
    """
    assert cohort.y is not None
    plan = reliance.plan
    common: dict[str, Any] = {"permutations": permutations, "seed": plan.seed}
    yhat, c = _predictions(scores), _column(cohort, plan.confounder)
    partial = None if c is None else partial_confounder_test(yhat, cohort.y, c, **common)
    steps = None if cohort.mask is None else ladder(cohort.mask, cohort.y, groups=_people(cohort), **common)
    clusters = None if maps is None else cluster(maps, seed=plan.seed)
    columns = {"class": cohort.y, **cohort.covariates}
    return Witnesses(
        ladder=steps,
        partial=partial,
        full=None if c is None else full_confounder_test(yhat, cohort.y, c, **common),
        observational=observational(yhat, cohort, leave_out=leave_out, **common),
        balance=balance(cohort, leave_out=leave_out, seed=plan.seed),
        clusters=clusters,
        associations=[] if clusters is None else associations(clusters.labels, columns, **common),
        adjusted=_adjusted(reliance, partial, steps),
    )


def observational(
    yhat: Float[Tensor, " n"],
    cohort: Cohort,
    *,
    leave_out: Sequence[str] = (),
    permutations: int = 999,
    seed: int = 0,
) -> dict[str, Independence]:
    """The partial confounder test of every covariate: do the predictions know more of it than the class explains?

    Observational: what goes with a prediction need not be its reason. Columns of few values are categories. Of rows
    without a value nothing is said, nor of columns that do not vary where there is one.

    Args:
        yhat: Predictions.
        cohort: Images with class labels and covariates; rows are taken as independent.
        leave_out: Covariates to leave out, such as a grade of the disease itself.
        permutations: m.
        seed: Seed of the permutations.
    """
    assert cohort.y is not None
    found = {}
    for name in sorted({*cohort.covariates} - {SUBJECT, *leave_out}):
        column = cohort.covariates[name]
        some = ~column.isnan()
        if int(some.sum()) >= _FEWEST and len(column[some].unique()) > 1:
            known = (yhat[some], cohort.y[some], _kind(column[some], name in cohort.categories))
            found[name] = partial_confounder_test(*known, permutations=permutations, seed=seed)
    return found


def _kind(column: Shaped[Tensor, " n"], named: bool = False) -> Shaped[Tensor, " n"]:
    """A column as what it is: codes as integers, which the tests take as categories, numbers as floating point.

    Codes that stand for names are categories as long as these repeat.
    """
    count = len(column.unique())
    if count == 2 or levels_of(column) is not None or (named and 2 * count <= len(column)):
        codes: Tensor = column.unique(return_inverse=True)[1]
        return codes
    return column.double()


def _people(cohort: Cohort) -> Tensor | None:
    """Subject of every row, where some have several; one whose class changed counts as two."""
    groups, y = subjects(cohort), cohort.y
    return None if groups is None or y is None else groups * (int(y.max()) + 1) + y


def _predictions(scores: Scores) -> Float[Tensor, " n"]:
    """Mean logit for class 1 over networks, of the untouched images."""
    toward = scores.arm(UNTOUCHED).mean(0)
    return torch.where(scores.y == 1, -toward, toward)


def _column(cohort: Cohort, confounder: str) -> Tensor | None:
    """What is known of the confounder in every row: its planted state, or a column of its name."""
    for name in (f"planted_{confounder}", confounder):
        if name in cohort.covariates:
            return _kind(cohort.covariates[name], name in cohort.categories)
    return None


def _adjusted(reliance: Reliance, partial: Independence | None, steps: Ladder | None) -> dict[str, float]:
    """Holm's adjustment over the tests of one confounder."""
    p = {"reliance": max(reliance.effect.p_value, reliance.p_sign_flip)}
    p |= {} if partial is None else {"partial": partial.p_value}
    p |= {} if steps is None else {"probe": steps.rungs[-1].p_value}
    return _holm(p)


def _holm(p: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjustment of named p-values."""
    return dict(zip(p, holm(torch.tensor(list(p.values()), dtype=torch.float64)).tolist(), strict=True))

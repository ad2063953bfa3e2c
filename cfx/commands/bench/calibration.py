"""Do probabilities mean what they say, before and after a temperature, and do conformal sets keep their level?

Every task has classifiers of several seeds and a pool of rows that none was trained on, whose subjects are split into
three: a temperature is fitted to the first, thresholds are made of the second, and the third is the test. Each seed
deals anew.

    plain, temperature, vector           calibration of the test rows; `error_to_true_p` where p(y | x) is known
    lac, aps, raps, mondrian-...         coverage of their sets with the exact band that it is in 95 % of the time
    cqr                                  coverage of intervals of a number of the rows (`number`), from the logits
    lac of few calibration rows          how sets grow until they hold all classes (`sizes`)
    ... under a shift                    test rows kept with a probability that depends on the image alone (`covariate`:
                                         on how sure the classifier is) or on the class alone (`label`: on how hard it
                                         is). Plain sets lose their level, weighted ones return to it: by the known
                                         ratio of covariates, by class ratios estimated from what is decided
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

import cfx.calibration.meanings  # noqa: F401  # headings of the table
from cfx.calibration import Temperature, error_to_true_p, figures
from cfx.commands.bench.calibration_figure import Shown, diagrams
from cfx.conformal import APS, CQR, LAC, RAPS, Mondrian, PredictionSets, Weighted, label_ratios
from cfx.conformal.classification import calibrate
from cfx.conformal.regression import Margin
from cfx.conformal.scores import Score
from cfx.core.cohort import Cohort, subject_names
from cfx.core.conformal import coverage_band
from cfx.core.errors import InputError
from cfx.core.predictive import entropy
from cfx.core.random import permutation, uniform
from cfx.core.scores import pinball_loss
from cfx.data import DataConfig, load_cohort
from cfx.display.catalogue import metric
from cfx.models import load
from cfx.models.judge import Judge
from cfx.runtime.config import Frozen, RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.training.config import TrainConfig
from cfx.training.repeats import train_seeds

_SPLIT, _KEEP = 0xCA, 0xCB  # streams
_TRUE_P, _LEAST = "p_true", 20
SHOWN = (
    "accuracy", "nll", "brier", "ece", "ece_bins", "error_to_true_p", "coverage", "coverage_band_low",
    "coverage_band_high", "set_size",
)  # fmt: skip
"""Figures of a row, in the order of the table."""


class CalibrationTask(Frozen):
    """One kind of images with its classifiers."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    """What its rows are called."""
    data: DataConfig
    """Rows that no classifier was trained on; with `p_true` among the covariates the error to it is measured."""
    train: TrainConfig | None = None
    """Training of its classifiers, one a seed."""
    classifiers: tuple[str, ...] = ()
    """Checkpoint folders instead, one a seed."""
    temperature_share: float = Field(default=0.25, gt=0, lt=1)
    """Share of the subjects that a temperature is fitted to."""
    calibration_share: float = Field(default=0.25, gt=0, lt=1)
    """Share of the subjects that thresholds are made of; the others are the test."""
    number: str = ""
    """Covariate that intervals are made of; none by default."""
    covariate_tilt: float = 3.0
    """Logarithm of how much more often the least sure rows are kept than the surest, under a shift of covariates."""
    label_tilt: float = 2.0
    """Logarithm of how much more often the hardest class is kept than the easiest, under a shift of labels."""
    note: str = ""
    """What a reader of the table should know of the data."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.train is None) == (not self.classifiers):
            raise ValueError("expected either train or classifiers")
        if self.temperature_share + self.calibration_share >= 1:
            raise ValueError("temperature_share, calibration_share: expected a sum below 1, since the rest is the test")
        return self


class CalibrationBench(RunConfig):
    """Which tasks, how many classifiers of each, and at which level."""

    tasks: tuple[CalibrationTask, ...] = Field(min_length=1)
    """The tasks."""
    seeds: int = Field(default=3, ge=1)
    """Classifiers, and ways to deal the rows, of each task."""
    alpha: float = Field(default=0.1, gt=0, lt=1)
    """Largest probability that a set misses the truth."""
    sizes: tuple[int, ...] = (5, 10, 20, 50, 100)
    """Numbers of calibration rows to show the size of sets for."""


@dataclass(frozen=True)
class Part:
    """Some rows of a task and what a classifier says of them.

    Attributes:
        z: Logits.
        y: Classes.
        ids: Subjects.
        true_p: True P(y = 1), where it is known.
        number: A number of every row, where one is asked for.
    """

    z: Float[Tensor, "n k"]
    y: Int[Tensor, " n"]
    ids: tuple[str, ...]
    true_p: Float[Tensor, " n"] | None
    number: Float[Tensor, " n"] | None

    def __getitem__(self, at: Tensor) -> "Part":
        """Some of them."""
        p, v = (None if column is None else column[at] for column in (self.true_p, self.number))
        return Part(self.z[at], self.y[at], tuple(self.ids[i] for i in at.tolist()), p, v)


@in_its_folder
def run_calibration(config: CalibrationBench, command: str | None = None) -> list[dict[str, Any]]:
    """Train, measure, and write `results.json`, `table.md`, `figure.png` and `config.yaml`.

    Args:
        config: What to measure.
        command: What the table says the bench was run with.

    Returns:
        The rows of `results.json`, one a task, seed and method; none on other processes than the main one.

    Raises:
        InputError: rows without one class each, too few of them, a covariate that is not there, or as `train`.
    """
    accelerator = make_accelerator()
    folder = RunFolder(config.folder)
    folder.config(config)
    rows: list[dict[str, Any]] = []
    shown: dict[str, Shown] = {}
    for task in config.tasks:
        cohort = load_cohort(task.data)
        for seed, network in enumerate(networks(config, task)):
            trial = Trial(config, task, seed, *dealt(task, cohort, network.to(accelerator.device), seed))
            rows += list(trial.rows())
            shown.setdefault(task.name, (trial.test.z.softmax(1), trial.p(trial.test), trial.test.y))
    folder.results(rows)
    folder.table(markdown(config, rows, command or f"cfx bench calibration {folder / 'config.yaml'}"))
    folder.figure(diagrams(shown))
    return rows if accelerator.is_main_process else []


def networks(config: CalibrationBench, task: CalibrationTask) -> list[nn.Module]:
    """The classifiers of a task, one a seed."""
    if task.train is None:
        return [load(path).eval() for path in task.classifiers[: config.seeds]]
    return train_seeds(task.train.model_copy(update={"out": str(config.folder / task.name)}), config.seeds)


def dealt(task: CalibrationTask, cohort: Cohort, network: nn.Module, seed: int) -> tuple[Part, Part, Part]:
    """Rows for the temperature, for thresholds and for the test, subjects kept together."""
    if cohort.y is None or cohort.y.ndim != 1:
        raise InputError(f"{task.name}.data: expected one class an image, got none")
    if task.number and task.number not in cohort.covariates:
        raise InputError(f"{task.name}.number: expected one of {sorted(cohort.covariates)}, got {task.number!r}")
    names = subject_names(cohort)
    first = {name: k for k, name in enumerate(dict.fromkeys(names))}
    place = torch.empty(len(first), dtype=torch.long)
    place[permutation(len(first), seed=seed, stream=_SPLIT)] = torch.arange(len(first))
    at = place[torch.tensor([first[name] for name in names])] / len(first)
    ends = (0.0, task.temperature_share, task.temperature_share + task.calibration_share, 1.0)
    rows = [((at >= low) & (at < high)).nonzero().flatten() for low, high in pairwise(ends)]
    if min(map(len, rows)) < _LEAST:
        raise InputError(f"{task.name}.data: expected {_LEAST} rows or more in each part, got {[len(r) for r in rows]}")
    number = cohort.covariates[task.number].double() if task.number else None
    whole = Part(Judge(network).answers(cohort.x).double(), cohort.y, names, cohort.covariates.get(_TRUE_P), number)
    return whole[rows[0]], whole[rows[1]], whole[rows[2]]


@dataclass(frozen=True)
class Trial:
    """One classifier on rows dealt once."""

    config: CalibrationBench
    task: CalibrationTask
    seed: int
    held_out: Part
    calibration: Part
    test: Part

    @cached_property
    def scaled(self) -> Temperature:
        """The temperature."""
        return Temperature.fit(self.held_out.z, self.held_out.y, ids=self.held_out.ids)

    def p(self, part: Part) -> Float[Tensor, "n k"]:
        """Probabilities after the temperature."""
        return self.scaled.probabilities(part.z)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows of this classifier."""
        yield self.row("plain", self.test, self.test.z.softmax(1))
        yield self.row("temperature", self.test, self.p(self.test), temperature=self.scaled.t)
        vector = Temperature.fit(self.held_out.z, self.held_out.y, kind="vector")
        yield self.row("vector", self.test, vector.probabilities(self.test.z))
        yield from self.sets(self.test, "")
        if self.test.number is not None:
            yield self.row("cqr", self.test, self.p(self.test), "", **self.intervals())
        for n in self.config.sizes:
            yield self.few(n)
        yield from self.shifted()

    def row(self, method: str, part: Part, p: Tensor, shift: str = "", **more: float | int) -> dict[str, Any]:
        """One row of the results."""
        found: dict[str, Any] = {"method": method, "task": self.task.name, "seed": self.seed, "shift": shift}
        found |= {"n": len(part.y), **figures(p, part.y), "error_to_true_p": None}
        if part.true_p is not None:
            found["error_to_true_p"] = error_to_true_p(p, part.true_p.double())
        found |= dict.fromkeys(("coverage", "coverage_band_low", "coverage_band_high", "set_size", "temperature"))
        found |= more
        if found["coverage"] is not None:
            found["in_band"] = found["coverage_band_low"] <= found["coverage"] <= found["coverage_band_high"]
        return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in found.items()}

    def of_sets(self, method: str, part: Part, sets: PredictionSets, shift: str = "") -> dict[str, Any]:
        """The row of some sets."""
        return self.row(method, part, self.p(part), shift, calibrated=sets.calibrated, **sets.coverage(part.y))

    def sets(self, part: Part, shift: str) -> Iterator[dict[str, Any]]:
        """Sets of all methods."""
        alpha = self.config.alpha
        scores: list[Score] = [LAC(alpha), APS(alpha, seed=self.seed), APS(alpha, False), RAPS(alpha, seed=self.seed)]
        for score in scores:
            yield self.of_sets(
                score.name, part, self.fitted(score, self.calibration).sets(self.p(part), ids=part.ids), shift
            )
        fitted = Mondrian(LAC(alpha)).fit(self.p(self.calibration), self.calibration.y, ids=self.calibration.ids)
        yield self.of_sets(fitted.method, part, fitted.sets(self.p(part), ids=part.ids), shift)

    def fitted(self, score: Score, part: Part) -> Any:  # noqa: ANN401
        """Thresholds of a score, of rows that the temperature has not seen."""
        return calibrate(score, self.p(part), part.y, ids=part.ids, apart_from=[self.scaled])

    def few(self, n: int) -> dict[str, Any]:
        """Sets of few calibration rows."""
        some = self.calibration[torch.arange(min(n, len(self.calibration.y)))]
        sets = self.fitted(LAC(self.config.alpha), some).sets(self.p(self.test))
        return self.of_sets(f"lac-of-{n}", self.test, sets)

    def intervals(self) -> dict[str, float | int]:
        """Coverage of intervals around quantiles that are polynomials of the logits, fitted with the temperature."""
        alpha = self.config.alpha
        ends = [quantile_model(self.held_out, tau) for tau in (alpha / 2, 1 - alpha / 2)]
        low, high = (
            torch.stack([end(part.z) for end in ends]).sort(0).values for part in (self.calibration, self.test)
        )
        known, truth = self.calibration.number, self.test.number
        margin: Margin = CQR(alpha).fit(low[0], low[1], known)
        covered = margin.intervals(high[0], high[1]).covered(truth)  # type: ignore[arg-type]
        band = coverage_band(margin.rows, len(covered), alpha)
        return {
            "coverage": float(covered.double().mean()), "coverage_band_low": band[0], "coverage_band_high": band[1],
            "calibrated": margin.rows,
        }  # fmt: skip

    def shifted(self) -> Iterator[dict[str, Any]]:
        """Plain and weighted sets under both shifts."""
        alpha, calibration = self.config.alpha, self.calibration
        part = self.kept(self.sureness(self.test))
        plain = self.fitted(LAC(alpha), calibration)
        yield self.of_sets("lac", part, plain.sets(self.p(part)), "covariate")
        weighted = Weighted(LAC(alpha)).fit(self.p(calibration), calibration.y, self.sureness(calibration))
        yield self.of_sets("weighted-lac", part, weighted.sets(self.p(part), self.sureness(part)), "covariate")
        part = self.kept(self.hardness()[self.test.y])
        yield self.of_sets("lac", part, plain.sets(self.p(part)), "label")
        ratios = label_ratios(self.p(self.held_out), self.held_out.y, self.p(part))
        labelled = Weighted(LAC(alpha), shift="label").fit(self.p(calibration), calibration.y, ratios)
        yield self.of_sets("weighted-lac", part, labelled.sets(self.p(part)), "label")

    def kept(self, weight: Float[Tensor, " n"]) -> Part:
        """Test rows, each kept with a probability proportional to its weight."""
        u = uniform((len(weight),), seed=self.seed, row=torch.zeros(1, dtype=torch.long), stream=_KEEP)[0]
        return self.test[(u * weight.max() < weight).nonzero().flatten()]

    def sureness(self, part: Part) -> Float[Tensor, " n"]:
        """How often a row is kept under the shift of covariates: by its entropy within the range of held-out rows."""
        low, high = entropy(self.p(self.held_out)).aminmax()
        unsure = ((entropy(self.p(part)) - low) / (high - low).clamp_min(1e-9)).clamp(0, 1)
        return torch.exp(self.task.covariate_tilt * unsure)

    def hardness(self) -> Float[Tensor, " k"]:
        """How often rows of each class are kept under the shift of labels: by how often they are mistaken."""
        p, y = self.p(self.held_out), self.held_out.y
        wrong = torch.stack([(p.argmax(1) != k)[y == k].double().mean() for k in range(p.shape[1])]).nan_to_num()
        spread = (wrong - wrong.min()) / (wrong.max() - wrong.min()).clamp_min(1e-9)
        return torch.exp(self.task.label_tilt * spread)


def quantile_model(part: Part, tau: float) -> Any:  # noqa: ANN401
    """A quantile of a number as a polynomial of the logit margin, by the least pinball loss; a function of logits."""

    def features(z: Tensor) -> Tensor:
        t = torch.tanh((z[:, -1] - z[:, 0]) / 4)
        return torch.stack([torch.ones_like(t), t, t.square(), t**3], 1)

    assert part.number is not None
    x, target = features(part.z), part.number
    w = torch.linalg.lstsq(x, target[:, None]).solution[:, 0].requires_grad_(True)
    optimizer = torch.optim.LBFGS([w], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = pinball_loss(x @ w, target, tau).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return lambda z: features(z) @ w.detach()


def markdown(config: CalibrationBench, rows: Sequence[Mapping[str, Any]], command: str) -> str:
    """The page: a line a task and method, the mean over seeds."""
    notes = [f"{task.name}: {task.note}" for task in config.tasks if task.note]
    head = ["task", "method", "shift", *(metric(name).heading for name in SHOWN), "in band"]
    lines = [f"# {config.name}", "", *notes, "" if notes else None, f"Command: `{command}`", ""]
    lines += [
        f"Means over {config.seeds} classifiers. Level {1 - config.alpha:g}; `in band`: classifiers inside the band.",
        "",
    ]
    lines += ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    keys = dict.fromkeys((row["task"], row["method"], row["shift"]) for row in rows)
    for key in keys:
        own = [row for row in rows if (row["task"], row["method"], row["shift"]) == key]
        inside = [row["in_band"] for row in own if "in_band" in row]
        cells = [*key, *(_mean(name, own) for name in SHOWN), f"{sum(inside)} of {len(inside)}" if inside else "-"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(line for line in lines if line is not None) + "\n"


def _mean(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    values = [row[name] for row in rows if row[name] is not None]
    return metric(name).said(sum(values) / len(values) if values else None)


CONFIG = CalibrationBench


def command(config: CalibrationBench, words: str) -> str:
    """Run, and say what came out."""
    run_calibration(config, words or None)
    return RunFolder(config.folder).said("results.json, table.md, figure.png")

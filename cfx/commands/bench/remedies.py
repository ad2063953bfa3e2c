"""Does a remedy keep a classifier from using a planted confounder? Judged where the confounder misleads.

Classifiers of disease are trained on rows whose planted factor equals the label with a training probability q: plainly,
and with every remedy. `unconfounded` is plain training on the same subjects with q = 1/2, which no remedy can be
expected to surpass. All are judged on other subjects: with q = 0.1, where following the confounder is wrong (`anti`),
and with q = 1/2 (`free`).

    recovered    (BA_remedy - BA_plain) / (BA_unconfounded - BA_plain) on `anti`: 1 closes the gap

Network k of every row has its own training subjects, initial weights and order of rows, the same in all rows, so rows
are compared network by network and image by image. Intervals hold over networks (with their training subjects) and
images, both random (`cfx.core.crossed`); that of the share by Fieller's argument: the shares r for which the mean of
(remedy - plain) - r (unconfounded - plain) is not told from 0.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from cfx.atlas import write_atlas
from cfx.confounder.intervention import judges
from cfx.core.cohort import Cohort
from cfx.core.crossed import crossed_effect
from cfx.core.errors import InputError
from cfx.core.rows import Rows, about
from cfx.core.scores import class_weights
from cfx.data import BrainConfig, load_cohort
from cfx.models.judge import Classifier
from cfx.models.running import at_rest
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.shares import shared
from cfx.training.classify import ClassifierConfig
from cfx.training.config import TrainConfig
from cfx.training.remedies import RemedyConfig
from cfx.training.repeats import train_seeds

PLAIN, UNCONFOUNDED = "plain", "unconfounded"
TESTS = {"anti": 0.1, "free": 0.5}
"""Probability that the confounder equals the label in each test set."""
_REACH, _HALVINGS = 4.0, 14  # how far from the share its limits are looked for, and how finely


class RemediesBench(RunConfig):
    """Which remedies to compare, and on what."""

    train: TrainConfig
    """Plain training; its data are simulated brains with one planted factor."""
    remedies: Mapping[str, RemedyConfig]
    """Remedies by name."""
    seeds: int = Field(default=3, ge=2)
    """Networks of each row."""
    n: int = Field(default=512, ge=4)
    """Images of each test set."""
    population: int = Field(default=61, ge=0)
    """Seed of the subjects of the test sets."""


@in_its_folder
def run_remedies(config: RemediesBench) -> list[dict[str, Any]]:
    """Train and judge all classifiers; write `results.json`, `table.md` and `config.yaml`.

    Networks are kept, and of each row and test set what they decided, in `<row>-<test set>.zarr`. The processes of a
    launch share the training and the judging.

    Returns:
        One row a way of training: `ba_anti`, `ba_free` and, of the remedies, `recovered`, with `_low` and `_high`.

    Raises:
        InputError: data other than simulated brains with one planted factor, or as `cfx.training.train`.
    """
    accelerator = make_accelerator()
    data = _data(config.train)
    tests = {name: load_cohort(_planted(data, q, config)) for name, q in TESTS.items()}
    folder = RunFolder(config.folder)
    folder.config(config)
    hits = {name: _hits(config, name, tests, accelerator) for name in (PLAIN, *config.remedies, UNCONFOUNDED)}
    rows = [{"remedy": name, **figures(name, hits)} for name in hits]
    folder.results(rows)
    folder.table(_table(rows, config))
    return rows


def _data(train: TrainConfig) -> BrainConfig:
    if not isinstance(train.data, BrainConfig) or len(train.data.confounders) != 1:
        raise InputError("train.data: expected simulated brains with one planted confounder")
    return train.data


def _planted(data: BrainConfig, q: float, config: RemediesBench) -> BrainConfig:
    """A test set: the same factor, planted with q in other subjects."""
    planted = data.confounders[0].model_copy(update={"q": q})
    return data.model_copy(update={"confounders": (planted,), "n": config.n, "seed": config.population, "start": 0})


def _hits(
    config: RemediesBench, name: str, tests: Mapping[str, Cohort], accelerator: Accelerator
) -> dict[str, Float[Tensor, "k n"]]:
    """Correct decisions of the networks of one row, by test set."""
    networks = [_network(config, name, k).to(accelerator.device) for k in range(config.seeds)]
    found = {test: decisions(networks, cohort, accelerator=accelerator) for test, cohort in tests.items()}
    for test, hits in found.items() if accelerator.is_main_process else ():
        write_atlas(config.folder / f"{name}-{test}.zarr", hits, exists="overwrite")
    return {test: hits.balanced() for test, hits in found.items()}


def _network(config: RemediesBench, name: str, k: int) -> nn.Module:
    """Network k of a row, trained on subjects of its own."""
    data, objective = _data(config.train), config.train.objective
    assert isinstance(objective, ClassifierConfig)
    data = data.model_copy(update={"start": data.start + k * data.n})
    if name == UNCONFOUNDED:
        data = data.model_copy(update={"confounders": (data.confounders[0].model_copy(update={"q": 0.5}),)})
    each = {
        "data": data,
        "objective": objective.model_copy(update={"remedy": config.remedies.get(name)}),
        "seed": config.train.seed + k,
        "out": str(config.folder / f"{name}-{k}"),
    }
    return train_seeds(config.train.model_copy(update=each), 1)[0]


@dataclass(frozen=True)
class Hits(Rows):
    """Whether networks decided rightly on every image.

    Attributes:
        row: Number of the image.
        y: Class of the image.
        right: Whether each network chose it.
    """

    row: Int[Tensor, " n"]
    y: Int[Tensor, " n"] = field(metadata=about(array="label"))
    right: Bool[Tensor, "n network"]

    def balanced(self) -> Float[Tensor, "network n"]:
        """The hits, weighted so that their mean over the two classes' rows is the balanced accuracy."""
        return self.right.T.contiguous().double() * class_weights(self.y)


@torch.no_grad()
def decisions(
    networks: Sequence[Classifier], cohort: Cohort, *, batch_size: int = 64, accelerator: Accelerator | None = None
) -> Hits:
    """Ask networks for the class of labelled images; of several processes each asks about its share.

    Raises:
        InputError: images without classes, or no network.
    """
    y, asked = cohort.y, judges(networks)
    if y is None or y.ndim != 1:
        raise InputError("cohort: expected images with one class label each, got none")

    def work(rows: Tensor) -> Hits:
        x, own = cohort.x[rows], y[rows]
        return Hits(rows, own, torch.stack([judge.logits(x).argmax(1) == own for judge in asked], 1))

    with at_rest(*networks):
        return shared(work, Hits, len(cohort), batch_size, accelerator)


def figures(name: str, hits: Mapping[str, Mapping[str, Float[Tensor, "k n"]]]) -> dict[str, float | None]:
    """Balanced accuracies of a row, and what part of the gap it recovers.

    Args:
        name: The row.
        hits: For every row and test set, the weighted hits of its networks.
    """
    found: dict[str, float | None] = {}
    for test in TESTS:
        e = crossed_effect(hits[name][test])
        found |= {f"ba_{test}": e.value, f"ba_{test}_low": e.low, f"ba_{test}_high": e.high}
    if name in (PLAIN, UNCONFOUNDED):
        return found
    plain = hits[PLAIN]["anti"]
    share, low, high = recovered(hits[name]["anti"] - plain, hits[UNCONFOUNDED]["anti"] - plain)
    return found | {"recovered": share, "recovered_low": low, "recovered_high": high}


def recovered(gain: Float[Tensor, "k n"], gap: Float[Tensor, "k n"]) -> tuple[float | None, float | None, float | None]:
    """Mean gain over mean gap with its interval (Fieller, 1954, with crossed standard errors).

    Args:
        gain: What a remedy adds to plain training, of every network on every image.
        gap: What is to be gained.

    Returns:
        The share with its 95 % limits; a limit is None where no share up to the end of the search is told from it, and
        all three are where the gap itself is not told from 0.
    """
    if crossed_effect(gap).low <= 0:
        return None, None, None
    share = float(gain.mean() / gap.mean())
    return share, _limit(gain, gap, share, -_REACH), _limit(gain, gap, share, _REACH)


def _limit(gain: Tensor, gap: Tensor, share: float, reach: float) -> float | None:
    """The share furthest in one direction that is not told from the estimate, by bisection."""
    kept, told = 0.0, 1.0
    if not _told(gain - (share + reach) * gap):
        return None
    for _ in range(_HALVINGS):
        middle = (kept + told) / 2
        kept, told = (kept, middle) if _told(gain - (share + middle * reach) * gap) else (middle, told)
    return share + told * reach


def _told(e: Float[Tensor, "k n"]) -> bool:
    """Whether a mean differs from 0."""
    found = crossed_effect(e)
    return not found.low <= 0 <= found.high


def _table(rows: Sequence[Mapping[str, Any]], config: RemediesBench) -> str:
    """The rows as markdown."""
    data, train = _data(config.train), config.train
    planted = data.confounders[0]
    lines = [
        f"Disease in simulated brains, planted {planted.kind} of strength {planted.strength:g} equal to the label with "
        f"q = {planted.q:g}; {data.n} training images, {train.steps} steps, {config.seeds} networks a row, "
        f"{config.n} test images. 95 % intervals over networks and images.",
        "",
        "| training | BA at q = 0.1 | BA at q = 0.5 | recovered share of the gap |",
        "|---|---|---|---|",
    ]
    for row in rows:
        cells = [_cell(row, key) for key in ("ba_anti", "ba_free", "recovered")]
        lines.append(f"| {row['remedy']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Mapping[str, Any], key: str) -> str:
    """A figure with its interval; a limit that was not found is open."""
    if row.get(key) is None:
        return "-"
    low, high = (row[f"{key}_{end}"] for end in ("low", "high"))
    return f"{row[key]:.3f} [{'open' if low is None else f'{low:.3f}'}, {'open' if high is None else f'{high:.3f}'}]"


CONFIG = RemediesBench


def command(config: RemediesBench, words: str) -> str:
    """Run, and say what came out."""
    run_remedies(config)
    return RunFolder(config.folder).said("results.json, table.md")

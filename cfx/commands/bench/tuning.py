"""The same tuning for every method: so many configurations each, on images that no comparison uses, and one rule.

    of the configurations that are valid in at least 0.9 of the images the one with the least error to the truth,
    relative to no edit; where there is none, the one with the highest validity, and of these the least error.

What is chosen is written to `tuning.json` after every method, with a hash that `cfx bench counterfactual` checks and
prints. Configurations are measured with the bench's own cells, so an interrupted tuning goes on where it was. The first
configuration of a method should be the published one: then tuning cannot make it worse on these images.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import Field, model_validator

from cfx.commands.bench.cells import Cell
from cfx.commands.bench.contender import Candidate, Choices, Contender
from cfx.commands.bench.counterfactual import Bench, CounterfactualBench
from cfx.core.cohort import Cohort
from cfx.counterfactual import Depth
from cfx.counterfactual.metrics import per_row
from cfx.counterfactual.result import Counterfactuals
from cfx.data import DataConfig
from cfx.models.opening import Network
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator

VALID = 0.9
"""Validity from which on the error decides."""
RULE = (
    f"Of the configurations valid in at least {VALID} of the images, the one with the least error to the truth relative"
    " to no edit; where there is none, the one with the highest validity, and of these the least error."
)
Tried = dict[str, Any]


class Tuned(Candidate):
    """A method with the configurations to try, each on top of its `settings`."""

    configurations: tuple[Mapping[str, Any], ...]
    """Settings of each; the first should be the published ones, `{}`."""


class TuningBench(RunConfig):
    """Which methods to tune, among which configurations, on which images."""

    data: tuple[DataConfig, ...] = Field(min_length=1)
    """Cohorts to tune on; `rows` of a method are the first of each."""
    reference: DataConfig | None = None
    """Labelled images that set the typical margins."""
    classifier: Network
    """The classifier: its path, or its path and how it wants images and answers."""
    generator: Network
    """The diffusion model, likewise."""
    autoencoder: Network | None = None
    """The autoencoder, likewise, for methods that work on latents."""
    depth: Depth = "typical"
    """Depth to tune at."""
    budget: int = Field(default=12, ge=1)
    """Configurations of every method."""
    methods: tuple[Tuned, ...] = Field(min_length=1)
    """What to tune."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=32, ge=1)
    """Images worked on together."""

    @model_validator(mode="after")
    def _same_budget(self) -> Self:
        keys = [m.key for m in self.methods]
        if double := sorted({k for k in keys if keys.count(k) > 1}):
            raise ValueError(f"methods: expected distinct labels, got {double} twice")
        if other := {m.key: len(m.configurations) for m in self.methods if len(m.configurations) != self.budget}:
            raise ValueError(f"configurations: expected {self.budget} for every method, got {other}")
        return self

    def bench(self, k: int) -> CounterfactualBench:
        """The comparison of all configurations on cohort k."""
        shared = ("reference", "classifier", "generator", "autoencoder", "seed", "batch_size")
        return CounterfactualBench(
            name=f"{self.name}-{k}", out=str(self.folder / f"cohort-{k}"), data=self.data[k], depths=(self.depth,),
            methods=tuple(_contender(m, i) for m in self.methods for i in range(self.budget)),
            **{name: getattr(self, name) for name in shared},
        )  # fmt: skip


def _contender(method: Tuned, i: int) -> Contender:
    """Configuration i of a method as a contender of its own."""
    values = method.model_dump(exclude={"configurations", "settings", "label"})
    settings = {**method.settings, **method.configurations[i]}
    return Contender(**values, label=f"{method.key}.{i}", settings=settings)


@in_its_folder
def run_tuning(config: TuningBench) -> Choices:
    """Tune every method in turn and write `tuning.json`, `table.md` and `config.yaml`.

    Args:
        config: What to tune.

    Returns:
        What was chosen.

    Raises:
        InputError, CheckpointError: what all methods share, or the name or the settings of a method, is not usable.
    """
    accelerator = make_accelerator()
    benches = [Bench(config.bench(k), accelerator) for k in range(len(config.data))]
    folder, images = RunFolder(config.folder), tuple(map(_described, config.data))
    folder.config(config)
    tried: dict[str, tuple[Tried, ...]] = {}
    for method in config.methods:
        tried[method.key] = tuple(_try(benches, method, i, config.depth) for i in range(config.budget))
        chosen = {key: choose(found) for key, found in tried.items()}
        choices = Choices(rule=RULE, images=images, chosen=chosen, tried=dict(tried))
        folder.write("tuning.json", choices.frozen())
        folder.table(_markdown(config.name, choices))
    return choices


def _described(data: DataConfig) -> str:
    """A cohort in a few words: all that its configuration sets."""
    return ", ".join(f"{k} {v}" for k, v in data.model_dump(mode="json", exclude_defaults=True).items())


def _try(benches: Sequence[Bench], method: Tuned, i: int, depth: Depth) -> Tried:
    """What a configuration reaches on all cohorts together."""
    contender = _contender(method, i)
    cells = [(bench.cell(contender, depth), bench.cohort) for bench in benches]
    done = [(cell.result, cohort[: len(cell.result)]) for cell, cohort in cells if isinstance(cell, Cell)]
    errors = [cell for cell, _ in cells if isinstance(cell, str)]
    found: Tried = {"settings": dict(contender.settings)}
    return found | ({"n": 0, "validity": 0.0, "error": errors[0]} if errors else scores(done))


def scores(done: Sequence[tuple[Counterfactuals, Cohort]]) -> Tried:
    """Validity, error to the truth over that of no edit, and evaluations, over all rows of several results."""
    rows = [per_row(result, cohort) for result, cohort in done]
    total = {k: float(sum(r[k].sum() for r in rows)) for k in rows[0]}
    n = sum(len(result) for result, _ in done)
    out: Tried = {"n": n, "validity": total["validity"] / n}
    if "error_to_truth" in total:
        out["error_to_truth_ratio"] = total["error_to_truth"] / total["error_to_truth_no_edit"]
    return out | {"nfe": (total["nfe_unet_forward"] + total["nfe_unet_backward"]) / n}


def choose(tried: Sequence[Tried]) -> Tried:
    """What the rule chooses; the earlier one of two that are equal."""

    def rank(found: Tried) -> tuple[float, float]:
        error = found.get("error_to_truth_ratio", 0.0 if found["n"] else float("inf"))
        return -min(found["validity"], VALID), error

    return min(tried, key=rank)


def _markdown(title: str, choices: Choices) -> str:
    """Every configuration with what it reached; the chosen ones in bold."""
    lines = ["| method | settings | n | valid | error to truth / no edit | evaluations + gradients |", "|---" * 6 + "|"]
    for key, every in choices.tried.items():
        for found in every:
            words = ", ".join(f"{k} {v}" for k, v in found["settings"].items()) or "as published"
            figures = [str(found["n"]), *(_number(found.get(k)) for k in ("validity", "error_to_truth_ratio", "nfe"))]
            name = f"**{key}**" if found == choices.chosen[key] else key
            lines.append(f"| {name} | {found.get('error', words)} | {' | '.join(figures)} |")
    head = f"# {title}\n\n{choices.rule} Images: {'; '.join(choices.images)}. Hash `{choices.digest:.16}`.\n\n"
    return head + "\n".join(lines) + "\n\nBold: chosen.\n"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


CONFIG = TuningBench


def command(config: TuningBench, words: str) -> str:
    """Run, and say what came out."""
    run_tuning(config)
    return RunFolder(config.folder).said("tuning.json, table.md")

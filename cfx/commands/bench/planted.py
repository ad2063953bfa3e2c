"""Does an explanation show what the classifier looks at? Checked with classifiers of one planted factor each.

Every classifier here was trained on a factor that has nothing to do with the disease: a tag, an implant, a scanner, a
brain shape. The generator is the same for all and knows the disease as its classes; so a method that explains the
generator's labels instead of the classifier shows the disease, and is caught. For each image two true effects are
known: that of the planted factor, e_k = x(factor changed) - x, and that of the disease, e_d = x(disease changed) - x.

    revealed   share of images whose planted object (pixels where abs(e_k) > `TRUE_EFFECT`) lies inside the top 5 % of
               the change map: at least nine tenths of it
    faithful   share of images whose edit has a larger cosine with e_k than with e_d
    consent    how far the classifier agreed with the generator's classes; 0 is right here

All of these factors were in the generator's training, and none goes with the disease. What no generator has seen, what
goes with the disease, and what a classifier has not learnt, `cfx.commands.bench.faithful` asks about.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor

from cfx.core.cohort import Cohort, subjects
from cfx.core.denoiser import Generative
from cfx.counterfactual import build_method, explain
from cfx.counterfactual.metrics import TRUE_EFFECT, evaluate, means
from cfx.counterfactual.result import Counterfactuals
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Confounder
from cfx.models.opening import Network, open_network
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator

TOP = 0.05
"""Share of the pixels that counts as the top of a change map."""
_INSIDE = 0.9  # of the planted object, for it to lie inside

Kind = Literal["tag", "implant", "ruler", "scanner", "shape"]


class PlantedBench(RunConfig):
    """Which planted factors to look for, with which classifiers."""

    n: int = Field(default=256, ge=2)
    """Images for each classifier."""
    population: int = Field(default=21, ge=0)
    """Seed of the simulated subjects."""
    generator: Network
    """The diffusion model: its path, or its path and settings."""
    classifiers: Mapping[Kind, Network]
    """The classifier of each factor, likewise."""
    methods: tuple[str, ...] = ("minimal", "gradient-attack")
    """Methods to run."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=32, ge=1)
    """Images worked on together."""


@in_its_folder
def run_planted(config: PlantedBench) -> list[dict[str, Any]]:
    """Explain every classifier and write `results.json`, `table.md` and `config.yaml`.

    Returns:
        One row a factor and method: the figures above with `_low` and `_high`, and those of
        `cfx.counterfactual.metrics.evaluate` against the planted factor's truth.

    Raises:
        InputError, CheckpointError: a checkpoint or method is not usable.
    """
    accelerator, folder = make_accelerator(), RunFolder(config.folder)
    folder.config(config)
    generator = cast(Generative, open_network(config.generator, "generator").to(accelerator.device))
    rows: list[dict[str, Any]] = []
    for kind, network in config.classifiers.items():
        classifier = open_network(network).to(accelerator.device)
        images, disease = planted_cohort(kind, config.n, config.population)
        reference, _ = planted_cohort(kind, 128, config.population + 1)
        for name in config.methods:
            result = explain(
                images,
                classifier,
                generator,
                None if images.y is None else 1 - images.y,
                reference=reference,
                method=build_method(name),
                seed=config.seed,
                batch_size=config.batch_size,
                progress=accelerator.is_main_process,
                accelerator=accelerator,
            )
            rows.append({"factor": kind, "method": name} | figures(result, images, disease))
    folder.results(rows)
    folder.table(_table(rows))
    return rows


def planted_cohort(kind: Kind, n: int, seed: int) -> tuple[Cohort, Float[Tensor, "n 1 *space"]]:
    """Subjects whose class is a planted factor, and the same subjects with their disease changed instead."""
    config = BrainConfig(n=n, seed=seed, confounders=(Confounder(kind=kind),), label=kind)
    disease = load_cohort(config.model_copy(update={"label": "disease"})).x_true
    assert disease is not None
    return load_cohort(config), disease


def figures(result: Counterfactuals, images: Cohort, disease: Float[Tensor, "n 1 *space"]) -> dict[str, float]:
    """All figures of one factor and method."""
    assert images.x_true is not None
    edit, planted = result.x_cf - result.x, images.x_true - result.x
    rows = {
        "revealed": inside_top(edit, planted.abs() > TRUE_EFFECT),
        "faithful": (cosine(edit, planted) > cosine(edit, disease - result.x)).double(),
        "cosine_to_planted": cosine(edit, planted).double(),
        "cosine_to_disease": cosine(edit, disease - result.x).double(),
    }
    if result.consent is not None and not bool(result.consent.isnan().all()):
        rows["consent"] = result.consent.double()
    return means(rows, subjects(images)) | evaluate(result, images)


def inside_top(edit: Float[Tensor, "n c *space"], region: Bool[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
    """1 where the region lies inside the top `TOP` of the change map, 0 where not; NaN where there is no region."""
    size, where = edit.abs().amax(1).flatten(1), region.any(1).flatten(1)
    count = max(1, round(TOP * size.shape[1]))
    top = torch.zeros_like(where).scatter(1, size.topk(count, dim=1).indices, True) & (size > 0)
    share = (top & where).sum(1).double() / where.sum(1)
    return (share >= _INSIDE).double().masked_fill(~where.any(1), torch.nan)


def cosine(a: Float[Tensor, "n c *space"], b: Float[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
    """Cosine of two maps, row by row; 0 where either is zero."""
    a, b = a.flatten(1).double(), b.flatten(1).double()
    found: Tensor = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
    return found


def _table(rows: list[dict[str, Any]]) -> str:
    """The rows as markdown."""
    shown = ("validity", "revealed", "faithful", "cosine_to_planted", "cosine_to_disease", "consent", "stable")
    lines = ["| factor | method | " + " | ".join(shown) + " |", "|---|---|" + "---|" * len(shown)]
    for row in rows:
        cells = [f"{row[k]:.3f}" if k in row else "-" for k in shown]
        lines.append(f"| {row['factor']} | {row['method']} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


CONFIG = PlantedBench


def command(config: PlantedBench, words: str) -> str:
    """Run, and say what came out."""
    run_planted(config)
    return RunFolder(config.folder).said("results.json, table.md")

"""Is the reliance test itself right? How often it rejects a true null, and how small a reliance it finds.

- `simulated`: effects drawn from crossed random effects of known variances around a true mean of 0. `crossed` is the
  test of cfx; `images_only` averages the networks and tests the images; `pooled` takes all values as independent.
- `controls`: whole verdicts on simulated scores with artefacts of the change in every arm (`bench.controls`).
- `trained`: really trained networks, and shape transfers whose donors had their classes shuffled: whatever the networks
  learned, both arms then show shapes of one distribution, so the null is true.
- `power`: networks trained with a planted object of some strength that equals the label with probability q, tested by
  taking it away: the share of small tests (drawn from the measured scores) that find the reliance.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from jaxtyping import Float
from pydantic import Field
from scipy import stats
from torch import Tensor, nn

from cfx.atlas import write_atlas
from cfx.commands.bench.controls import Control, verdicts
from cfx.commands.bench.figure import power_figure
from cfx.confounder.intervention import OPPOSITE, SAME, Intervention, Scores, measure
from cfx.confounder.plan import Kind, Plan
from cfx.confounder.planted import simulated
from cfx.confounder.reliance import decide, effect_of
from cfx.confounder.swap import ShapeSwap
from cfx.core.crossed import crossed_effect
from cfx.core.random import normal, permutation, uniform
from cfx.core.statistics import bootstrap_interval
from cfx.data import BrainConfig, load_cohort
from cfx.data.brain import Confounder
from cfx.runtime.config import Frozen, RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.training.config import TrainConfig
from cfx.training.repeats import train_seeds

ALPHA = 0.05
METHODS = ("crossed", "images_only", "pooled")


class Design(Frozen):
    """A simulated experiment."""

    networks: int = Field(ge=2)
    """Networks."""
    images: int = Field(ge=2)
    """Test images."""
    donors: int = Field(ge=2)
    """Donors in each of the two pools from which every image takes one."""
    s_seed: float = Field(ge=0)
    """Standard deviation between networks; that between images is 0.5, that of the rest 0.3."""
    s_donor: float = Field(ge=0)
    """Standard deviation between donors."""


class RelianceBench(RunConfig):
    """How the test is checked."""

    designs: tuple[Design, ...]
    """Simulated experiments."""
    controls: tuple[Control, ...] = ()
    """Simulated tests whose arms have artefacts."""
    simulations: int = Field(default=1000, ge=1)
    """Simulated tests of each design."""
    trained: int = Field(default=40, ge=0)
    """True nulls with trained networks."""
    train: TrainConfig
    """How every network is trained; its data are a simulated cohort, whose planted factor this bench sets."""
    images: int = Field(default=64, ge=4)
    """Test images of an experiment with trained networks."""
    seeds: int = Field(default=8, ge=2)
    """Networks of an experiment."""
    object: Kind = "tag"
    """Planted object of the power surface."""
    q: tuple[float, ...] = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
    """Probabilities that it equals the label in training."""
    strength: tuple[float, ...] = (0.05, 0.1, 0.25, 1.0)
    """Its strengths."""
    pool: int = Field(default=10, ge=2)
    """Networks trained for a cell of the power surface."""
    subsets: int = Field(default=400, ge=1)
    """Small tests drawn from a cell: `seeds` of its networks, a quarter of its images."""


@in_its_folder
def run_reliance(config: RelianceBench) -> list[dict[str, Any]]:
    """Run all three parts and write `results.json`, `table.md`, `figure.png` and `config.yaml`.

    Networks are kept, each experiment's in a folder of its own, with their scores in `atlas.zarr`. The processes of a
    launch share the training and the measuring.

    Returns:
        One row a simulated design, with artefacts or without, one for the trained nulls, one a cell of the power
        surface.

    Raises:
        InputError, CfxError: as `train_seeds`.
    """
    accelerator = make_accelerator()
    folder = RunFolder(config.folder)
    folder.config(config)
    rows = [simulated_null(design, config.simulations, seed) for seed, design in enumerate(config.designs)]
    rows += [verdicts(design, config.simulations, seed) for seed, design in enumerate(config.controls)]
    if config.trained:
        rows.append(trained_null(config, accelerator))
    rows += [power(config, q, strength, accelerator) for strength in config.strength for q in config.q]
    folder.results(rows)
    folder.table(_table(rows))
    folder.figure(power_figure([row for row in rows if row["part"] == "power"]))
    return rows


def simulated_null(design: Design, count: int, seed: int) -> dict[str, Any]:
    """Type I error of all three ways of testing."""
    p = [_p_values(*_draw(design, i, seed)) for i in range(count)]
    return {"part": "simulated", **design.model_dump()} | _rates(p)


def _draw(design: Design, i: int, seed: int) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
    """Effects whose true mean is 0: two arms, each with a donor of its own pool."""
    k, n, d = design.networks, design.images, design.donors

    def z(*shape: int, stream: int) -> Tensor:
        return normal(shape, seed=seed, row=torch.tensor([i]), stream=stream)[0].double()

    u = uniform((2, n), seed=seed, row=torch.tensor([i]), stream=0)[0]
    other, same = (u * d).long() + torch.tensor([[0], [d]])
    own = design.s_seed * z(k, 1, stream=1) + 0.5 * z(1, n, stream=2) + 0.3 * z(k, n, stream=3)
    value = design.s_donor * (z(1, 2 * d, stream=4) + 0.3 * z(k, 2 * d, stream=5))
    parts = [(own + value[:, other], other), (-value[:, same], same)]
    return parts[0][0] + parts[1][0], parts


def _p_values(e: Float[Tensor, "k n"], parts: Sequence[tuple[Tensor, Tensor]]) -> tuple[float, float, float]:
    """The p of the crossed test, of the images after averaging the networks, and of all values as independent."""
    images, pooled = (float(stats.ttest_1samp(v.double().numpy(), 0).pvalue) for v in (e.mean(0), e.flatten()))
    return crossed_effect(e, donors=parts).p_value, images, pooled


def _rates(p: Sequence[tuple[float, float, float]]) -> dict[str, Any]:
    """Share of rejections by method, its binomial band under a valid test, and whether the crossed test is inside."""
    low, high = (float(v) / len(p) for v in stats.binom.interval(0.95, len(p), ALPHA))
    shares = {name: sum(v[j] < ALPHA for v in p) / len(p) for j, name in enumerate(METHODS)}
    return {"n": len(p), **shares, "band_low": low, "band_high": high, "inside": low <= shares["crossed"] <= high}


def trained_null(config: RelianceBench, accelerator: Accelerator) -> dict[str, Any]:
    """Type I error with trained networks; every experiment has its own networks, test images and donors."""
    data = _data(config, Confounder(kind="shape", q=0.5))
    cohort, p, effects = load_cohort(data), [], []
    for i in range(config.trained):
        base = config.train.model_copy(update={"seed": i * config.seeds, "out": str(config.folder / f"null-{i}")})
        networks = train_seeds(base, config.seeds, cohort)
        test = load_cohort(data.model_copy(update={"n": 3 * config.images, "start": 10**6 + i * 10**4}))
        shuffled = replace(test, y=(permutation(len(test), seed=i, stream=0) < len(test) // 2).long())
        swap = ShapeSwap.of(test[: config.images], shuffled[config.images :], seed=i)
        scores = _scores(networks, swap, base.folder, accelerator)
        e, parts = effect_of(scores)
        p.append(_p_values(e, parts))
        effects.append(float(e.mean()))
    return {"part": "trained", **_rates(p), "effect": sum(effects) / len(effects)}


def power(config: RelianceBench, q: float, strength: float, accelerator: Accelerator) -> dict[str, Any]:
    """One cell of the power surface."""
    planted = Confounder(kind=config.object, q=q, strength=strength)
    data = _data(config, planted)
    base = config.train.model_copy(update={"out": str(config.folder / f"{config.object}-{q:g}-{strength:g}")})
    networks = train_seeds(base, config.pool, load_cohort(data))
    test = data.model_copy(update={"n": 2 * config.images, "start": 2 * 10**6})
    scores = _scores(networks, simulated(test, config.object)[0], base.folder, accelerator)
    plan = Plan(confounder=config.object, seeds=config.pool, doses=())
    found = decide(scores, plan)
    row = {"part": "power", "q": q, "strength": strength, "verdict": str(found.verdict)}
    row |= {"effect": found.effect.value, "effect_low": found.effect.low, "effect_high": found.effect.high}
    hits = torch.tensor([_small_test(scores, config, draw) for draw in range(config.subsets)])
    low, high = bootstrap_interval(hits)
    return row | {"power": float(hits.double().mean()), "power_low": low, "power_high": high}


def _scores(
    networks: Sequence[nn.Module], intervention: Intervention, folder: Path, accelerator: Accelerator
) -> Scores:
    """What networks say of every arm, kept beside them."""
    there = [network.to(accelerator.device) for network in networks]
    scores = measure(there, intervention, accelerator=accelerator)
    if accelerator.is_main_process:
        write_atlas(folder / "atlas.zarr", scores, exists="overwrite")
    return scores


def _small_test(scores: Scores, config: RelianceBench, draw: int) -> bool:
    """Whether a test of `seeds` networks and a quarter of the images finds a reliance in the planted direction."""
    e = scores.arm(OPPOSITE) - scores.arm(SAME)
    k = permutation(len(e), seed=draw, stream=0)[: config.seeds]
    n = permutation(e.shape[1], seed=draw, stream=1)[: max(2, e.shape[1] // 4)]
    found = crossed_effect(e[k][:, n])
    return found.value > 0 and found.p_value < ALPHA


def _data(config: RelianceBench, planted: Confounder) -> BrainConfig:
    """The training cohort with this factor planted."""
    assert isinstance(config.train.data, BrainConfig)
    return config.train.data.model_copy(update={"confounders": (planted,)})


def _table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as markdown."""
    head = "null | networks | images | donors | sd networks | sd donors | n | crossed | band | images only | pooled"
    lines = [f"| {head} |", "|---" * 11 + "|"]
    for r in rows:
        if r["part"] not in ("simulated", "trained"):
            continue
        design = [str(r.get(k, "-")) for k in ("networks", "images", "donors", "s_seed", "s_donor")]
        band = f"[{r['band_low']:.3f}, {r['band_high']:.3f}]"
        rates = [f"{r['crossed']:.3f}", band, f"{r['images_only']:.3f}", f"{r['pooled']:.3f}"]
        lines.append("| " + " | ".join([r["part"], *design, str(r["n"]), *rates]) + " |")
    lines += _controls([r for r in rows if r["part"] == "controls"])
    lines += ["", "| strength | q | effect (logits) | verdict | power |", "|---|---|---|---|---|"]
    for r in rows:
        if r["part"] == "power":
            effect = f"{r['effect']:+.2f} [{r['effect_low']:+.2f}, {r['effect_high']:+.2f}]"
            lines.append(f"| {r['strength']} | {r['q']} | {effect} | {r['verdict']} | {r['power']:.2f} |")
    return "\n".join(lines) + "\n"


def _controls(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The tests with artefacts, as lines of a table."""
    if not rows:
        return []
    keys = ("truth", "artefact", "unequal", "networks", "images", "donors", "n")
    shares = ("effect_differs", "net_differs", "relies", "no_reliance", "artefact_found", "inconclusive")
    names = [*keys[:1], "artefact in all arms", "more in those of the other class", *keys[3:]]
    names += ["effect differs", "net differs", "relies", "no reliance", "artefact", "inconclusive"]
    lines = ["", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    cells = [[*(str(r[k]) for k in keys), *(f"{r[k]:.3f}" for k in shares)] for r in rows]
    return lines + [f"| {' | '.join(row)} |" for row in cells]


CONFIG = RelianceBench


def command(config: RelianceBench, words: str) -> str:
    """Run, and say what came out."""
    run_reliance(config)
    return RunFolder(config.folder).said("results.json, table.md, figure.png")

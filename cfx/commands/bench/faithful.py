"""Who shows what a classifier reads, and who says when there is nothing to show? With classifiers that are known.

An edit shows what the generator knows of a class, and what the classifier reads of it may be little, or nothing. So
every method explains classifiers whose reason is known (`cfx.commands.bench.cases`) and is asked:

    read_in_truth       share of the voxels it calls read that lie where the classifier can read anything
    edit_in_truth       share of the energy of its edit, sum e^2, that lies there
    shows_disease       projection of the edit on the disease, <e, e_d> / <e_d, e_d>, positive towards what the
                        generator knows under the number of the target: 1 is the whole disease
    read_shows_disease  the same of the read part alone
    read_in_lesion      share of the attribution of the read part that lies in lesions, now or in the other class
    judged              share of the networks (one, or those of an untrained family) whose run is judged at all
    trusted             share of the networks whose run is judged, and most of whose rows flip

beside what every run says itself (`read_share`, `read_alone`, `rest_alone`, `carried`, `stable`, `consent`) and what an
independent oracle says. Only for a classifier of the disease itself should a picture of the disease be judged.

Intervals hold over subjects; over networks where there are several.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from cfx.commands.bench.cases import CASES, cases
from cfx.commands.bench.contender import Candidate, unlabelled
from cfx.commands.bench.shown import Example, draw
from cfx.commands.bench.stock import Case, Stock
from cfx.core.cohort import subjects
from cfx.core.denoiser import Generative
from cfx.core.errors import CfxWarning, InputError
from cfx.counterfactual import explain
from cfx.counterfactual.metrics import means, per_row
from cfx.counterfactual.reading import attribution
from cfx.counterfactual.registry import NEEDS
from cfx.counterfactual.result import Counterfactuals
from cfx.display.catalogue import Metric, metric, register
from cfx.display.markdown import grid
from cfx.models.autoencoder import Vae
from cfx.models.judge import Judge
from cfx.models.opening import Network, Role, open_network
from cfx.models.running import at_rest, device_of
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator

if TYPE_CHECKING:
    pass

_OF_RUN = ("validity", "stable", "oracle_validity", "consent", "read_share", "read_alone", "rest_alone")
_SHOWN = (
    "judged", "trusted", "validity", "stable", "oracle_validity", "consent", "read_in_truth", "edit_in_truth",
    "read_share", "read_alone", "rest_alone", "carried", "shows_disease", "read_shows_disease", "read_in_lesion",
)  # fmt: skip
_SPREAD = ("trusted", "validity", "carried", "shows_disease")
_MOST = 0.5  # of the rows of a run that flip, for it to be taken for an explanation

register(
    Metric("read_in_truth", "read, of the known", "Share of the read voxels that the classifier can read.", "higher"),
    Metric("edit_in_truth", "edit, of the known", "Share of the edit's energy where the classifier can read."),
    Metric("carried", "carried", "Share of rows in which the rest of the edit does nothing: the generator adds it."),
    Metric("shows_disease", "disease shown", "Projection of the edit on the disease; 1 is the whole of it."),
    Metric("read_shows_disease", "disease read", "Projection of the read part of the edit on the disease."),
    Metric("read_in_lesion", "read in lesions", "Share of the attribution of the read part that lies in lesions."),
    Metric("judged", "judged", "Share of the networks whose run is judged."),
    Metric("trusted", "trusted", "Share of the networks whose run is judged, and most of whose rows flip."),
)


class FaithfulBench(RunConfig):
    """Which methods to ask about which classifiers."""

    cases: tuple[str, ...] = tuple(CASES)
    """Cases to run; the names stand in `cfx.commands.bench.cases`."""
    methods: tuple[Candidate, ...] = Field(min_length=1)
    """Methods to run; the first also explains the untrained families, and its reading is drawn."""
    generator: Network
    """The diffusion model: its path, or its path and settings."""
    classifiers: Mapping[str, Network]
    """Trained classifiers of the disease by architecture; the first is also that of `exchanged` and `tag-sum`."""
    tag: Network | None = None
    """A classifier of the tag, for the case `tag-sum`."""
    oracle: Network | None = None
    """An independent classifier of the disease."""
    size: int = Field(default=64, ge=16, le=256)
    """Pixels along an edge of the images."""
    dims: Literal[2, 3] = 2
    """2: axial slices; 3: volumes."""
    n: int = Field(default=32, ge=2)
    """Images explained for every classifier."""
    reference: int = Field(default=256, ge=8)
    """Labelled images that set the typical margins."""
    population: int = Field(default=84, ge=0)
    """Seed of the subjects explained, and of the places; those of the reference and of training have the next two."""
    places: int = Field(default=4, ge=1)
    """Pixels, and patches."""
    untrained: int = Field(default=20, ge=1)
    """Networks of each untrained family."""
    few: int = Field(default=8, ge=1)
    """Images explained for each of them."""
    learn: int = Field(default=768, ge=8)
    """Images that the small networks are trained on."""
    steps: int = Field(default=250, ge=1)
    """Steps that they are trained for."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness of the methods."""
    batch_size: int = Field(default=32, ge=1)
    """Images worked on together."""


@dataclass(frozen=True)
class Answer:
    """What became of one network's run.

    Attributes:
        result: Its result; None where the run was refused.
        why: Why it was refused, or is not judged; empty where it is.
    """

    result: Counterfactuals | None
    why: str = ""

    @property
    def trusted(self) -> bool:
        """Whether a reader could take it for an explanation."""
        flips = 0.0 if self.result is None else float(self.result.reached.double().mean())
        return not self.why and flips >= _MOST


@in_its_folder
def run_faithful(config: FaithfulBench) -> list[dict[str, Any]]:
    """Explain every classifier by every method and write `results.json`, `table.md`, `figure.png` and `config.yaml`.

    The networks that are trained for it are kept in the folder and taken up by the next run. What is done is in
    `results.json` as it comes.

    Returns:
        One row a classifier (or family) and method: the figures above with `_low` and `_high`, `n` rows explained,
        `networks`, and `why` where a run was refused or is not judged.

    Raises:
        InputError, CheckpointError: a case, method or checkpoint is not usable.
    """
    unknown = sorted(set(config.cases) - set(CASES))
    if unknown:
        raise InputError(f"cases: expected some of {list(CASES)}, got {unknown}")
    bench, folder = _Bench(config), RunFolder(config.folder)
    folder.config(config)
    rows: list[dict[str, Any]] = []
    examples: list[Example] = []
    for case in cases(bench.stock, config.cases):
        shown: dict[str, Counterfactuals] = {}
        for candidate in config.methods[: 1 if len(case.networks) > 1 else None]:
            answers = [bench.ask(case, network, candidate) for network in case.networks]
            rows.append({"classifier": case.name, "method": candidate.key} | figures(case, answers))
            if all(answer.result is None for answer in answers):
                break  # it is the classifier that is refused, whatever the method
            if answers[0].result is not None:
                shown[candidate.key] = answers[0].result
        examples += [Example(case, shown)] if shown else []
        folder.results(rows)
    folder.table(table(rows))
    folder.figure(draw(examples))
    return rows


class _Bench:
    """What all cases share, loaded once."""

    def __init__(self, config: FaithfulBench) -> None:
        self.config, self.accelerator = config, make_accelerator()
        self.methods = {m.key: m.build() for m in config.methods}
        self.generators = {m.key: self.generating(m) for m in config.methods}
        self.reviewer = self.network(config.generator, "generator")
        trained = {name: self.network(network) for name, network in config.classifiers.items()}
        self.oracle = None if config.oracle is None else self.network(config.oracle, "oracle")
        keys = ("n", "reference", "population", "places", "untrained", "few", "learn", "steps")
        self.stock = Stock(
            grid={"size": config.size, "dims": config.dims},
            trained=trained,
            tag=None if config.tag is None else self.network(config.tag),
            folder=config.folder / "networks",
            **{key: getattr(config, key) for key in keys},
        )

    def network(self, network: Network, role: Role = "classifier") -> nn.Module:
        """A network on the device."""
        return open_network(network, role).to(self.accelerator.device)

    def generating(self, candidate: Candidate) -> nn.Module:
        """What a method generates with."""
        role: Role = "autoencoder" if NEEDS.get(candidate.method) is Vae else "generator"
        found = self.network(candidate.generator or self.config.generator, role)
        return found if candidate.labels else unlabelled(cast(Generative, found))

    def ask(self, case: Case, network: nn.Module, candidate: Candidate) -> Answer:
        """Explain one network; what is said of it before and on the way is kept, and a refusal is an answer."""
        rows = slice(0, candidate.rows)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CfxWarning)  # the standing of the run has them, in its own words
            try:
                result = explain(
                    case.images[rows],
                    network.to(self.accelerator.device),
                    cast(Any, self.generators[candidate.key]),
                    reference=case.reference,
                    oracle=self.oracle if case.images.classes == self.stock.asked.classes else None,
                    method=self.methods[candidate.key],
                    reviewer=cast(Any, self.reviewer),
                    seed=self.config.seed,
                    batch_size=self.config.batch_size,
                    progress=False,
                    accelerator=self.accelerator,
                )
            except InputError as error:
                return Answer(None, str(error))
        return Answer(result, result.why)


def figures(case: Case, answers: Sequence[Answer]) -> dict[str, Any]:
    """All figures of a case and method: of its one network, or of a family."""
    done = [answer.result for answer in answers if answer.result is not None]
    found: dict[str, Any] = {"n": sum(map(len, done)), "networks": len(answers)}
    if done:
        parts = [
            measured(case, a.result, f) for a, f in zip(answers, case.networks, strict=True) if a.result is not None
        ]
        joined = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        of = torch.arange(len(done)).repeat_interleave(torch.tensor([len(r) for r in done]))
        found |= means(joined, subjects(case.images[: len(done[0])]) if len(answers) == 1 else of)
    each_network = {"judged": [not a.why for a in answers], "trusted": [a.trusted for a in answers]}
    found |= means({k: torch.tensor(v).double() for k, v in each_network.items()})
    why = sorted({answer.why for answer in answers} - {""})
    return found | ({"why": why[0]} if why else {})


def measured(case: Case, result: Counterfactuals, network: nn.Module) -> dict[str, Float[Tensor, " n"]]:
    """One number a row for each figure; NaN where it has no meaning."""
    n, known = len(result), per_row(result)
    found = {name: known[name].double() for name in _OF_RUN if name in known}
    found["carried"] = known["reading_carried"].double()
    e, d = result.x_cf - result.x, case.disease[:n] - result.x
    towards = torch.where(result.target == case.towards[:n], 1.0, -1.0)
    found["shows_disease"] = projection(e, d) * towards
    read = torch.zeros_like(case.lesion[:n]) if result.read is None else result.read
    seen = ~known["read_share"].isnan()
    found["read_shows_disease"] = (projection(e * read, d) * towards).where(seen, torch.nan)
    seen_most = attributed(result, network).clamp_min(0) * read
    found["read_in_lesion"] = share(seen_most, case.lesion[:n])
    if case.truth is not None:
        found["read_in_truth"] = share(read.float(), case.truth[:n])
        found["edit_in_truth"] = share(e.square(), case.truth[:n])
    return found


def attributed(result: Counterfactuals, network: nn.Module) -> Float[Tensor, "n 1 *space"]:
    """Integrated gradients of the margin along the edit, on the CPU."""
    judge, place = Judge(network), device_of(network) or torch.device("cpu")
    x, e, target = (v.to(place) for v in (result.x, result.x_cf - result.x, result.target))
    with at_rest(network):
        return attribution(
            torch.arange(len(x), device=place), x, e, lambda rows, image: judge.gradient(image, target[rows])
        ).cpu()


def projection(e: Float[Tensor, "n c *space"], d: Float[Tensor, "n c *space"]) -> Float[Tensor, " n"]:
    """<e, d> / <d, d>; NaN where d is zero."""
    found: Tensor = (e * d).flatten(1).double().sum(1) / d.flatten(1).double().square().sum(1)
    return found


def share(weight: Float[Tensor, "n c *space"], where: Float[Tensor, "n 1 *space"] | Tensor) -> Float[Tensor, " n"]:
    """Share of a weight that lies in a region; NaN where there is no weight."""
    found: Tensor = (weight * where).flatten(1).double().sum(1) / weight.flatten(1).double().sum(1)
    return found


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as markdown: all figures of the first method, then the others beside it."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    first = [row for row in rows if row["method"] == methods[0]]
    whole = [[row["classifier"], str(row["n"]), *(_cell(row, k) for k in _SHOWN)] for row in first]
    every = {(row["classifier"], row["method"]): row for row in rows}
    beside = [
        [c, *(_three(every.get((c, m), {})) for m in methods)] for c in dict.fromkeys(r["classifier"] for r in rows)
    ]
    parts = [
        f"Explained by `{methods[0]}`:",
        grid(["classifier", "n", *(metric(k).heading for k in _SHOWN)], whole),
        "Every method: how much of the disease it shows / share of rows whose rest is called carried / share of rows "
        "that are stable, of those that reach the margin:",
        grid(["classifier", *methods], beside),
    ]
    said = {row["classifier"]: row["why"] for row in reversed(first) if "why" in row}
    if said:
        told = [f"- `{name}`: {why}" for name, why in reversed(said.items())]
        parts += ["Not judged, or refused, in their own words:", "\n".join(told)]
    return "\n\n".join(parts) + "\n"


def _three(row: Mapping[str, Any]) -> str:
    """What a method shows, says and holds."""
    found = [f"{row[k]:.2f}" if k in row else "-" for k in ("shows_disease", "carried", "stable")]
    return " / ".join(found) if "shows_disease" in row else "-"


def _cell(row: Mapping[str, Any], name: str) -> str:
    """A figure; with its interval if it is one of those that decide, and the interval says anything."""
    if name not in row:
        return "-"
    low, high = (row.get(f"{name}_{end}") for end in ("low", "high"))
    some = name in _SPREAD and low is not None and high is not None and low != high
    return f"{row[name]:.2f}" + (f" [{low:.2f}, {high:.2f}]" if some else "")


CONFIG = FaithfulBench


def command(config: FaithfulBench, words: str) -> str:
    """Run, and say what came out."""
    run_faithful(config)
    return RunFolder(config.folder).said("results.json, table.md, figure.png")

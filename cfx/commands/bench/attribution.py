"""Where do methods of attribution look, and is it where the answer is? Classic ones, those of the engine, controls.

Simulated brains are explained for every classifier once, and all methods with the baseline `counterfactual` share these
counterfactuals. One row a method, over images and classifiers, intervals over subjects:

    auprc, auprc_base       of the map against what disease changes, |x_true - x| > `TRUE_EFFECT`; what chance scores
    auprc.<class>           the same of the images that are given to one class
    deletion, insertion     with the usual fill; `_cf`: with the counterfactual's voxels
    faithfulness, _cf       insertion - deletion
    infidelity              share of the changes under noise that the map does not predict
    completeness_error      median where a sum is promised; `verdicts` says of how many rows what
    share_in_planted.<f>    share of the map inside a planted object, of a classifier that was trained on nothing else
    fill_out, fill_out_cf   share of half deleted images that are out of distribution to the gate, if there is one

What is asked about is the class that the classifier gives. `nfe_unet_forward` and `seconds_per_image` of a method of
the engine have in them what the counterfactual took.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

import cfx
from cfx.atlas import Atlas, write_atlas
from cfx.attribution import Attributions, Method, attribute, build_attribution
from cfx.attribution.evaluate import curves, infidelity, localisation, ranks, size
from cfx.commands.bench import cost
from cfx.commands.bench.attribution_figure import draw
from cfx.commands.bench.planted import Kind, planted_cohort
from cfx.commands.networks import DetectorConfig
from cfx.commands.ood import gate_of
from cfx.commands.rows import network_print
from cfx.core.cohort import Cohort, subject_names
from cfx.core.errors import AtlasError
from cfx.core.gates import Gate
from cfx.counterfactual import build_method, explain
from cfx.counterfactual.metrics import TRUE_EFFECT, means
from cfx.counterfactual.result import Counterfactuals
from cfx.data import DataConfig, load_cohort
from cfx.display.catalogue import Metric, metric, register
from cfx.display.markdown import grid
from cfx.models.gate import OUT
from cfx.models.opening import Network, open_network
from cfx.runtime.config import Frozen, RunConfig
from cfx.runtime.files import digest
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import source_print

_SHOWN = (
    "auprc", "deletion", "insertion", "deletion_cf", "insertion_cf", "infidelity", "completeness_error",
    "fill_out", "fill_out_cf", "nfe_unet_forward", "seconds_per_image",
)  # fmt: skip
_PLANTED = "share_in_planted."
register(
    Metric("auprc", "AUPRC", "Average precision of the size of the map for the true effect.", "higher"),
    Metric("auprc_base", "chance", "Share of the voxels in the true effect: the AUPRC of chance."),
    Metric("pointing", "pointing game", "Share of the maps whose largest voxel is in the true effect.", "higher"),
    Metric("deletion", "deletion", "Mean probability as the top of the map is filled.", "lower"),
    Metric("insertion", "insertion", "Mean probability as the top of the map is put into the fill.", "higher"),
    Metric("deletion_cf", "deletion, cf", "Deletion filled with the counterfactual's voxels.", "lower"),
    Metric("insertion_cf", "insertion, cf", "Insertion into the counterfactual.", "higher"),
    Metric("faithfulness", "faithfulness", "Insertion minus deletion.", "higher"),
    Metric("faithfulness_cf", "faithfulness, cf", "Insertion minus deletion with the counterfactual.", "higher"),
    Metric("infidelity", "infidelity", "Share of the changes under noise that the map does not predict.", "lower"),
    Metric("completeness_error", "completeness error", "How far a map is from its promised sum.", "lower", ".1e"),
    Metric("fill_out", "fill out", "Share of half deleted images that are out of distribution.", "lower"),
    Metric("fill_out_cf", "fill out, cf", "The same filled with the counterfactual's voxels.", "lower"),
)


class AttributionMethod(Frozen):
    """One method of the comparison."""

    method: str
    """Name of the method (`cfx.attribution.ATTRIBUTIONS`)."""
    label: str = Field(default="", pattern=r"^[\w.+-]*$")
    """What its row is called; by default its name, and its baseline where that is not `zero`."""
    baseline: Literal["zero", "black", "mean", "counterfactual"] = "zero"
    """What images are compared with; `mean` is that of `reference`."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings of the method that differ from its defaults."""
    rows: int | None = Field(default=None, ge=1)
    """Measure it on this many of the first images only, where it is slow."""

    @property
    def name(self) -> str:
        """What its row is called."""
        return self.label or (self.method if self.baseline == "zero" else f"{self.method}-{self.baseline}")

    def build(self) -> Method:
        """The method; lists, which is all that YAML has, become tuples."""
        given = {k: tuple(v) if isinstance(v, list) else v for k, v in self.settings.items()}
        return build_attribution(self.method, **given)

    @property
    def family(self) -> str:
        """Whether it is of the literature, stands on a counterfactual, or is a control."""
        return "engine" if self.baseline == "counterfactual" else self.build().family


class AttributionBench(RunConfig):
    """Which methods to compare, on which classifiers."""

    data: DataConfig
    """Images with their true counterfactuals that nothing was trained or chosen on."""
    reference: DataConfig
    """Labelled images of other subjects: typical margins, and the baseline `mean`."""
    classifiers: Mapping[str, Network] = Field(min_length=1)
    """Classifiers of the disease by name, several seeds of one, say."""
    planted: Mapping[Kind, Network] = Field(default_factory=dict)
    """Classifiers of one planted factor each."""
    generator: Network
    """The diffusion model that makes the counterfactuals."""
    explainer: str = "minimal"
    """The method that makes them (`cfx.counterfactual.METHODS`)."""
    methods: tuple[AttributionMethod, ...] = Field(min_length=1)
    """What to compare."""
    planted_n: int = Field(default=32, ge=2)
    """Images for each planted factor."""
    planted_population: int = Field(default=171, ge=0)
    """Seed of their subjects; those of their reference have the next one."""
    fill: Literal["zero", "black"] = "black"
    """The usual fill of deletion and insertion."""
    gate: DetectorConfig | None = None
    """A detector that says how many of the filled images are out of distribution."""
    draws: int = Field(default=32, ge=2)
    """Perturbations an image for infidelity."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=32, ge=1)
    """Images worked on together."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [m.name for m in self.methods]
        if double := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"methods: expected distinct labels, got {double} twice")
        return self


@dataclass
class Case:
    """A classifier with its images and their counterfactuals.

    Attributes:
        name: What it is called.
        network: The classifier.
        cohort: Images with `x_true`.
        result: Their counterfactuals.
        shown: Maps of every method of the first images, for the figure.
    """

    name: str
    network: nn.Module
    cohort: Cohort
    result: Counterfactuals
    shown: dict[str, Tensor] = field(default_factory=dict)

    @property
    def predicted(self) -> Tensor:
        """The class that the classifier gives each image."""
        return self.result.probs_before.argmax(1)


@in_its_folder
def run_attribution(config: AttributionBench, command: str | None = None) -> list[dict[str, Any]]:
    """Compare methods and write `results.json`, `table.md`, `figure.png`, `config.yaml` and the counterfactuals.

    Args:
        config: What to compare.
        command: What the table says the bench was run with.

    Returns:
        One row a method.

    Raises:
        InputError, CheckpointError: a method, its settings, or a network that cannot be used.
    """
    bench, folder = _Bench(config), RunFolder(config.folder)
    folder.config(config)
    rows = []
    for method in config.methods:
        rows.append(bench.row(method))
        folder.results(rows)
    command = command or f"cfx bench attribution {folder / 'config.yaml'}"
    folder.table(table(rows, command, cost.hardware(1)))
    folder.figure(draw(bench.cases[0].cohort, bench.cases[0].shown))
    return rows


class _Bench:
    """What all methods share: classifiers, images, counterfactuals."""

    def __init__(self, config: AttributionBench) -> None:
        self.config, self.accelerator = config, make_accelerator()
        self.built = {m.name: m.build() for m in config.methods}  # so that a wrong setting is found at once
        self.generator = self._opened(config.generator, "generator")
        self.reference, images = load_cohort(config.reference), load_cohort(config.data)
        self.cases = [self._case(name, n, images, self.reference) for name, n in config.classifiers.items()]
        self.planted = {kind: self._planted(kind, network) for kind, network in config.planted.items()}
        self.gate: Gate | None = None
        if config.gate is not None:
            self.gate = gate_of(config.gate, images, self.accelerator.device)[0]

    def row(self, method: AttributionMethod) -> dict[str, Any]:
        """All figures of a method."""
        parts = [self.measured(method, case) for case in self.cases]
        words = sorted({word for _, a in parts for word in a.verdicts})
        counts = {word: sum(a.verdicts.count(word) for _, a in parts) for word in words}
        subjects = [_subjects(case.cohort[: len(a)]) for case, (_, a) in zip(self.cases, parts, strict=True)]
        found = means(_joined([p for p, _ in parts]), torch.cat(subjects))
        errors = torch.cat([a.completeness_error for _, a in parts])
        if bool((~errors.isnan()).any()):
            found["completeness_error"] = float(errors.nanmedian())
        found |= {k: v for kind, case in self.planted.items() for k, v in self.inside(method, kind, case).items()}
        known = {"method": method.name, "family": method.family, "n": sum(len(a) for _, a in parts)}
        return known | {"classifiers": len(parts), "verdicts": counts} | found

    def maps(self, method: AttributionMethod, case: Case) -> Attributions:
        """The maps of a method."""
        rows = slice(method.rows)
        cohort, result = case.cohort[rows], case.result[rows]
        baseline: Any = result if method.baseline == "counterfactual" else method.baseline
        return attribute(
            case.network, cohort, result.probs_before.argmax(1), method=self.built[method.name], baseline=baseline,
            output="margin", reference=self.reference, seed=self.config.seed, batch_size=self.config.batch_size,
        )  # fmt: skip

    def measured(self, method: AttributionMethod, case: Case) -> tuple[dict[str, Tensor], Attributions]:
        """One number a row for each figure, and the maps."""
        config, a = self.config, self.maps(method, case)
        n, target = len(a), a.target
        x, x_cf, truth = case.result.x[:n], case.result.x_cf[:n], case.cohort.x_true
        case.shown[method.name] = a.map[:3]
        found = {} if truth is None else localisation(a.map, ((truth[:n] - x).abs() > TRUE_EFFECT).any(1, keepdim=True))
        found.pop("share_inside", None)
        for k, name in enumerate(case.cohort.classes if "auprc" in found else ()):
            found[f"auprc.{name}"] = found["auprc"].where(target == k, torch.nan)
        usual = torch.full_like(x, -1.0 if config.fill == "black" else 0.0)
        for end, fill in (("", usual), ("_cf", x_cf)):
            areas = curves(case.network, x, a.map, fill, target, batch_size=config.batch_size).areas
            found |= {f"{key}{end}": value for key, value in areas.items()}
            found[f"faithfulness{end}"] = areas["insertion"] - areas["deletion"]
            if self.gate is not None:
                half = torch.where(ranks(a.map) < a.map[0, 0].numel() // 2, fill, x)
                found[f"fill_out{end}"] = (self.gate(half).cpu() <= OUT).double()
        found["infidelity"] = infidelity(case.network, x, a.map, target, draws=config.draws, seed=config.seed)
        return found | _costs(method, a, case.result[:n]), a

    def inside(self, method: AttributionMethod, kind: str, case: Case) -> dict[str, float]:
        """Share of the map inside a planted object, with its interval; nothing of a factor without a place."""
        a, truth = self.maps(method, case), case.cohort.x_true
        assert truth is not None
        where = ((truth[: len(a)] - case.cohort.x[: len(a)]).abs() > TRUE_EFFECT).any(1, keepdim=True)
        held = localisation(size(a.map), where)
        named = {f"{_PLANTED}{kind}": held["share_inside"], f"share_in_planted_base.{kind}": held["auprc_base"]}
        return means(named, _subjects(case.cohort[: len(a)]))

    def _planted(self, kind: Kind, network: Network) -> Case:
        config = self.config
        images, _ = planted_cohort(kind, config.planted_n, config.planted_population)
        reference, _ = planted_cohort(kind, 128, config.planted_population + 1)
        return self._case(kind, network, images, reference)

    def _case(self, name: str, network: Network, images: Cohort, reference: Cohort) -> Case:
        """A classifier with the counterfactuals of its images, kept or made now."""
        config, classifier = self.config, self._opened(network, "classifier")
        path = config.folder / "counterfactuals" / f"{name}.zarr"
        prints = {
            "classifier": network_print(network, classifier), "images": source_print(images),
            "generator": network_print(config.generator, self.generator), "reference": source_print(reference),
            "settings": f"{build_method(config.explainer)!r} {config.seed}", "version": cfx.__version__,
        }  # fmt: skip
        result = _kept(path, prints)
        if result is None:
            result = explain(
                images, classifier, cast(Any, self.generator), reference=reference, method=config.explainer,
                seed=config.seed, batch_size=config.batch_size, progress=True, accelerator=self.accelerator,
            )  # fmt: skip
            write_atlas(path, result, fingerprint=prints, exists="overwrite")
        return Case(name, classifier, images, result)

    def _opened(self, network: Network, role: Literal["classifier", "generator"]) -> nn.Module:
        return open_network(network, role).to(self.accelerator.device)


def _kept(path: Path, prints: Mapping[str, str]) -> Counterfactuals | None:
    """Whole counterfactuals of this fingerprint; None if there are none, or damaged ones."""
    try:
        atlas = Atlas(path, Counterfactuals)
        whole = digest(atlas.attributes["cfx_fingerprint"]) == digest(dict(prints)) and not atlas.missing()
        return atlas.read() if whole else None
    except AtlasError:
        return None


def _costs(method: AttributionMethod, a: Attributions, result: Counterfactuals) -> dict[str, Float[Tensor, " n"]]:
    """What the maps took, and what the counterfactuals did where they stand on them."""
    engine = method.baseline == "counterfactual"
    return {
        "nfe_unet_forward": result.nfe_unet_forward.double() * engine,
        "nfe_classifier": (a.nfe_classifier + result.nfe_classifier * engine).double(),
        "nfe_classifier_backward": (a.nfe_classifier_backward + result.nfe_classifier_backward * engine).double(),
        "seconds_per_image": (a.seconds + result.seconds * engine).double(),
    }


def _subjects(cohort: Cohort) -> Tensor:
    """A number for every subject, the same for every classifier."""
    names = subject_names(cohort)
    number = {name: k for k, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([number[name] for name in names])


def _joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([part[name].double() for part in parts]) for name in parts[0]}


def table(rows: Sequence[Mapping[str, Any]], command: str, hardware: str) -> str:
    """The rows as markdown: all figures, then the shares inside planted objects."""
    planted = [k for k in rows[0] if k.startswith(_PLANTED) and not k.endswith(("_low", "_high"))]
    base = rows[0].get("auprc_base")
    head = ["method", "family", "n", "verdicts", *(metric(k).heading for k in _SHOWN)]
    body = [[r["method"], r["family"], str(r["n"]), _words(r), *(_cell(r, k) for k in _SHOWN)] for r in rows]
    chance = "" if base is None else f" The AUPRC of chance is {base:.3f}."
    parts = [f"`{command}` on {hardware}.{chance}", grid(head, body)]
    if planted:
        factors = [key.removeprefix(_PLANTED) for key in planted]
        bases = [rows[0].get(f"share_in_planted_base.{k}") for k in factors]
        shares = [["share of the voxels", *("-" if b is None else f"{b:.3f}" for b in bases)]]
        shares += [[row["method"], *(_cell(row, key) for key in planted)] for row in rows]
        parts += ["Share of the map inside the planted object that the classifier reads:"]
        parts += [grid(["method", *factors], shares)]
    return "\n\n".join(parts) + "\n"


def _words(row: Mapping[str, Any]) -> str:
    return ", ".join(f"{n} {word}" for word, n in row["verdicts"].items())


def _cell(row: Mapping[str, Any], name: str) -> str:
    known = {key: row.get(key) for key in (name, f"{name}_low", f"{name}_high")}
    return "-" if known[name] is None else metric(name).spread(known)


CONFIG = AttributionBench


def command(config: AttributionBench, words: str) -> str:
    """Run, and say what came out."""
    run_attribution(config, words or None)
    return RunFolder(config.folder).said("results.json, table.md, figure.png")

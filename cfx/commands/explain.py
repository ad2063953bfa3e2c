"""One explain run, whole: images in, and a folder with atlas, report, summary and resolved configuration out."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field
from torch import Tensor, nn

from cfx.atlas import Atlas, write_atlas
from cfx.commands.alike import alike, network_classes
from cfx.commands.networks import DetectorConfig
from cfx.commands.ood import gate_of
from cfx.commands.rows import Task, fill, network_print, open_atlas
from cfx.core.cohort import Cohort, Source, part, subjects
from cfx.core.errors import InputError, heard
from cfx.core.neighbours import Neighbours
from cfx.counterfactual import Depth, build_method
from cfx.counterfactual.explain import DEPTHS, Part
from cfx.counterfactual.metrics import Measurements, Nullable, null_drift, per_row, summarise
from cfx.counterfactual.result import Counterfactuals
from cfx.counterfactual.standing import Standing, completed, look
from cfx.data import DataConfig, load_cohort, open_cohort
from cfx.display.catalogue import metric
from cfx.models.goal import recognised
from cfx.models.judge import Judge
from cfx.models.opening import Network, Role, open_network, spec_of
from cfx.models.perceptual import FeatureDistance
from cfx.report import write_report
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import made, source_print
from cfx.runtime.shares import even, is_main, joined, together

if TYPE_CHECKING:
    from accelerate import Accelerator

_log = logging.getLogger(__name__)
_NULL_ROWS = 16  # rows on which the null edit is measured
SHOWN = (
    "n", "competence", "auc", "ece", "data_competence", "denoising_ratio", "validity", "oracle_validity", "stable",
    "consent", "read_share", "reading_carried", "gate_p", "gate_out", "gate_out_before",
    "boundary_validity", "boundary_oracle_validity", "l1",
    "feature_distance", "error_to_truth", "error_to_truth_no_edit", "error_to_truth_ratio", "localisation_auprc",
    "localisation_base_rate", "nfe_unet_forward", "nfe_unet_forward_max", "nfe_unet_backward", "null_edit_error",
    "seconds_per_image",
)  # fmt: skip
"""What the console shows of a summary."""


class ExplainConfig(RunConfig):
    """What to explain, with which classifier and generator."""

    data: DataConfig
    """Images to explain."""
    reference: DataConfig | None = None
    """Labelled validation images that set the typical margins; never those to be explained."""
    classifier: Network
    """The classifier: its path, or its path and how it wants images and answers."""
    generator: Network | None = None
    """The diffusion model, likewise; None for methods that need none."""
    oracle: Network | None = None
    """An independent classifier, likewise."""
    depths: tuple[Depth, ...] = Field(default=("typical",), min_length=1)
    """Depths to run; the first is the one in the atlas and the report, others are printed beside it."""
    part: Part = "whole"
    """Which part of an edit to keep: all of it, or only what the classifier reads (`read`), judged by itself; `attempt`
    is all of it, also where the margin was missed."""
    method: str = "minimal"
    """Name of the method (`cfx.counterfactual.METHODS`)."""
    target: int | str | None = None
    """Class to reach, by number or by name; by default the most probable one besides the predicted."""
    gate: DetectorConfig | None = None
    """A detector that says of every edited image whether it is still in distribution; the search never sees it. One
    that asks another generator than the one that edits is the more independent."""
    judge_anyway: bool = False
    """Give a verdict although the classifier is not shown to know its classes, or the generator such images."""
    rows: int | None = Field(default=None, ge=1)
    """Explain this many of the first images; None explains all."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=24, ge=1)
    """Most images worked on together; few are cut finer, so that processes have even shares."""
    resume: bool = True
    """Go on with what the folder has, if it was made of the same; false starts anew and replaces it."""


@in_its_folder
def explain_run(config: ExplainConfig, words: str = "") -> dict[str, Any]:
    """Explain a cohort and write `atlas.zarr`, `metrics.zarr`, `report.html`, `summary.json` and `config.yaml`.

    Under `accelerate launch` the processes share the rows by whole atlas shards. Each finished batch is written at
    once, so the same command goes on with an interrupted run. Nothing is replaced before everything is checked. At
    further depths the atlases are `atlas-<depth>.zarr` and `metrics-<depth>.zarr`.

    Args:
        config: What to explain.
        words: The command line, for the record.

    Returns:
        The flat metrics of `summary.json`; metrics of further depths carry the depth as prefix.

    Raises:
        InputError, CheckpointError, AtlasError: as `explain`, `cfx.models.load` and `cfx.atlas.Atlas`.
    """
    with heard() as warned:
        run = _Run(config, make_accelerator(), words)
        atlas, summary = run.everything()
        run.folder.summary(summary)
        if is_main():
            atlas.note(warnings=warned)
            write_report(run.folder / "report.html", atlas, metrics=summary, title=config.name, notes=run.notes)
    return summary


class _Run:
    """The objects of a run, loaded and checked once."""

    def __init__(self, config: ExplainConfig, accelerator: "Accelerator", words: str) -> None:
        self.words = words
        self.config, self.accelerator, self.folder = config, accelerator, RunFolder(config.folder)
        self.method = build_method(config.method)
        self.generator = self._opened(config.generator, "generator")
        self.classifier = self._opened(config.classifier, "classifier")
        self.oracle = self._opened(config.oracle, "oracle")
        self.source, self.reference = images_of(config, open_cohort(config.data))
        self.distance = _distance(self.oracle, config.oracle)
        self.gate, self.gate_print = None, ""
        if config.gate is not None:
            self.gate, self.gate_print = gate_of(config.gate, self.source, accelerator.device)

    def _opened(self, network: Network | None, role: Role) -> Any:  # noqa: ANN401 - a generator is more than a module
        """A network for its role, on this process's device."""
        return None if network is None else open_network(network, role).to(self.accelerator.device)

    @property
    def notes(self) -> list[str]:
        """What a reader of the page has to know."""
        return [] if self.distance is None else [f"Perceptual distance: {self.distance.name}."]

    @cached_property
    def prints(self) -> dict[str, str]:
        """What the rows are made of."""
        config, names = self.config, ("classifier", "generator", "oracle")
        networks = {name: network_print(getattr(config, name), getattr(self, name)) for name in names}
        images = {"images": source_print(self.source), "reference": source_print(self.reference)}
        settings = {"settings": repr(self.method), "target": str(config.target), "part": config.part}
        return networks | images | settings | ({"gate": self.gate_print} if self.gate_print else {})

    @cached_property
    def made(self) -> dict[str, Any]:
        """When, how and where the rows were made."""
        return made(self.words, self.accelerator.device)

    def everything(self) -> tuple[Atlas[Counterfactuals], dict[str, Any]]:
        """The atlas of the first depth, and the figures of all depths."""
        first, *others = self.config.depths
        folder, groups = self.folder, subjects(self.source)
        atlas, found, standing = self.explained(first, folder / "atlas.zarr", folder / "metrics.zarr")
        rows = {k: v for k, v in found.items() if k != "outside_mask_error"}
        summary = standing.summary() | summarise(rows, groups) | self.null_edit_error(atlas)
        summary["outside_mask_error"] = float(found["outside_mask_error"].max())
        for depth in others:
            _, more, _ = self.explained(depth, folder / f"atlas-{depth}.zarr", folder / f"metrics-{depth}.zarr")
            figures = summarise(more, groups)
            summary |= {f"{depth}_{k}": v for k, v in figures.items() if not k.startswith("outside_mask_error")}
        return atlas, summary

    def explained(
        self, depth: Depth, path: Path, metrics: Path
    ) -> tuple[Atlas[Counterfactuals], Mapping[str, Tensor], Standing]:
        """All rows at one depth, in an atlas; what was measured of each, in another and here; may they be believed?"""
        config, accelerator = self.config, self.accelerator
        networks = {"classifier": self.classifier, "generator": self.generator, "oracle": self.oracle}
        task = replace(task_of(config, depth, self.source, self.reference, networks), gate=self.gate)
        with together(accelerator):
            atlas = open_atlas(
                path, task, accelerator, fingerprint=self.prints,
                attributes={"config": config.model_dump(mode="json"), "made": self.made},
                exists="resume" if config.resume else "overwrite",
            )  # fmt: skip
            self.folder.begin(config)
            mine = [self._measured(*rows) for rows in fill(atlas, replace(task, standing=self.standing), accelerator)]
        found = Measurements.cat(joined(mine, Measurements, len(atlas.shards()), accelerator))
        standing = self.judged(atlas, found.values)
        if accelerator.is_main_process:
            atlas.note(standing=standing.told())
            write_atlas(metrics, found, fingerprint=self.prints, exists="overwrite")
        return atlas, found.values, standing

    def _measured(self, result: Counterfactuals, cohort: Cohort) -> Measurements:
        """What there is to measure of a part."""
        distances = [] if self.distance is None else [self.distance]
        outside = ((result.x_cf - result.x).abs() * ~result.edited).flatten(1).amax(1)
        rows = per_row(result, cohort, distances=distances) | {"outside_mask_error": outside.double()}
        if self.neighbours is not None:
            rows["nearest_real"] = self.neighbours.strayed(result.x, result.x_cf)
        return Measurements(result.row, rows)

    @cached_property
    def neighbours(self) -> Neighbours | None:
        """The real images that edits are compared with."""
        return None if self.reference is None else Neighbours.of(self.reference)

    @cached_property
    def standing(self) -> Standing:
        """What is known of the networks before the first image."""
        judge = Judge(self.classifier, device=self.accelerator.device)
        return look(
            judge, self.generator, self.source, self.reference, recognised(judge, self.reference),
            anyway=self.config.judge_anyway, device=self.accelerator.device,
        )  # fmt: skip

    def judged(self, atlas: Atlas[Counterfactuals], measured: Mapping[str, Tensor]) -> Standing:
        """The same with what the rows of an atlas say, and what was measured of them."""
        rows, labels = atlas.read(images=False), Judge(self.classifier).labels(self.source.y)
        return completed(
            self.standing, rows.probs_before, rows.consent, labels, subjects(self.source), reading=rows.reading,
            strayed=measured.get("nearest_real"),
        )  # fmt: skip

    def null_edit_error(self, atlas: Atlas[Counterfactuals]) -> dict[str, float]:
        """Largest change of a pixel by the null edit of the method that ran, if it has one, on the first rows."""
        if not isinstance(self.method, Nullable):
            return {}
        there = atlas.read(atlas.rows[:_NULL_ROWS])
        drift = null_drift(there, self.classifier, self.generator, self.method, cycles=1)
        return {"null_edit_error": float(drift.max())}


def images_of(config: ExplainConfig, source: Source) -> tuple[Source, Cohort | None]:
    """The images that a run explains and its reference, both numbered by the classes of the networks.

    Args:
        config: The run.
        source: All images of `config.data`.

    Raises:
        InputError: as `network_classes` and `alike`, or a reference of another shape.
    """
    reference = None if config.reference is None else load_cohort(config.reference)
    if reference is not None and tuple(reference.shape) != tuple(source.shape):
        wanted, came = (" x ".join(map(str, of.shape)) for of in (source, reference))
        raise InputError(f"reference: expected images of the shape of data, {wanted}, got {came}")
    configs = (config.data, config.reference)
    source, reference = alike(source, reference, _classes(config), configs=configs)
    return (source if config.rows is None else part(source, slice(config.rows))), reference


def task_of(
    config: ExplainConfig, depth: Depth, source: Source, reference: Cohort | None, networks: Mapping[str, Any]
) -> Task:
    """What a run does at one depth, with the images of `images_of` and its networks, opened, by their keys."""
    classifier, generator, oracle = networks["classifier"], networks.get("generator"), networks.get("oracle")
    return Task(
        source, classifier, generator, build_method(config.method), depth, _target(config), reference, oracle, None,
        config.seed, even(len(source), config.batch_size), config.part,
    )  # fmt: skip


def _classes(config: ExplainConfig) -> tuple[str, ...]:
    """Names of the classes in label order, as far as the networks name any."""
    return network_classes({"classifier": config.classifier, "oracle": config.oracle})


def _target(config: ExplainConfig) -> int | str | None:
    """The class to reach, by number where the networks name it; other names are those of the images."""
    classes = _classes(config)
    named = isinstance(config.target, str) and config.target in classes
    return classes.index(str(config.target)) if named else config.target


def _distance(oracle: nn.Module | None, network: Network | None) -> FeatureDistance | None:
    """Feature distance of the oracle, under a name that says so."""
    if oracle is None or network is None:
        return None
    try:
        return FeatureDistance(oracle, f"feature distance in {spec_of(network).name}")
    except InputError as error:
        _log.warning("no perceptual distance: %s", error)
        return None


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The figures of a run as people read them; before all else, that it was not judged."""
    unjudged = [f"NOT JUDGED: {summary['why']}"] if "why" in summary else []
    return unjudged + [_line(name, summary) for name in SHOWN if name in summary]


def _line(name: str, summary: Mapping[str, Any]) -> str:
    """A figure with its interval; of a further depth, that depth."""
    depth, _, bare = name.partition("_")
    at = depth if depth in DEPTHS and bare else ""
    shown = metric(bare if at else name)
    values = {f"{shown.name}{end}": summary.get(f"{name}{end}") for end in ("", "_low", "_high")}
    return f"{shown.heading + (f', {at}' if at else ''):<36}{shown.spread(values)}"


CONFIG = ExplainConfig


def command(config: ExplainConfig, words: str) -> str:
    """Run, and say what came out."""
    text = "\n".join(lines(explain_run(config, words)))
    return f"{text}\n\nwrote {config.folder}/report.html, atlas.zarr, metrics.zarr, summary.json, config.yaml"

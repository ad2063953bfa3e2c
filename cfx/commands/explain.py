"""One explain run, whole: images in, and a folder with atlas, report, summary and resolved configuration out."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
import yaml
from pydantic import Field
from torch import nn

from cfx.atlas import Atlas
from cfx.core.abduction import abduct, mean_of, replay
from cfx.core.cohort import Cohort
from cfx.core.denoiser import Denoiser
from cfx.core.errors import InputError
from cfx.counterfactual import Judge, Minimal, explain
from cfx.counterfactual.metrics import evaluate
from cfx.counterfactual.result import Counterfactuals
from cfx.data import DataConfig, load_cohort
from cfx.models import load
from cfx.models.judge import at_rest
from cfx.models.perceptual import FeatureDistance
from cfx.report.page import write_report
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import write_summary
from cfx.runtime.processes import gather_rows, make_accelerator

if TYPE_CHECKING:
    from accelerate import Accelerator

_log = logging.getLogger(__name__)
_NULL_ROWS = 16  # rows on which the null edit is measured


class ExplainConfig(RunConfig):
    """What to explain, with which classifier and generator."""

    data: DataConfig
    """Images to explain."""
    reference: DataConfig | None = None
    """Labelled validation images that set the typical margins; never those to be explained."""
    classifier: str
    """Checkpoint folder of the classifier."""
    generator: str
    """Checkpoint folder of the diffusion model."""
    oracle: str | None = None
    """Checkpoint folder of an independent classifier."""
    depths: tuple[Literal["typical", "boundary"], ...] = ("typical",)
    """Depths to run; the first is the one in the atlas and the report, others are printed beside it."""
    method: str = "minimal"
    """Name of the method (`cfx.counterfactual.METHODS`)."""
    target: int | None = None
    """Class to reach; by default the most probable one besides the predicted."""
    rows: int | None = Field(default=None, ge=1)
    """Explain this many of the first images; None explains all."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=24, ge=1)
    """Images worked on together."""
    resume: bool = False
    """Go on with the atlas of an interrupted run instead of starting anew."""


def explain_run(config: ExplainConfig) -> dict[str, Any]:
    """Explain a cohort and write `atlas.zarr`, `report.html`, `summary.json` and `config.yaml`.

    Under `accelerate launch` the processes share the rows by whole atlas shards. Each finished batch is written at
    once, so an interrupted run goes on with `resume: true`.

    Returns:
        The flat metrics of `summary.json`; metrics of further depths carry the depth as prefix.

    Raises:
        InputError, CheckpointError, AtlasError: as `explain`, `cfx.models.load` and `cfx.atlas.Atlas`.
    """
    accelerator = make_accelerator()
    cohort = load_cohort(config.data)[: config.rows]
    objects = _Objects(config, accelerator)
    folder = config.folder
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    summary: dict[str, Any] = {}
    for depth in config.depths:
        first = depth == config.depths[0]
        result = objects.explained(cohort, depth, folder / ("atlas.zarr" if first else f"atlas-{depth}.zarr"))
        part = evaluate(result, cohort, distances=[] if objects.distance is None else [objects.distance])
        summary |= part if first else {f"{depth}_{k}": v for k, v in part.items()}
        if first:
            summary["null_edit_error"] = objects.null_edit_error(cohort)
            summary["outside_mask_error"] = _outside(result)
            main_result = result
    if accelerator.is_main_process:
        write_summary(folder / "summary.json", summary)
        notes = [f"Perceptual distance: {objects.distance.name}."] if objects.distance is not None else []
        write_report(
            folder / "report.html", main_result, cohort=cohort, metrics=summary, title=config.name, notes=notes
        )
    return summary


class _Objects:
    """The three objects of a run, loaded once."""

    def __init__(self, config: ExplainConfig, accelerator: "Accelerator") -> None:
        self.config, self.accelerator = config, accelerator
        device = accelerator.device
        generator = load(config.generator)
        if not isinstance(generator, Denoiser):
            raise InputError(f"generator: expected a diffusion checkpoint, got {type(generator).__name__}")
        self.generator = generator.to(device)
        self.classifier = load(config.classifier).to(device)
        self.oracle = None if config.oracle is None else load(config.oracle).to(device)
        self.reference = None if config.reference is None else load_cohort(config.reference)
        self.distance = _distance(self.oracle, config.oracle)

    def explained(self, cohort: Cohort, depth: Literal["typical", "boundary"], path: Path) -> Counterfactuals:
        """All rows at one depth, by way of the atlas."""
        config, accelerator = self.config, self.accelerator
        blank = self._blank(cohort, depth)
        if accelerator.is_main_process:
            attributes = {"config": config.model_dump(mode="json")}
            Atlas.create(
                path,
                blank,
                rows=range(len(cohort)),
                cohort=cohort[:0],
                ids=cohort.ids,
                attributes=attributes,
                exists="resume" if config.resume else "overwrite",
            )
        accelerator.wait_for_everyone()
        atlas = Atlas(path, Counterfactuals)
        mine = sorted(
            set(atlas.shard_rows(accelerator.process_index, accelerator.num_processes)) & set(atlas.missing())
        )
        if mine:
            explain(
                cohort[mine],
                self.classifier,
                self.generator,
                config.target,
                depth=depth,
                reference=self.reference,
                oracle=self.oracle,
                method=config.method,
                seed=config.seed,
                batch_size=config.batch_size,
                row=torch.tensor(mine),
                on_batch=lambda part: atlas.write(part, cohort[part.row]),
                progress=accelerator.is_main_process,
            )
        gather_rows(None, accelerator)  # a barrier: everyone has written
        return atlas.read()

    def null_edit_error(self, cohort: Cohort) -> float:
        """Largest |x' - x| of a replay without guidance, on the first rows."""
        x = cohort.x[:_NULL_ROWS].to(self.accelerator.device)
        label = None
        if self.generator.classes is not None:
            label = Judge(self.classifier).probabilities(x).argmax(1).clamp(max=self.generator.classes)
        times = Minimal().times(self.generator)
        with at_rest(self.generator), torch.no_grad():
            maps = abduct(self.generator, x, times, seed=self.config.seed, row=torch.arange(len(x)), label=label)
            return float((replay(maps, mean_of(self.generator, label)) - x).abs().max())

    def _blank(self, cohort: Cohort, depth: str) -> Counterfactuals:
        """A result of no rows, which says what the atlas will hold."""
        x = cohort.x[:0]
        k = Judge(self.classifier).probabilities(cohort.x[:1].to(self.accelerator.device)).shape[1]
        sizes: dict[str, int | tuple[int, ...]] = {"c": x.shape[1], "space": tuple(x.shape[2:]), "k": k}
        if self.oracle is not None:
            sizes["oracle_class"] = k
        config = self.config
        return Counterfactuals.blank(0, sizes, depth=depth, seed=config.seed, method=config.method)


def _distance(oracle: nn.Module | None, path: str | None) -> FeatureDistance | None:
    """Feature distance of the oracle, under a name that says so."""
    if oracle is None:
        return None
    try:
        return FeatureDistance(oracle, f"feature distance in {Path(str(path)).name}")
    except InputError as error:
        _log.warning("no perceptual distance: %s", error)
        return None


def _outside(result: Counterfactuals) -> float:
    """Largest change outside the mask, 0 by construction."""
    return float(((result.x_cf - result.x).abs() * ~result.edited).max())


def lines(summary: Mapping[str, Any]) -> list[str]:
    """The figures of a run as people read them."""
    s = summary

    def says(name: str, text: str, form: str = "{:.3f}") -> str:
        value = f"{text:<36}" + form.format(s[name])
        return value + (
            f"   [{form.format(s[name + '_low'])}, {form.format(s[name + '_high'])}]" if name + "_low" in s else ""
        )

    wanted = [
        ("n", "images", "{:.0f}"),
        ("validity", "validity", "{:.3f}"),
        ("oracle_validity", "oracle validity", "{:.3f}"),
        ("stable", "stable under re-noising", "{:.3f}"),
        ("boundary_validity", "  at the boundary: validity", "{:.3f}"),
        ("boundary_oracle_validity", "  at the boundary: oracle validity", "{:.3f}"),
        ("l1", "L1", "{:.4f}"),
        ("feature_distance", "feature distance (oracle network)", "{:.4f}"),
        ("error_to_truth", "error to the true counterfactual", "{:.4f}"),
        ("error_to_truth_no_edit", "  of no edit", "{:.4f}"),
        ("error_to_truth_ratio", "  ratio", "{:.3f}"),
        ("localisation_auprc", "localisation AUPRC", "{:.3f}"),
        ("localisation_base_rate", "  base rate", "{:.3f}"),
        ("nfe_unet_forward", "U-Net evaluations an image", "{:.1f}"),
        ("nfe_unet_forward_max", "  at most", "{:.0f}"),
        ("nfe_unet_backward", "U-Net back-propagations", "{:.0f}"),
        ("null_edit_error", "null edit error", "{:.1e}"),
        ("seconds_per_image", "seconds an image", "{:.2f}"),
    ]
    return [says(name, text, form) for name, text, form in wanted if name in s]

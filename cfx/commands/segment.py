"""One run of drawing masks: images in, a folder with several masks of each, a page and a summary out.

Where the images have readers, the masks are compared with what they drew.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from cfx.atlas import Atlas
from cfx.commands.filling import Filling, FillingConfig, asked, first, lines
from cfx.commands.rows import network_print
from cfx.core.cohort import Cohort, Source, subjects
from cfx.core.errors import InputError, heard
from cfx.counterfactual.metrics import Measurements, means
from cfx.models.opening import Network, open_network
from cfx.models.samplers import MaskSampler
from cfx.report.segmentation.page import segmentation_figure, segmentation_page
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import source_print
from cfx.runtime.shares import is_main, shared
from cfx.segmentation import Drawn, Segmentations, representative, sample_masks
from cfx.segmentation.meanings import register_for
from cfx.segmentation.metrics import evaluate
from cfx.segmentation.sample import blank
from cfx.segmentation.summary import figures, unit_of

if TYPE_CHECKING:
    from accelerate import Accelerator

CHOSEN = "representative"
"""How names of figures of chosen masks end."""
_BY_NUMBER = ("ged", "ci", "d_max", "hm_iou")  # figures that change with the number of samples
_READERS = ("ged_debiased", "reader_diversity", "volume_crps")


class SegmentConfig(FillingConfig, RunConfig):
    """Which images to draw masks of, with which network."""

    segmenter: Network
    """Network that draws masks: a checkpoint of `cfx train` with `objective.kind: masks`."""
    samples: int = Field(default=16, ge=2)
    """Masks to draw of every image."""
    representative: int | None = Field(default=None, ge=2)
    """Compare also this many of the masks that represent all of them best (`cfx.segmentation.representative`) with the
    readers, beside as many plain draws; null for none."""
    level: float = Field(default=0.9, gt=0, lt=1)
    """Share of an image's masks that its interval of the volume holds."""

    @model_validator(mode="after")
    def _enough(self) -> "SegmentConfig":
        """No more masks can be chosen than there are."""
        if self.representative is not None and self.representative > self.samples:
            raise ValueError(f"representative: expected at most samples = {self.samples}, got {self.representative}")
        return self


@in_its_folder
def segment_run(config: SegmentConfig, words: str = "") -> dict[str, Any]:
    """Draw masks and write `atlas.zarr`, `report.html`, `figure.png`, `summary.json` and `config.yaml`.

    Under `accelerate launch` the processes share the images by whole atlas shards. Each finished batch is written at
    once, so the same command goes on with an interrupted run.

    Args:
        config: What to draw.
        words: The command line, for the record.

    Returns:
        The flat figures of `summary.json`.

    Raises:
        InputError, CheckpointError, AtlasError: as `sample_masks`, `open_network` and `Atlas`.
    """
    with heard() as warned:
        run = _Run(config, make_accelerator(), words)
        atlas = run.filled()
        rows = run.measured(atlas)
        found = summarise(atlas.read(images=False), rows, subjects(run.source), run.fixed)
        run.folder.summary(found)
        if is_main():
            atlas.note(warnings=warned)
            figure = segmentation_figure(atlas, rows.values, found["volume_unit"])
            run.folder.figure(figure)
            run.folder.page(segmentation_page(atlas, rows.values, found, config.name, figure, warned))
    return found


class _Run:
    """The objects of a run, loaded and checked once."""

    def __init__(self, config: SegmentConfig, accelerator: "Accelerator", words: str) -> None:
        self.config, self.accelerator, self.words = config, accelerator, words
        self.folder, self.source = RunFolder(config.folder), asked(config)
        register_for(config.samples)
        if config.representative is not None:
            register_for(config.representative)
            register_for(config.representative, CHOSEN)
        self.segmenter = segmenter_of(open_network(config.segmenter, "segmenter").to(accelerator.device))

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """What is the same for all rows of the summary."""
        one = self.source[[0]]
        unit = unit_of(one.spacing, len(one.space))
        return {"volume_unit": unit, "level": self.config.level, "seed": self.config.seed}

    @property
    def prints(self) -> dict[str, str]:
        """What the rows are made of."""
        network = network_print(self.config.segmenter, self.segmenter)
        return {"images": source_print(self.source), "segmenter": network}

    def filled(self) -> Atlas[Segmentations]:
        """The atlas with all rows."""
        config, network = self.config, self.segmenter

        def work(cohort: Cohort, rows: list[int]) -> Segmentations:
            return sample_masks(
                cohort, network, config.samples, rows=torch.tensor(rows), seed=config.seed,
                batch_size=config.batch_size, device=self.accelerator.device,
            )  # fmt: skip

        def empty() -> Segmentations:
            sample_masks(self.source[[0]], network, 2)  # refuses what does not go together, before anything is replaced
            return blank(network, config.samples, tuple(self.source.shape), config.seed)

        return Filling(
            self.folder, config, self.source, empty, work, self.prints, self.words, self.accelerator
        ).filled(Segmentations)  # fmt: skip

    def measured(self, atlas: Atlas[Segmentations]) -> Measurements:
        """The figures of every image; the processes share the work."""

        def work(at: Tensor) -> Measurements:
            rows = [atlas.rows[i] for i in at.tolist()]
            drawn = atlas.read(rows)
            values = figures_of(drawn, atlas.read_cohort(rows), self.config)
            return Measurements(drawn.row, values)

        return shared(work, Measurements, len(atlas.rows), atlas.shard, self.accelerator)


def segmenter_of(network: nn.Module) -> MaskSampler:
    """A network that was opened as a segmenter."""
    assert isinstance(network, MaskSampler)
    return network


def figures_of(drawn: Segmentations, cohort: Cohort, config: SegmentConfig) -> dict[str, Tensor]:
    """The figures of every image by name, NaN where they have no meaning, float64.

    Args:
        drawn: Masks of some images.
        cohort: The same images.
        config: The run.

    Raises:
        InputError: readers' masks of other classes than the network's.
    """
    found = figures(drawn, cohort.spacing, config.level) | against_readers(drawn, cohort, config.representative)
    bad = drawn.verdict == int(Drawn.REFUSED)
    return {name: values.double().masked_fill(bad, torch.nan) for name, values in found.items()}


def against_readers(drawn: Segmentations, cohort: Cohort, chosen: int | None) -> dict[str, Tensor]:
    """How near the masks are to the readers', and so many chosen ones beside as many plain ones; nothing without two.

    Raises:
        InputError: readers' masks of other classes than the network's.
    """
    readers, classes = cohort.readings, len(drawn.labels)
    if readers is None or readers.shape[1] < 2:
        return {}
    if readers.dtype == torch.bool and classes > 2:
        raise InputError(
            f"data: expected readers' masks of the network's {classes} labels {list(drawn.labels)}, got masks of one "
            "region"
        )
    every = evaluate(drawn.masks, readers, classes)
    found = {name: getattr(every, name) for name in _READERS}
    found |= {f"{name}_{drawn.samples}": getattr(every, name) for name in _BY_NUMBER}
    if chosen is None:
        return found
    for ending, few in (("", drawn.masks[:, :chosen]), (f"_{CHOSEN}", representative(drawn, chosen).masks)):
        some = evaluate(few, readers, classes)
        found |= {f"{name}_{chosen}{ending}": getattr(some, name) for name in _BY_NUMBER}
    return found


def summarise(
    drawn: Segmentations, rows: Measurements, groups: Tensor | None, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """The figures of a run by name: means over images, with `_low` and `_high` of their 95 % interval over subjects.

    Args:
        drawn: All rows, without their masks.
        rows: The figures of each.
        groups: Subject of every row, None where every row is one.
        fixed: What else the summary says.
    """
    counts = {str(v.name).lower(): int((drawn.verdict == int(v)).sum()) for v in Drawn}
    spent = {name: float(getattr(drawn, name).double().mean()) for name in ("nfe_unet_forward", "nfe_encoder")}
    return {
        "n": len(drawn), "samples": drawn.samples, "segmenter": drawn.segmenter, **counts,
        **means(rows.values, groups), **spent, "seconds_per_image": float(drawn.seconds.double().mean()), **fixed,
    }  # fmt: skip


def looked(config: SegmentConfig, data: Source, segmenter: nn.Module) -> str:
    """What a run would do, in words, once it has drawn two masks of the first image; for `cfx check`.

    Raises:
        InputError: images and network that do not go together.
    """
    source = first(config, data)
    drawn = sample_masks(source[[0]], segmenter_of(segmenter), 2, seed=config.seed, batch_size=config.batch_size)
    cost = int(drawn.nfe_unet_forward[0]) // 2
    figures_of(drawn, source[[0]], config.model_copy(update={"representative": None}))
    what = " and ".join(drawn.labels[1:])
    return f"{len(source)} images, {config.samples} masks each of {what}, {cost} evaluations a mask"


def shown(config: SegmentConfig) -> list[str]:
    """What the console shows of a summary."""
    few = [] if config.representative is None else [f"{config.representative}", f"{config.representative}_{CHOSEN}"]
    numbers = dict.fromkeys([*few, f"{config.samples}"])
    changing = [f"{name}_{n}" for name in _BY_NUMBER[:3] for n in numbers]
    return [
        "n", "samples", "empty_share", "volume", "volume_width", "agreement", "diversity", "reader_diversity",
        *changing, "ged_debiased", "collapsed", "refused", "nfe_unet_forward", "nfe_encoder", "seconds_per_image",
    ]  # fmt: skip


CONFIG = SegmentConfig


def command(config: SegmentConfig, words: str) -> str:
    """Run, and say what came out."""
    text = "\n".join(lines(shown(config), segment_run(config, words)))
    return f"{text}\n\nwrote {config.folder}/report.html, atlas.zarr, figure.png, summary.json, config.yaml"

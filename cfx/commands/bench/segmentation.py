"""Networks that draw masks side by side: on the same images, against the same readers, counted and timed alike.

Each method draws as many masks as its largest number of samples; the first 4 of them are its 4, and so on. What it drew
is kept batch by batch, so an interrupted bench goes on within a method; one that cannot run is a row with an `error`,
not the end of the bench. Of simulated readers the true distribution is known, and masks are held against that too. The
main process of a launch does the work.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast

import torch
from jaxtyping import UInt8
from pydantic import Field, field_validator, model_validator
from torch import Tensor

import cfx
from cfx.atlas import Atlas
from cfx.atlas.store import Exists
from cfx.commands.bench import cost
from cfx.commands.bench.keeping import kept, say
from cfx.commands.bench.ladder import drawn
from cfx.commands.bench.segmentation_figure import draw
from cfx.commands.bench.segmentation_rows import Answer, Readers, Truth, table_rows
from cfx.commands.bench.segmentation_table import markdown
from cfx.commands.rows import network_print
from cfx.core.cohort import Cohort, subjects
from cfx.core.errors import AtlasError, CfxError, InputError
from cfx.core.random import uniform
from cfx.data import BrainReadersConfig, DataConfig, load_cohort
from cfx.data.brain_readers import drawing_probability, true_masks
from cfx.models import load, read_manifest
from cfx.models.samplers import MaskSampler
from cfx.runtime.config import Frozen, RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.memory import give_back
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import source_print
from cfx.segmentation import Drawn, Segmentations, sample_masks
from cfx.segmentation.sample import blank
from cfx.training.masks import majority

if TYPE_CHECKING:
    from accelerate import Accelerator

_SHARD = 8  # images that are kept at once
_STREAM = 990  # which readers are drawn
Samples = Literal[4, 16, 50]
Control = Literal["nearest", "majority", "union", "one-reader", "truth"]
Masks = UInt8[Tensor, "n s *space"]


class SegmentationMethod(Frozen):
    """One network of the comparison."""

    name: str = Field(pattern=r"^[\w.+-]+$")
    """What its row is called."""
    segmenter: str
    """Its checkpoint folder, or the name of one that is shipped."""
    rows: int | None = Field(default=None, ge=1)
    """Draw masks of the first images only, where it is too slow for all of them."""
    samples: tuple[Samples, ...] = Field(default=(4, 16), min_length=1)
    """Numbers of masks an image to give figures for; the largest is how many are drawn."""

    @field_validator("samples")
    @classmethod
    def _ascending(cls, value: tuple[Samples, ...]) -> tuple[Samples, ...]:
        return tuple(sorted(set(value)))


class SegmentationBench(RunConfig):
    """Which networks that draw masks to compare, on which images."""

    data: DataConfig
    """Images with the masks of two readers or more, none of them in the networks' training."""
    rows: int | None = Field(default=None, ge=1)
    """Take this many of the images, in a random order; all by default."""
    classes: int = Field(default=2, ge=2, le=256)
    """Labels a voxel may have, the background included."""
    methods: tuple[SegmentationMethod, ...] = Field(min_length=1)
    """What to compare; the first is compared with each of the others."""
    controls: tuple[Control, ...] = ()
    """Rows of no network. `nearest`: the readers of the training images most like the image; and three that know the
    readers' masks: `majority` and `union` of them, and `one-reader` at a time; `truth`: simulated readers who are
    others than those of the images."""
    reference: DataConfig | None = None
    """Training images, for `nearest`."""
    truth: int | None = Field(default=None, ge=2)
    """Of simulated readers (data of kind `brain-readers`): true masks an image to hold samples against; null for only
    the readers of the images."""
    seed: int = Field(default=0, ge=0)
    """Seed of all draws, and of the order of the images."""
    batch_size: int = Field(default=128, ge=1)
    """Masks worked on together."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [m.name for m in self.methods] + list(self.controls)
        if double := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"methods, controls: expected distinct names, got {double} twice")
        if "nearest" in self.controls and self.reference is None:
            raise ValueError("reference: expected training images for the control `nearest`, got none")
        known = isinstance(self.data, BrainReadersConfig)
        if not known and (self.truth is not None or "truth" in self.controls):
            raise ValueError(f"truth: expected data of kind brain-readers, whose truth is known, got {self.data.kind}")
        return self

    @property
    def most(self) -> int:
        """The most masks an image that any method draws."""
        return max(n for m in self.methods for n in m.samples)


@in_its_folder
def run_bench(config: SegmentationBench, command: str | None = None) -> list[dict[str, Any]]:
    """Run the comparison and write `results.json`, `table.md`, `figure.png`, `config.yaml` and `rows/`.

    Args:
        config: What to compare.
        command: What the table says the bench was run with; by default the command that repeats it from `config.yaml`.

    Returns:
        The rows of `results.json`, one a method, the first method's first; none on other processes than the main one.

    Raises:
        InputError: images that cannot be read, or that fewer than two readers drew on.
    """
    accelerator = make_accelerator()
    if not accelerator.is_main_process:
        return []
    bench, folder = Bench(config, accelerator), RunFolder(config.folder)
    folder.config(config)
    answers = bench.answers()
    rows = table_rows(answers, bench.readers, bench.truth)
    folder.results(rows)
    command = command or f"cfx bench segmentation {folder / 'config.yaml'}"
    folder.table(markdown(config.name, rows, command, cost.hardware(1), bench.notes))
    folder.figure(draw(rows, answers, bench.cohort))
    return rows


class Bench:
    """What all methods share, loaded once."""

    def __init__(self, config: SegmentationBench, accelerator: "Accelerator") -> None:
        self.config, self.device = config, accelerator.device
        self.cohort = drawn(config.data, config.rows, config.seed)
        if self.cohort.readings is None or self.cohort.readings.shape[1] < 2:
            raise InputError("data: expected images with the masks of two readers or more (kinds lidc, brain-readers)")
        self.readers = Readers(self.cohort.readings.to(torch.uint8), subjects(self.cohort), config.classes)
        self.images = source_print(self.cohort)

    @property
    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        n, r = self.readers.masks.shape[:2]
        whose = "" if self.readers.subject is None else f" of {int(self.readers.subject.max()) + 1} subjects"
        known = f" Truth: {self.config.truth} masks an image of the known distribution." if self.config.truth else ""
        return [f"{n} images{whose}, {r} readers each; seed {self.config.seed}.{known}"]

    @cached_property
    def truth(self) -> Truth | None:
        """The known distribution, where it is wanted."""
        config = self.config
        if config.truth is None:
            return None
        data = cast(BrainReadersConfig, config.data)
        return Truth(self._true(config.truth, data.readers), 1 - drawing_probability(self.cohort.x, data).double())

    def _true(self, count: int, first: int) -> Masks:
        """Masks of simulated readers with these numbers; those of the images have lower ones."""
        data = cast(BrainReadersConfig, self.config.data)
        every = torch.arange(len(self.cohort))
        return true_masks(self.cohort.x, count, data, row=every, first=first).to(torch.uint8)

    def answers(self) -> dict[str, Answer | str]:
        """What every method drew, or why it could not."""
        found: dict[str, Answer | str] = {}
        for method in self.config.methods:
            try:
                found[method.name] = self.method(method)
            except (CfxError, torch.OutOfMemoryError) as error:
                found[method.name] = str(error)
                say(f"{method.name}: {error}")
        return found | {name: self.control(name) for name in self.config.controls}

    def method(self, method: SegmentationMethod) -> Answer:
        """What a method drew, with what it cost.

        Raises:
            CfxError: it cannot be loaded, or cannot draw.
        """
        segmenter = load(method.segmenter)
        if not isinstance(segmenter, MaskSampler):
            raise InputError(f"segmenter: expected a network that draws masks, got {type(segmenter).__name__}")
        if segmenter.classes != self.config.classes:
            raise InputError(f"classes: expected those of the bench, {self.config.classes}, got {segmenter.classes}")
        found, hardware = self.cell(method, segmenter)
        return Answer(found.masks, method.samples, facts=_facts(method, segmenter, found) | {"hardware": hardware})

    def cell(self, method: SegmentationMethod, segmenter: MaskSampler) -> tuple[Segmentations, str]:
        """The masks of a method, kept or drawn now, and on what they were drawn."""
        path, cohort = self.config.folder / "rows" / f"{method.name}.zarr", self.cohort[: method.rows]
        prints = self.prints(method, len(cohort))
        found = kept(path, Segmentations, prints)
        if found is None:
            say(method.name)
            try:
                found = self._filled(path, method, segmenter, cohort, prints, "resume")
            except AtlasError:  # of something else, or damaged
                found = self._filled(path, method, segmenter, cohort, prints, "overwrite")
        return found, str(Atlas(path, Segmentations).attributes["hardware"])

    def _filled(
        self, path: Path, method: SegmentationMethod, segmenter: MaskSampler, cohort: Cohort, prints: Mapping[str, str],
        exists: Exists,
    ) -> Segmentations:  # fmt: skip
        """All masks of a method, those that were not there drawn now."""
        config, n, s = self.config, len(cohort), max(method.samples)
        atlas = Atlas.create(
            path, blank(segmenter, s, cohort.shape, config.seed), rows=range(n), ids=cohort.ids, fingerprint=prints,
            shard=_SHARD, attributes={"hardware": cost.hardware(1)}, exists=exists,
        )  # fmt: skip
        missing = set(atlas.missing())
        for shard in atlas.shards():
            rows = torch.tensor([row for row in shard if row in missing], dtype=torch.long)
            if len(rows):
                atlas.write(
                    sample_masks(
                        cohort[rows], segmenter, s, rows=rows, seed=config.seed, batch_size=config.batch_size,
                        device=self.device,
                    )
                )  # fmt: skip
                give_back()
        return atlas.read()

    def prints(self, method: SegmentationMethod, n: int) -> dict[str, str]:
        """All that could change what a method draws."""
        config = self.config
        return {
            "version": cfx.__version__, "segmenter": network_print(method.segmenter), "images": f"{self.images} {n}",
            "seed": str(config.seed), "samples": str(max(method.samples)),
        }  # fmt: skip

    def control(self, name: Control) -> Answer:
        """What a control says, of as many masks as any method draws."""
        most, y = self.config.most, self.readers.masks
        made: dict[str, Callable[[], Masks]] = {
            "nearest": lambda: self._nearest(most),
            "majority": lambda: repeated(majority(y, self.config.classes)[:, 0], most),
            "union": lambda: repeated(y.amax(1), most),
            "one-reader": lambda: one_of(y, most),
            "truth": lambda: self._true(most, cast(BrainReadersConfig, self.config.data).readers + _FURTHER),
        }
        samples = tuple(sorted({n for m in self.config.methods for n in m.samples}))
        return Answer(made[name](), samples, control=True)

    def _nearest(self, count: int) -> Masks:
        """The readers of the nearest training image, then those of the next, as many as asked for."""
        assert self.config.reference is not None
        known = load_cohort(self.config.reference)
        if known.readings is None or known.shape != self.cohort.shape:
            raise InputError("reference: expected images on the grid of `data`, with readers' masks")
        images = -(-count // known.readings.shape[1])
        away = torch.cdist(self.cohort.x.flatten(1), known.x.flatten(1))
        at = away.topk(min(images, len(known)), largest=False).indices
        return known.readings[at].flatten(1, 2)[:, :count].to(torch.uint8)


_FURTHER = 1 << 19
"""Number from which the readers of the control `truth` are counted: none of those that anything is held against."""


def repeated(mask: UInt8[Tensor, "n *space"], count: int) -> UInt8[Tensor, "n _ *space"]:
    """One mask many times."""
    return mask[:, None].expand(-1, count, *mask.shape[1:])


def one_of(masks: UInt8[Tensor, "n r *space"], count: int) -> UInt8[Tensor, "n _ *space"]:
    """Readers drawn at random with replacement."""
    every = torch.arange(len(masks))
    u = uniform((count,), seed=0, row=every, stream=_STREAM)
    return masks[every[:, None], (u * masks.shape[1]).long()]


def _facts(method: SegmentationMethod, segmenter: MaskSampler, found: Segmentations) -> dict[str, Any]:
    """What a method is, and what it spent: evaluations a mask, seconds an image."""
    seconds, masks = float(found.seconds.double().sum()), found.masks.shape[0] * found.masks.shape[1]
    return {
        "nfe_unet_forward": float(found.nfe_unet_forward.double().sum()) / masks,
        "samples_per_second": masks / seconds, "seconds": seconds / len(found),
        "train_steps": read_manifest(method.segmenter).provenance.get("steps"),
        "parameters": sum(p.numel() for p in segmenter.parameters()),
        **{v.name.lower(): int((found.verdict == int(v)).sum()) for v in (Drawn.COLLAPSED, Drawn.REFUSED)},
    }  # fmt: skip


CONFIG = SegmentationBench


def command(config: SegmentationBench, words: str) -> str:
    """Run, and say what came out."""
    run_bench(config, words or None)
    return RunFolder(config.folder).said("results.json, table.md, figure.png")

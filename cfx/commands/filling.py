"""Rows worked out batch by batch into the atlas of a run: what every verb of one result an image has in common.

Processes share the images by whole shards, each finished batch is on disk at once, and the same command goes on with
what is missing.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydantic import Field

import cfx
from cfx.atlas import Atlas
from cfx.core.cohort import Cohort, Source, part
from cfx.core.rows import Rows
from cfx.data import DataConfig, open_cohort
from cfx.display.catalogue import metric
from cfx.runtime.config import Frozen
from cfx.runtime.folder import RunFolder
from cfx.runtime.memory import give_back
from cfx.runtime.provenance import made
from cfx.runtime.shares import dealt, even, together

if TYPE_CHECKING:
    from accelerate import Accelerator

R = TypeVar("R", bound=Rows)


class FillingConfig(Frozen):
    """Images, and how they are worked through."""

    data: DataConfig
    """Images to work on."""
    rows: int | None = Field(default=None, ge=1)
    """Work on this many of the first images; None works on all."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=64, ge=1)
    """Most images worked on together."""
    resume: bool = True
    """Go on with what the folder has, if it was made of the same; false starts anew and replaces it."""


def asked(config: FillingConfig) -> Source:
    """The images to work on."""
    return first(config, open_cohort(config.data))


def first(config: FillingConfig, source: Source) -> Source:
    """The images to work on, of all images of `data`."""
    return source if config.rows is None else part(source, slice(0, config.rows))


@dataclass(frozen=True)
class Filling(Generic[R]):
    """A run that fills an atlas.

    Attributes:
        folder: Where the run writes.
        config: How the images are worked through.
        source: The images.
        blank: A result of no rows, which says what the atlas will hold; asked of the main process alone.
        work: The results of some rows, by their images and their numbers.
        prints: What the rows are made of, besides seed and version.
        words: The command line, for the record.
        accelerator: The processes.
    """

    folder: RunFolder
    config: FillingConfig
    source: Source
    blank: Callable[[], R]
    work: Callable[[Cohort, list[int]], R]
    prints: Mapping[str, str]
    words: str
    accelerator: "Accelerator"

    def filled(self, kind: type[R]) -> Atlas[R]:
        """The atlas with all rows; nothing is replaced before everything else has been checked.

        Raises:
            CfxError: as `work` and `Atlas`.
        """
        with together(self.accelerator):
            if self.accelerator.is_main_process:
                self._create()
            self.folder.begin(self.config)
        atlas = Atlas(self.folder / "atlas.zarr", kind)
        with together(self.accelerator):
            for rows in self._mine(atlas):
                cohort = self.source[rows]
                atlas.write(self.work(cohort, rows), cohort)
                give_back()
        return atlas

    def _create(self) -> None:
        n, config = len(self.source), self.config
        Atlas.create(
            self.folder / "atlas.zarr", self.blank(), rows=range(n), cohort=self.source[[0]][:0], ids=self.source.ids,
            fingerprint=dict(self.prints) | {"version": cfx.__version__, "seed": str(config.seed)},
            shard=even(n, config.batch_size),
            attributes={"config": config.model_dump(mode="json"), "made": made(self.words, self.accelerator.device)},
            exists="resume" if config.resume else "overwrite",
        )  # fmt: skip

    def _mine(self, atlas: Atlas[R]) -> Iterator[list[int]]:
        """The rows of this process that are still missing, shard by shard."""
        shards, missing = atlas.shards(), set(atlas.missing())
        for k in dealt(len(shards), self.accelerator):
            rows = [row for row in shards[k] if row in missing]
            if rows:
                yield rows


def lines(names: Sequence[str], summary: Mapping[str, Any]) -> list[str]:
    """The figures of a run as people read them, those of some names that it has."""
    return [f"{metric(name).heading:<36}{said(name, summary)}" for name in names if name in summary]


def said(name: str, summary: Mapping[str, Any]) -> str:
    """A figure with its interval, of those of a run or of a row."""
    known = {key: summary.get(key) for key in (name, f"{name}_low", f"{name}_high")}
    return metric(name).spread({key: None if value is None else float(value) for key, value in known.items()})

"""All detectors of out-of-distribution images side by side, on the same shifts, fitted and calibrated on the same rows.

What each method said of each shift is kept at once, so an interrupted bench goes on where it was; a method that cannot
run is a row with an `error`, not the end of the bench. The main process of a launch does the work.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import torch
from jaxtyping import Bool
from pydantic import Field, model_validator
from torch import Tensor, nn

import cfx
from cfx.atlas import write_atlas
from cfx.commands.bench import cost
from cfx.commands.bench.detections import table_rows
from cfx.commands.bench.keeping import kept, say
from cfx.commands.bench.ladder import Shift, Shifts, drawn, shifts_of, units
from cfx.commands.bench.ood_figure import Shown, draw
from cfx.commands.bench.ood_table import markdown
from cfx.commands.networks import Networks, arguments, opened
from cfx.commands.ood import built
from cfx.commands.rows import network_print
from cfx.core.cohort import Cohort
from cfx.core.errors import CfxError
from cfx.models.opening import Network, spec_of
from cfx.ood import Fitted, OodScores, fit
from cfx.ood.detector import Detector
from cfx.runtime.config import RunConfig
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.memory import give_back
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import source_print

if TYPE_CHECKING:
    from accelerate import Accelerator


class OodMethod(Networks):
    """One detector of the comparison. It is given the networks of the bench that it needs, and those named here."""

    detector: str
    """Name of the detector (`cfx.ood.DETECTORS`)."""
    label: str = Field(default="", pattern=r"^[\w.+-]*$")
    """What its row is called; the detector's name by default."""
    settings: Mapping[str, Any] = Field(default_factory=dict)
    """Settings that differ from its defaults."""
    rows: int | None = Field(default=None, ge=1)
    """Score this many of the images of every set only, where it is too slow for all of them."""
    reference_rows: int | None = Field(default=None, ge=2)
    """Fit and calibrate it on this many of the reference images only, likewise."""

    @property
    def name(self) -> str:
        """What its row is called."""
        return self.label or self.detector


class OodBench(Networks, Shifts, RunConfig):
    """Which detectors to compare, on which shifts."""

    methods: tuple[OodMethod, ...] = Field(min_length=1)
    """What to compare; the first is compared with each of the others."""
    level: float = Field(default=0.05, gt=0, lt=1)
    """Share of in-distribution images that may be called out."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=64, ge=1)
    """Images worked on together."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [m.name for m in self.methods]
        if double := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"methods: expected distinct labels, got {double} twice")
        return self


@in_its_folder
def run_bench(config: OodBench, command: str | None = None) -> list[dict[str, Any]]:
    """Run the comparison and write `results.json`, `table.md`, `figure.png`, `maps.png`, `config.yaml` and `rows/`.

    Args:
        config: What to compare.
        command: What the table says the bench was run with; by default the command that repeats it from `config.yaml`.

    Returns:
        The rows of `results.json`, one a method, the first method's first; none on other processes than the main one.

    Raises:
        InputError: images that cannot be read, or the name or the settings of a method that do not exist.
    """
    accelerator = make_accelerator()
    if not accelerator.is_main_process:
        return []
    bench, folder = Bench(config, accelerator), RunFolder(config.folder)
    folder.config(config)
    rows = bench.rows()
    folder.results(rows)
    command = command or f"cfx bench ood {folder / 'config.yaml'}"
    folder.table(markdown(config.name, rows, command, cost.hardware(1), bench.notes))
    folder.figure(draw(rows))
    if maps := bench.shown.picture(list(bench.detectors)):
        folder.figure(maps, "maps.png")
    return rows


class Bench:
    """What all methods share, loaded once."""

    def __init__(self, config: OodBench, accelerator: "Accelerator") -> None:
        self.config, self.device = config, accelerator.device
        self.detectors: dict[str, Detector] = {m.name: built(m.detector, m.settings) for m in config.methods}
        self.reference = drawn(config.reference, config.reference_rows, config.seed)
        inside = drawn(config.data, config.rows, config.seed)
        self.shifts = shifts_of(config.data, inside, config.ladder, dict(config.shifts), config.seed)
        self.loaded: dict[str, nn.Module] = {}
        self.fitted: dict[str, Fitted] = {}
        self.failed: dict[str, str] = {}
        self.shown = Shown()
        self.reference_print = source_print(self.reference)

    @property
    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        config, m = self.config, len(next(iter(self.fitted.values())).calibration) if self.fitted else None
        paths = [f"{key} `{spec_of(network).path}`" for key, network in config.named()]
        held = "" if m is None else f", {m} of them for calibration"
        return [f"{len(self.reference)} reference images{held}; {', '.join(paths)}; seed {config.seed}."]

    def rows(self) -> list[dict[str, Any]]:
        """Every method on every set, measured."""
        said: dict[str, dict[str, OodScores]] = {m.name: {} for m in self.config.methods}
        ids: dict[str, tuple[str, ...]] = {}
        truths: dict[str, Bool[Tensor, "n 1 *space"]] = {}
        for shift in self.shifts:
            cohort = shift.make()
            ids[shift.name] = cohort.ids
            if cohort.lesion is not None and shift.kind is not None:
                truths[shift.name] = cohort.lesion
            self._all(shift, cohort, said)
        results = {name: self.failed.get(name, scores) for name, scores in said.items()}
        return table_rows(self.shifts, results, units(ids), truths)

    def _all(self, shift: Shift, cohort: Cohort, said: dict[str, dict[str, OodScores]]) -> None:
        """Every method on one set."""
        for method in self.config.methods:
            if method.name in self.failed:
                continue
            try:
                found = self.cell(method, shift, cohort)
            except (CfxError, torch.OutOfMemoryError) as error:
                self.failed[method.name] = str(error)
                say(f"{method.name}, {shift.name}: {error}")
                continue
            said[method.name][shift.name] = found
            if cohort.lesion is not None and shift.kind is not None:
                self.shown.add(shift.name, method.name, cohort, found)

    def cell(self, method: OodMethod, shift: Shift, cohort: Cohort) -> OodScores:
        """What a method says of a set, kept or made now; maps are kept where there is something to find."""
        cohort = cohort[: method.rows]
        path = self.config.folder / "rows" / method.name / f"{shift.name}.zarr"
        prints = self.prints(method) | {"images": source_print(cohort)}
        if (found := kept(path, OodScores, prints)) is not None:
            return found
        say(f"{method.name}, {shift.name}")
        found = self.fit(method).score(cohort)
        if cohort.lesion is None or shift.kind is None:
            found = found.replace(map=None)
        write_atlas(path, found, fingerprint=prints, exists="overwrite")
        give_back()
        return found

    def fit(self, method: OodMethod) -> Fitted:
        """A method fitted and calibrated, once."""
        if method.name not in self.fitted:
            config = self.config
            given = {key: self.network(key, network) for key, network in self.networks(method).items()}
            self.fitted[method.name] = fit(
                self.reference[: method.reference_rows], self.detectors[method.name], calibration=config.calibration,
                level=config.level, seed=config.seed, batch_size=config.batch_size, device=self.device,
                **arguments(given),
            )  # fmt: skip
        return self.fitted[method.name]

    def networks(self, method: OodMethod) -> dict[str, Network]:
        """The networks of a method by their keys: its own, and those of the bench that it needs."""
        own, shared = dict(method.named()), dict(self.config.named())
        if method.ensemble:
            shared = {key: network for key, network in shared.items() if not key.startswith("ensemble.")}
        needs = self.detectors[method.name].needs
        return {key: n for key, n in shared.items() if key.partition(".")[0] in needs} | own

    def network(self, key: str, network: Network) -> nn.Module:
        """A network for its key on the device, opened once."""
        name = f"{key.partition('.')[0]} {spec_of(network).model_dump_json()}"
        if name not in self.loaded:
            self.loaded[name] = opened(key.partition(".")[0], network).to(self.device)
        return self.loaded[name]

    def prints(self, method: OodMethod) -> dict[str, str]:
        """All that could change the outcome but the images: weights, reference, the method with all its settings."""
        config, given = self.config, self.networks(method)
        found = {key: network_print(network, self.network(key, network)) for key, network in given.items()}
        return found | {
            "version": cfx.__version__, "settings": repr(self.detectors[method.name]),
            "reference": f"{self.reference_print} {method.reference_rows}", "seed": str(config.seed),
            "level": f"{config.level:g}, calibration {config.calibration:g}",
        }  # fmt: skip


CONFIG = OodBench


def command(config: OodBench, words: str) -> str:
    """Run, and say what came out."""
    run_bench(config, words or None)
    return RunFolder(config.folder).said("results.json, table.md, figure.png")

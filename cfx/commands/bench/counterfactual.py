"""All methods of counterfactual explanation on the same images, classifier and generator, in one run.

Each finished measurement (a method at a depth) is kept at once, so an interrupted bench goes on where it was; a method
that cannot run is a row with an `error`, not the end of the bench.
"""

import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import torch
from pydantic import Field, model_validator
from torch import nn

import cfx
from cfx.atlas.store import Exists
from cfx.commands.alike import alike, network_classes
from cfx.commands.bench import cost
from cfx.commands.bench.cells import Cell, begun, finish, kept
from cfx.commands.bench.contender import Choices, Contender, start_sigma, unlabelled
from cfx.commands.bench.figure import draw
from cfx.commands.bench.rows import REFERENCES, Measures, table_rows
from cfx.commands.bench.table import markdown
from cfx.commands.rows import Task, fill, network_print, open_atlas
from cfx.core.cohort import Cohort
from cfx.core.denoiser import Generative
from cfx.core.errors import CfxError, InputError
from cfx.counterfactual import Depth, Judge, Method, explain
from cfx.counterfactual.explain import in_turn
from cfx.counterfactual.metrics import Measurements, Nullable, null_drift, reversibility
from cfx.counterfactual.metrics.measure import source_class
from cfx.counterfactual.registry import NEEDS
from cfx.counterfactual.result import Counterfactuals
from cfx.data import DataConfig, load_cohort
from cfx.models.autoencoder import Vae
from cfx.models.opening import Network, Role, open_network, spec_of
from cfx.models.perceptual import Lpips
from cfx.models.running import at_rest
from cfx.runtime.config import RunConfig, UserPath
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import in_its_folder
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import source_print
from cfx.runtime.shares import dealt, joined, together, total

if TYPE_CHECKING:
    from accelerate import Accelerator


class CounterfactualBench(RunConfig):
    """Which methods to compare, on which images, for which classifier."""

    data: DataConfig
    """Images to explain."""
    reference: DataConfig | None = None
    """Labelled images that set the typical margins and stand for the real ones; never those to be explained."""
    classifier: Network
    """The classifier: its path, or its path and how it wants images and answers."""
    generator: Network
    """The diffusion model, likewise."""
    autoencoder: Network | None = None
    """The autoencoder, likewise, for methods that work on latents."""
    oracle: Network | None = None
    """An independent classifier, likewise: judges the results, its features measure distance and realism."""
    lpips: str | None = None
    """File of AlexNet's weights as torchvision publishes it: LPIPS is measured too (needs `cfx[perceptual]`)."""
    depths: tuple[Depth, ...] = ("typical",)
    """Depths to run."""
    methods: tuple[Contender, ...] = Field(min_length=1)
    """What to compare; the first is compared with each of the others, row by row."""
    tuning: UserPath | None = None
    """File that `cfx bench tuning` wrote, for methods that are `tuned`."""
    seed: int = Field(default=0, ge=0)
    """Seed of all randomness."""
    batch_size: int = Field(default=32, ge=1)
    """Images worked on together."""

    @model_validator(mode="after")
    def _distinct(self) -> Self:
        names = [m.name for m in self.methods] + list(REFERENCES)
        if double := sorted({n for n in names if names.count(n) > 1}):
            raise ValueError(f"methods: expected distinct labels other than {list(REFERENCES)}, got {double} twice")
        if self.tuning is None and (tuned := [m.key for m in self.methods if m.tuned]):
            raise ValueError(f"tuning: expected the file that `cfx bench tuning` wrote, for {tuned}; got none")
        return self


@in_its_folder
def run_bench(config: CounterfactualBench, command: str | None = None) -> list[dict[str, Any]]:
    """Run the comparison and write `results.json`, `table.md`, `figure.png`, `config.yaml` and `rows/`.

    Under `accelerate launch` the processes share the images of every method.

    Args:
        config: What to compare.
        command: What the table says the bench was run with; by default the command that repeats it from `config.yaml`.

    Returns:
        The rows of `results.json`, for every depth one a method and the reference rows; none on other processes than
        the main one.

    Raises:
        InputError, CheckpointError: what all methods share (images, classifier, generator, oracle), or the name or the
            settings of a method, is not usable.
    """
    accelerator = make_accelerator()
    bench = Bench(config, accelerator)
    folder = RunFolder(config.folder)
    folder.config(config)
    found: dict[str, dict[str, Cell | str]]
    found = {depth: {m.name: bench.cell(m, depth) for m in config.methods} for depth in config.depths}
    rows: list[dict[str, Any]] = []
    if accelerator.is_main_process:
        for depth, cells in found.items():
            rows += table_rows(depth, cells, bench.cohort, bench.measures, bench.about)
        folder.results(rows)
        command = command or f"cfx bench counterfactual {folder / 'config.yaml'}"
        folder.table(markdown(config.name, rows, command, _machines(found), bench.notes))
        folder.figure(draw(rows, found, bench.cohort))
    return rows


def _machines(found: Mapping[str, Mapping[str, Cell | str]]) -> list[str]:
    """Where the measurements were made; more than one if a bench went on elsewhere."""
    return sorted({cell.hardware for cells in found.values() for cell in cells.values() if isinstance(cell, Cell)})


class Bench:
    """What all methods share, loaded once."""

    def __init__(self, config: CounterfactualBench, accelerator: "Accelerator") -> None:
        self.config, self.accelerator = config, accelerator
        self.choices = None if config.tuning is None else Choices.read(config.tuning)
        self.methods = {m.name: self.build(m) for m in config.methods}
        classes = network_classes({"classifier": config.classifier, "oracle": config.oracle})
        reference = None if config.reference is None else load_cohort(config.reference)
        self.cohort, self.reference = alike(
            load_cohort(config.data), reference, classes, configs=(config.data, config.reference)
        )
        self.loaded: dict[str, nn.Module] = {}
        self.classifier = self.network(config.classifier, "classifier")
        self.oracle = None if config.oracle is None else self.network(config.oracle, "oracle")
        self.autoencoder = None if config.autoencoder is None else self.network(config.autoencoder, "autoencoder")
        self.lpips = None if config.lpips is None else Lpips(weights=config.lpips).to(self.accelerator.device)
        diffusion = self.network(config.generator, "generator")
        if not isinstance(diffusion, Generative):
            raise InputError(f"generator: expected a diffusion checkpoint, got {type(diffusion).__name__}")
        self.diffusion = diffusion
        self.prints = {"images": source_print(self.cohort), "reference": source_print(self.reference)}
        self.warm = False

    def build(self, contender: Contender) -> Method:
        """A method with its own settings, or those that tuning chose."""
        assert self.choices is not None or not contender.tuned
        return contender.build(self.choices.settings(contender.key) if self.choices and contender.tuned else None)

    @property
    def about(self) -> dict[str, dict[str, Any]]:
        """What is said of each method beside its measurements."""
        return {m.name: {"tuned": m.tuned, "start_sigma": self._start(m)} for m in self.config.methods}

    def _start(self, contender: Contender) -> float | None:
        try:
            return start_sigma(self.methods[contender.name], self.generator(contender))
        except CfxError:  # the row says why the method cannot run
            return None

    @cached_property
    def measures(self) -> Measures:
        """What the results are measured with."""
        return Measures.of(self.classifier, self.oracle, self.reference, self.autoencoder, self.lpips)

    @property
    def notes(self) -> list[str]:
        """What a reader of the table has to know."""
        config = self.config
        given = {name: getattr(config, name) for name in ("classifier", "generator", "oracle", "autoencoder")}
        names = [f"{name} `{spec_of(network).path}`" for name, network in given.items() if network]
        notes = [f"{len(self.cohort)} images; {', '.join(names)}; seed {config.seed}, batches of {config.batch_size}."]
        return notes if self.choices is None else [*notes, *self._tuning(self.choices)]

    def _tuning(self, choices: Choices) -> list[str]:
        """On what the tuned methods were tuned, and the hash that holds them to it."""
        of = {key: choices.chosen[key]["n"] for key in (m.key for m in self.config.methods if m.tuned)}
        every = ", ".join(f"{key} {n}" for key, n in of.items())
        return [
            f"Tuned rows: `{self.config.tuning}`, hash `{choices.hash:.16}`. {choices.rule} Images: "
            f"{'; '.join(choices.images)}; as many as: {every}."
        ]

    def network(self, network: Network, role: Role) -> nn.Module:
        """A network for its role on this process's device, opened once."""
        key = f"{role} {spec_of(network).model_dump_json()}"
        if key not in self.loaded:
            self.loaded[key] = open_network(network, role).to(self.accelerator.device)
        return self.loaded[key]

    def cell(self, contender: Contender, depth: Depth) -> Cell | str:
        """The measurement, kept or made now; what went wrong, if the method cannot run."""
        path = self.config.folder / "rows" / f"{contender.name}-{depth}.zarr"
        try:
            with together(self.accelerator):
                prints = self.prints_of(contender)
                found = kept(path, prints)
            if found is not None:
                return found
            self.say(f"{contender.name}, {depth}")
            with together(self.accelerator):
                return self.measure(contender, depth, path, prints)
        except (CfxError, torch.OutOfMemoryError) as error:
            self.say(f"{contender.name}, {depth}: {error}")
            return str(error)

    def say(self, text: str) -> None:
        """Tell how far the bench is, once, above any progress bar."""
        if self.accelerator.is_main_process:
            from tqdm.auto import tqdm

            tqdm.write(f"bench: {text}")

    def prints_of(self, contender: Contender) -> dict[str, str]:
        """All that could change the outcome: images, weights, the method with all its settings."""
        config = self.config
        network, role = self.generating(contender)
        described: dict[str, tuple[Network | None, Role]] = {
            "classifier": (config.classifier, "classifier"), "generator": (network, role),
            "oracle": (config.oracle, "oracle"), "reviewer": (config.generator, "generator"),
        }  # fmt: skip
        prints = {k: network_print(n, None if n is None else self.network(n, r)) for k, (n, r) in described.items()}
        found = self.prints | prints
        found |= {"version": cfx.__version__, "settings": repr(self.methods[contender.name])}
        found |= {"batch_size": str(config.batch_size), "rows": str(contender.rows)}
        found |= {"reversible": str(contender.reversible), "labels": str(contender.labels)}
        return found | {"first": str(contender == config.methods[0])}  # timed beside a plain reconstruction

    def generating(self, contender: Contender) -> tuple[Network | None, Role]:
        """Which network a method generates with, None for methods that need none, and for which role it is opened."""
        needs = NEEDS.get(contender.method, Generative)
        role: Role = "autoencoder" if needs is Vae else "generator"
        own = self.config.autoencoder if needs is Vae else None if needs is None else self.config.generator
        network = own if contender.generator is None else contender.generator
        if network is None and needs is Vae:
            raise InputError(f"autoencoder: expected a checkpoint folder for {contender.method}, got none")
        return network, role

    def measure(self, contender: Contender, depth: Depth, path: Path, prints: Mapping[str, str]) -> Cell:
        """Run a method on its images; rows that an interrupted bench left are not made again."""
        accelerator, task = self.accelerator, self.task(contender, depth, self.cohort[: contender.rows])
        exists: Exists = "resume" if begun(path, prints) else "overwrite"
        atlas = open_atlas(path, task, accelerator, fingerprint=prints, attributes={}, exists=exists)
        self.warm_up()
        with cost.peak_memory(accelerator.device) as peak:
            for _ in fill(atlas, task, accelerator):
                pass
        spent: dict[str, float | None] = {"peak_memory_mb": self.highest(peak.mb)}
        accelerator.wait_for_everyone()
        result, generator = atlas.read(), self.generator(contender)
        if contender == self.config.methods[0] and isinstance(generator, Generative):
            images = self.cohort.x[: contender.rows]
            seconds, nfe = self.reconstruct(generator, images, float(result.nfe_unet_forward.double().mean()))
            spent |= {"ddim_seconds": seconds / len(result), "ddim_nfe": nfe}
        laws = self.laws(contender, result) if contender.reversible else {}
        cell = Cell(result, spent, cost.hardware(accelerator.num_processes), laws)
        if accelerator.is_main_process:
            finish(path, cell, prints)
        return cell

    def highest(self, mb: float | None) -> float | None:
        """The highest peak of all processes, where all can tell."""
        seen = self.accelerator.gather(torch.tensor([math.nan if mb is None else mb], device=self.accelerator.device))
        top = float(seen.max())
        return None if math.isnan(top) else top

    def task(self, contender: Contender, depth: Depth, source: Cohort) -> Task:
        """What a method is asked, with what all methods share."""
        generator, config = self.generator(contender), self.config
        reviewer = None if isinstance(generator, Generative) else self.diffusion
        return Task(
            source, self.classifier, generator, self.methods[contender.name], depth, None, self.reference, self.oracle,
            reviewer, config.seed, config.batch_size, "attempt",  # methods are compared by their own images
        )  # fmt: skip

    def generator(self, contender: Contender) -> Generative | Vae | None:
        """What a method generates with."""
        network, role = self.generating(contender)
        found = cast(Generative | Vae | None, None if network is None else self.network(network, role))
        return found if contender.labels or not isinstance(found, Generative) else unlabelled(found)

    def laws(self, contender: Contender, there: Counterfactuals) -> dict[str, torch.Tensor]:
        """How far a method's results are from the laws of counterfactuals, one number a row for each."""
        generator, config, method = self.generator(contender), self.config, self.methods[contender.name]
        back = explain(
            there.x_cf, self.classifier, generator, source_class(there), row=there.row, depth=cast(Depth, there.depth),
            part="attempt", reference=self.reference, method=method, seed=config.seed, batch_size=config.batch_size,
            reviewer=None if isinstance(generator, Generative) else self.diffusion, accelerator=self.accelerator,
        )  # fmt: skip
        found = {"reversibility": reversibility(there, back)}
        if isinstance(method, Nullable):
            batches = in_turn(len(there), config.batch_size)
            mine = []
            for rows in (batches[k] for k in dealt(len(batches), self.accelerator)):
                drift = null_drift(there[rows], self.classifier, generator, method, batch_size=config.batch_size)
                mine.append(Measurements(there.row[list(rows)], {"composition": drift}))
            every = Measurements.cat(joined(mine, Measurements, len(batches), self.accelerator))
            found["composition"] = every.values["composition"]
        return found

    def warm_up(self) -> None:
        """Use both networks once before the first clock starts: what they set up then belongs to no method."""
        if not self.warm:
            x = self.cohort.x[: self.config.batch_size].to(self.accelerator.device)
            judge = Judge(self.classifier)
            with judge.at_rest():
                judge.gradient(x, torch.zeros(len(x), dtype=torch.long, device=x.device))
            self.reconstruct(self.diffusion, x.cpu(), 2.0)
            self.warm = True

    def reconstruct(self, generator: Generative, x: torch.Tensor, evaluations: float) -> tuple[float, int]:
        """Seconds of a plain reconstruction, summed over the processes as those of the methods are; evaluations."""
        batches = in_turn(len(x), self.config.batch_size)
        mine = [x[list(batches[k])] for k in dealt(len(batches), self.accelerator)]
        with at_rest(generator):
            seconds, nfe = cost.reconstruction(generator, mine, evaluations, self.accelerator.device)
        return total(seconds, self.accelerator), nfe


CONFIG = CounterfactualBench


def command(config: CounterfactualBench, words: str) -> str:
    """Run, and say what came out."""
    run_bench(config, words or None)
    return RunFolder(config.folder).said("results.json, table.md, figure.png")

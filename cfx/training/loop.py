"""The one training loop.

Step k takes rows k*B .. (k+1)*B of an endless sequence of shuffled epochs. Each process takes its contiguous share of
them and handles it in `accumulate` parts. Order, noise and times depend on the seed and on a row's place in that
sequence alone, so one process and several, one part and several, and a resumed run all do the same arithmetic.
"""

import json
import logging
import math
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import Tensor, nn
from tqdm.auto import tqdm

from cfx.core.cohort import Source, part, subjects
from cfx.core.errors import CfxError, CheckpointError, InputError
from cfx.data import open_cohort
from cfx.data.classes import check_named, numbered_by
from cfx.models import load_network, save
from cfx.runtime.files import fingerprint, write_whole
from cfx.runtime.folder import RunFolder
from cfx.runtime.lock import alone
from cfx.runtime.processes import make_accelerator
from cfx.runtime.provenance import provenance, source_print
from cfx.runtime.shares import with_others
from cfx.training.config import TrainConfig, check_config, make_objective
from cfx.training.ema import Ema
from cfx.training.objectives import Batch, Objective
from cfx.training.optimizer import parameter_groups, rate_at
from cfx.training.order import mix, rows_at, split
from cfx.training.state import load_newest, newest_state, optimizer_tensors, restore_optimizer, save_state

log = logging.getLogger(__name__)

MAIN = "main"
_REHEARSED = 2  # steps that are timed
_ONE_REQUEST = 5.0  # seconds within which a further signal says nothing new
_FREE = ("out", "name", "card", "save_every", "log_every", "trackers")


@dataclass(frozen=True)
class Result:
    """What a run ended as.

    Attributes:
        status: `done` or `interrupted` (resumable).
        step: Optimizer steps done.
        checkpoint: Folder of the checkpoint, None if interrupted.
        figures: Figures of the main network on held-out rows.
    """

    status: str
    step: int
    checkpoint: Path | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass
class Player:
    """A network in training: `net` as prepared for devices and processes, `bare` without the wrapping."""

    net: nn.Module
    bare: nn.Module
    optimizer: AcceleratedOptimizer


def train(config: TrainConfig, cohort: Source | None = None, validation: Source | None = None) -> Result:
    """Train, resuming from the newest state in the run's folder, and write the checkpoint `<folder>/checkpoint`.

    Torch's own generators are seeded anew at every step.

    Args:
        config: The run.
        cohort: Training rows; read from `config.data` by default.
        validation: Held-out rows; read or split off as `config.validation` says by default.

    Raises:
        InputError: the cohort does not suit the objective, a class is not on both sides of a split, held-out rows have
            classes that the training rows lack, or the batch does not split over the processes.
        LaunchError: the launcher and the processes disagree.
        CheckpointError: the newest state is damaged or belongs to another configuration.
        CfxError: the loss became NaN or infinite (the last saved state is kept), or another run is at work in the
            folder.
    """
    accelerator = make_accelerator(config.precision, config.trackers, config.folder)
    rows, held_out = _cohorts(config, cohort, validation)
    with alone(config.folder, accelerator), with_others():
        return Trainer(config, accelerator, rows, held_out).run()


@dataclass(frozen=True)
class Rehearsal:
    """What a run would be.

    Attributes:
        networks: Its networks by name, `main` first.
        held_out: Its held-out rows.
        seconds: Seconds of a step, here.
    """

    networks: Mapping[str, nn.Module]
    held_out: Source | None
    seconds: float


def rehearse(config: TrainConfig) -> Rehearsal:
    """Build a run and take a few of its steps, without writing anything; errors as `train`."""
    accelerator = make_accelerator(config.precision)
    rows, held_out = _cohorts(config, None, None)
    trainer = Trainer(config, accelerator, rows, held_out)
    trainer._step()  # the first is slower than the others
    start = monotonic()
    for trainer.step in range(1, 1 + _REHEARSED):
        trainer._step()
    seconds = (monotonic() - start) / _REHEARSED
    return Rehearsal({name: player.bare for name, player in trainer.players.items()}, held_out, seconds)


def _cohorts(config: TrainConfig, cohort: Source | None, validation: Source | None) -> tuple[Source, Source | None]:
    """Training and held-out rows; labels of both are numbered by the classes of the training rows."""
    if cohort is None:
        if config.data is None:
            raise InputError("data: expected a cohort in the configuration or as an argument, got neither")
        cohort = open_cohort(config.data)
    if validation is None and not isinstance(config.validation, float):
        validation = open_cohort(config.validation)
        check_named({"data": cohort, "validation": validation}, {"validation": config.validation})
    whole = cohort
    if validation is not None:
        validation = numbered_by(validation, cohort.classes, "validation", "data")
    elif isinstance(config.validation, float) and (held := int(len(cohort) * config.validation)):
        y = cohort.y if cohort.y is None or cohort.y.ndim == 1 else None
        kept, out = split(len(cohort), held, config.seed, y, subjects(cohort))
        cohort, validation = part(cohort, kept), part(cohort, out)
    if validation is not None:
        config.objective.check_sides(cohort, validation, split=cohort is not whole)
    return cohort, validation


def start_from(network: nn.Module, path: str) -> None:
    """Copy the weights of a checkpoint into a network of the same architecture.

    Raises:
        CheckpointError: the checkpoint is missing, damaged, or of another architecture.
    """
    try:
        network.load_state_dict(load_network(path).state_dict())
    except RuntimeError as error:
        raise CheckpointError(f"init {path}: expected the weights of the configured network: {error}") from error


class Trainer:
    """One run: networks, optimizers, averaged weights, and where they stand."""

    def __init__(
        self, config: TrainConfig, accelerator: Accelerator, cohort: Source, validation: Source | None
    ) -> None:
        """Build and prepare every player.

        Raises:
            InputError: the batch does not split over processes and parts, or the cohort does not suit the objective.
        """
        world = accelerator.num_processes
        if config.batch_size % (world * config.accumulate):
            expected = f"a multiple of {world} processes x accumulate {config.accumulate}"
            raise InputError(f"batch_size: expected {expected}, got {config.batch_size}")
        self.config, self.accelerator, self.cohort, self.validation = config, accelerator, cohort, validation
        torch.manual_seed(config.seed)
        self.objective: Objective = make_objective(config, cohort)
        bare = self.objective.players()
        if config.init is not None:
            start_from(bare[MAIN], config.init)
        self.ema = Ema(bare[MAIN].to(accelerator.device), config.ema) if config.ema else None
        self.players = {name: self._player(net) for name, net in bare.items()}
        self.step, self.seconds = 0, 0.0
        self.asked: float | None = None  # when this process was asked to stop
        self.stop = False  # whether all agreed to

    def _player(self, net: nn.Module) -> Player:
        c = self.config.optimizer
        optimizer = torch.optim.AdamW(parameter_groups(net, c), lr=c.lr, betas=c.betas, weight_decay=c.weight_decay)
        prepared, wrapped = self.accelerator.prepare(net, optimizer)
        return Player(prepared, self.accelerator.unwrap_model(prepared), wrapped)

    @cached_property
    def prints(self) -> dict[str, str]:
        """Fingerprints of what the run is made of: its training rows, and the networks that its objective keeps."""
        kept = {name: v for name, v in vars(self.objective).items() if isinstance(v, nn.Module)}
        networks = {f"objective.{name}": fingerprint(network.state_dict()) for name, network in kept.items()}
        return {"data": source_print(self.cohort)} | networks

    def run(self) -> Result:
        """Train to the last step."""
        self._resume()
        self._announce()
        bar = tqdm(
            total=self.config.steps, initial=self.step, desc=self.config.name,
            disable=not self.accelerator.is_main_process, mininterval=0.5 if sys.stderr.isatty() else 30,
        )  # fmt: skip
        with bar, self._watching_signals():
            while self.step < self.config.steps:
                self._advance(bar)
                if self.stop:
                    self._save()
                    log.warning("interrupted at step %d; the same command resumes", self.step)
                    return Result("interrupted", self.step)
        return self._finish()

    def _advance(self, bar: "tqdm[Any]") -> None:
        """One step, and what is due after it."""
        start = monotonic()
        scores = self._step()
        self.step += 1
        self.seconds += monotonic() - start
        bar.update()
        if self.step % self.config.log_every == 0 or self.step == self.config.steps:
            bar.set_postfix({k: f"{v:.4g}" for k, v in scores.items()})
            self._log(scores)
        if self.step % self.config.save_every == 0 and self.step < self.config.steps:
            self._log({f"validation_{k}": v for k, v in self._evaluate(most=256).items()})
            self._save()

    def _step(self) -> dict[str, float]:
        """Every player's losses, gradients and update, in turn; means over all processes."""
        torch.manual_seed(mix(self.config.seed, self.step, self.accelerator.process_index))  # dropout, if any
        scores: dict[str, float] = {}
        for name, player in self.players.items():
            scores |= self._update(name, player)
        if self.ema is not None:
            self.ema.update(self.players[MAIN].bare, self.step)
        return scores

    def _update(self, name: str, player: Player) -> dict[str, float]:
        """One player's step on its share of the batch."""
        networks = {k: p.net if k == name else p.bare for k, p in self.players.items()}
        for key, other in self.players.items():
            other.bare.requires_grad_(key == name)
        parts, totals = list(self._parts()), dict[str, Tensor]()
        for i, batch in enumerate(parts):
            last = i == len(parts) - 1
            with nullcontext() if last else self.accelerator.no_sync(player.net):
                with self.accelerator.autocast():
                    loss, scores = self.objective.loss(name, networks, batch)
                self.accelerator.backward(loss / len(parts))
            for key, value in {"loss": loss.detach(), **scores}.items():
                totals[key] = totals.get(key, torch.zeros_like(value)) + value / len(parts)
        means = self._reduced(name, totals)
        if self.config.clip is not None:
            self.accelerator.clip_grad_norm_(player.bare.parameters(), self.config.clip)
        rate = rate_at(self.config.optimizer, self.step, self.config.steps)
        for group in player.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        player.optimizer.step()
        player.optimizer.zero_grad()
        return means

    def _reduced(self, name: str, totals: Mapping[str, Tensor]) -> dict[str, float]:
        """Means over processes; a request to stop travels along, so that all stop after the same step."""
        vector = torch.stack([*totals.values(), torch.tensor(float(self.asked is not None)).to(totals["loss"])])
        *values, stop = self.accelerator.reduce(vector, "mean").tolist()
        self.stop = stop > 0
        means = dict(zip(totals, values, strict=True))
        if not math.isfinite(means["loss"]):
            kept = newest_state(self.config.folder / "state")
            raise CfxError(
                f"step {self.step}: the loss of player {name} is {means['loss']}; last state kept: {kept or 'none'}. "
                "Lower optimizer.lr, set clip, or use precision bf16 instead of fp16."
            )
        return means if name == MAIN else {f"{name}_{k}": v for k, v in means.items()}

    def _parts(self) -> Iterator[Batch]:
        """This process's share of the step's rows, in parts."""
        size, world = self.config.batch_size, self.accelerator.num_processes
        share = size // world // self.config.accumulate
        start = self.step * size + self.accelerator.process_index * (size // world)
        for i in range(self.config.accumulate):
            slot = torch.arange(start + i * share, start + (i + 1) * share)
            rows = rows_at(slot, len(self.cohort), self.config.seed)
            device, read = self.accelerator.device, self.cohort[rows]
            y = self.config.objective.target(read)
            y = None if y is None else y.to(device)
            yield Batch(read.x.to(device), y, slot.to(device), self.config.seed, self.step, rows.to(device))

    def _shipped(self) -> nn.Module:
        """The network to evaluate and ship."""
        return self.ema.module if self.ema is not None else self.players[MAIN].bare

    def _evaluate(self, most: int | None = None) -> dict[str, float]:
        """Figures on held-out rows, by the main process alone."""
        if self.validation is None or not len(self.validation) or not self.accelerator.is_main_process:
            return {}
        network = self._shipped()
        was = network.training
        figures = self.objective.evaluate(network.eval(), part(self.validation, slice(most)), self.config.seed + 1)
        network.train(was)
        return figures

    def _log(self, scores: Mapping[str, float]) -> None:
        if not scores or not self.accelerator.is_main_process:
            return
        entry = {"step": self.step, **scores, "seconds": round(self.seconds, 2)}
        with (self.config.folder / "log.jsonl").open("a") as stream:
            stream.write(json.dumps(entry) + "\n")
        if self.config.trackers:
            self.accelerator.log(dict(scores), step=self.step)

    def _announce(self) -> None:
        """Leave the resolved configuration in the run's folder and open trackers."""
        RunFolder(self.config.folder).config(self.config)
        if self.config.trackers:
            self.accelerator.init_trackers(self.config.name)

    def _save(self) -> None:
        """Write the whole state (every process holds the same weights; the main one writes)."""
        if self.accelerator.is_main_process:
            tensors: dict[str, Mapping[str, Tensor]] = {}
            for name, player in self.players.items():
                tensors[f"{name}.network"] = player.bare.state_dict()
                tensors[f"{name}.optimizer"] = optimizer_tensors(player.optimizer)
            if self.ema is not None:
                tensors["ema"] = self.ema.module.state_dict()
            scaler = self.accelerator.scaler.state_dict() if self.accelerator.scaler is not None else {}
            values = {
                "config": self.config.dump(), "prints": self.prints, "seconds": self.seconds, "scaler": scaler,
            }  # fmt: skip
            save_state(self.config.folder / "state", self.step, tensors, values)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> None:
        """Take up the newest state, if there is one."""
        found = load_newest(self.config.folder / "state")
        if found is None:
            return
        folder, self.step, tensors, values = found
        check_resume(self.config, values["config"], folder)
        check_prints(self.prints, values.get("prints", self.prints), folder)  # states of old have none
        for name, player in self.players.items():
            player.bare.load_state_dict(tensors[f"{name}.network"])
            restore_optimizer(player.optimizer, tensors[f"{name}.optimizer"])
        if self.ema is not None:
            self.ema.module.load_state_dict(tensors["ema"])
        if self.accelerator.scaler is not None and values["scaler"]:
            self.accelerator.scaler.load_state_dict(values["scaler"])
        self.seconds = values["seconds"]
        self._cut_log()
        log.info("resumed from %s", folder)

    def _cut_log(self) -> None:
        """Leave out of the log what came after the state that is taken up: those steps are done, and logged, again."""
        file = self.config.folder / "log.jsonl"
        if not self.accelerator.is_main_process or not file.is_file():
            return
        lines = file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if (step := _step_of(line)) is not None and step <= self.step]
        if len(kept) < len(lines):
            write_whole(file, "".join(kept))

    def _finish(self) -> Result:
        """Write the last state, evaluate, write the checkpoint: whatever stops the rest, no step is lost."""
        self._save()
        figures, target = self._evaluate(), self.config.folder / "checkpoint"
        self._log({f"validation_{k}": v for k, v in figures.items()})
        if self.accelerator.is_main_process:
            model, facts = self.objective.checkpoint(self._shipped().eval(), self.cohort)
            facts["provenance"] = provenance(self.config.dump(), self.step, self.seconds, self.accelerator, figures)
            facts |= {"title": self.config.name, "card": self.config.card or None, "kind": self.config.objective.trains}
            save(target, model, name=self.config.network.name, config=self.objective.network_config, **facts)
        self.accelerator.wait_for_everyone()
        if self.config.trackers:
            self.accelerator.end_training()
        return Result("done", self.step, target, figures)

    @contextmanager
    def _watching_signals(self) -> Iterator[None]:
        """Let the first Ctrl-C or SIGTERM end the run after the present step; one that comes later acts at once.

        A launcher passes on what it gets to processes that had it already, and repeats it: those are the same request.
        """
        before: dict[signal.Signals, Any] = {}

        def ask(number: int, frame: FrameType | None) -> None:
            if self.asked is None:
                self.asked = monotonic()
            elif monotonic() - self.asked > _ONE_REQUEST:
                signal.signal(number, before[signal.Signals(number)])
                signal.raise_signal(number)

        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, ask)
        except ValueError:
            log.debug("not in the main thread: signals end the run at once")
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _step_of(line: str) -> int | None:
    """The step of a line of the log; None of one that was cut off."""
    try:
        return int(json.loads(line)["step"]) if line.endswith("\n") else None
    except (ValueError, KeyError, TypeError):
        return None


def check_resume(config: TrainConfig, saved: Mapping[str, Any], folder: Path) -> None:
    """Refuse to resume a state under a configuration that would train something else.

    The name, logging and saving may change; `steps` too, unless the learning rate falls along a cosine.

    Raises:
        CheckpointError: naming every key that differs, with both values.
        InputError: the saved configuration has keys that no longer exist.
    """
    free = _FREE if config.optimizer.cosine else (*_FREE, "steps")
    mine, saved = config.dump(), check_config(saved, str(folder)).dump()  # a key newer than the state has its default
    differ = [k for k in mine if k not in free and mine[k] != saved.get(k)]
    if differ:
        parts = [f"{k}: saved {saved.get(k)}, asked {mine[k]}" for k in differ]
        raise CheckpointError(f"{folder}: was made by another configuration ({'; '.join(parts)}); change out or these")


def check_prints(mine: Mapping[str, str], saved: Mapping[str, str], folder: Path) -> None:
    """Refuse to resume a state with other images or networks than it was made of, whatever their paths.

    Raises:
        CheckpointError: naming what differs.
    """
    if differ := sorted(name for name in mine.keys() | saved.keys() if mine.get(name) != saved.get(name)):
        raise CheckpointError(
            f"{folder}: was made of other contents of {', '.join(differ)} (same configuration, other values); "
            "change out, or put back what was there"
        )

"""Rows explained straight into an atlas: shared among processes by shards, resumable, and never all in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import getsourcefile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from cfx.atlas import Atlas
from cfx.atlas.store import Exists
from cfx.core.cohort import Cohort, Source
from cfx.core.denoiser import Generative
from cfx.core.errors import CheckpointError
from cfx.core.gates import Gate
from cfx.counterfactual import Depth, Judge, Method, explain_batches
from cfx.counterfactual.explain import Part
from cfx.counterfactual.result import Counterfactuals
from cfx.counterfactual.standing import Standing
from cfx.models import read_manifest
from cfx.models.autoencoder import Vae
from cfx.models.checkpoint import CARD, MANIFEST
from cfx.models.opening import Described, NetworkSpec, schedule_of, spec_of
from cfx.runtime.files import digest, sha256
from cfx.runtime.files import fingerprint as fingerprint_of
from cfx.runtime.memory import give_back
from cfx.runtime.shares import dealt, together

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass(frozen=True)
class Task:
    """What to explain, with what, and how.

    Attributes:
        source: Images.
        classifier: The classifier that is explained.
        generator: What the method generates with.
        method: The method.
        depth: How far it goes.
        target: Class to reach, by number or name; None for the most probable one besides the predicted.
        reference: Labelled images that set the typical margins, or None.
        oracle: Independent classifier, or None.
        reviewer: Diffusion model that reviews; None for the generator.
        seed: Seed of all randomness.
        batch_size: Images worked on together, also those of a shard: so batches do not depend on the processes.
        part: Which part of an edit is kept.
        gate: What says whether edited images are in distribution, or None.
        standing: What is known of the networks; None lets `explain_batches` find it out.
    """

    source: Source
    classifier: nn.Module
    generator: Generative | Vae | None
    method: Method
    depth: Depth
    target: int | str | None
    reference: Cohort | None
    oracle: nn.Module | None
    reviewer: Generative | None
    seed: int
    batch_size: int
    part: Part = "whole"
    standing: Standing | None = None
    gate: Gate | None = None

    def batches(self, batches: list[list[int]], device: torch.device, progress: bool) -> Iterator[Counterfactuals]:
        """The results of some batches of positions."""
        return explain_batches(
            self.source, self.classifier, self.generator, self.target, batches=batches, depth=self.depth,
            part=self.part, reference=self.reference, oracle=self.oracle, method=self.method, reviewer=self.reviewer,
            gate=self.gate, standing=self.standing, seed=self.seed, progress=progress, device=device,
        )  # fmt: skip

    def checked(self, device: torch.device) -> Counterfactuals:
        """A result of no rows, which says what an atlas of this task will hold, once all that it needs is there.

        Raises:
            InputError: as `explain`: networks, images, target or reference that do not go together.
        """
        self.batches([], device, False)
        return self.blank(device)

    def blank(self, device: torch.device) -> Counterfactuals:
        """A result of no rows, which says what an atlas of this task will hold."""
        first = self.source[[0]].x
        classes = Judge(self.classifier, device=device).answers(first).shape[1]
        sizes: dict[str, int | tuple[int, ...]] = {"c": first.shape[1], "space": tuple(first.shape[2:]), "k": classes}
        if self.oracle is not None:
            sizes["oracle_class"] = Judge(self.oracle, "oracle", device).answers(first).shape[1]
        p = None if self.gate is None else torch.zeros(0, dtype=torch.float64)
        return Counterfactuals.blank(
            0, sizes, depth=self.depth, seed=self.seed, method=self.method.name, gate_p=p, gate_p_before=p
        )


def open_atlas(
    path: Path,
    task: Task,
    accelerator: "Accelerator",
    *,
    fingerprint: Mapping[str, str],
    attributes: Mapping[str, Any],
    exists: Exists,
) -> Atlas[Counterfactuals]:
    """The atlas of a task, created by the main process once everything else has been checked.

    Args:
        path: Its folder.
        task: What it will hold.
        accelerator: The processes.
        fingerprint: What the rows are made of.
        attributes: JSON values to keep at its root.
        exists: What to do where there is one.

    Raises:
        InputError, AtlasError: as `explain` and `Atlas.create`.
    """
    blank, source = task.checked(accelerator.device), task.source  # before anything is replaced
    with together(accelerator):
        if accelerator.is_main_process:
            Atlas.create(
                path, blank, rows=range(len(source)), cohort=source[[0]][:0], ids=source.ids, attributes=attributes,
                fingerprint=fingerprint, shard=task.batch_size, exists=exists,
            )  # fmt: skip
    return Atlas(path, Counterfactuals)


def fill(
    atlas: Atlas[Counterfactuals], task: Task, accelerator: "Accelerator", *, progress: bool = True
) -> Iterator[tuple[Counterfactuals, Cohort]]:
    """Explain what an atlas lacks, and hand out this process's shards, whole and in order, with their inputs.

    Each batch is on disk before it is handed out; shards that were complete before are read back.
    """
    shards, missing = atlas.shards(), set(atlas.missing())
    mine = [shards[k] for k in dealt(len(shards), accelerator)]
    left = [[row for row in rows if row in missing] for rows in mine]
    parts = task.batches([rows for rows in left if rows], accelerator.device, progress and accelerator.is_main_process)
    for rows, absent in zip(mine, left, strict=True):
        cohort = task.source[rows]
        give_back()
        if not absent:
            yield atlas.read(rows), cohort
            continue
        part = next(parts)
        atlas.write(part, cohort if len(absent) == len(rows) else task.source[absent])
        yield part if len(absent) == len(rows) else atlas.read(rows), cohort
    next(parts, None)  # the progress bar ends


def network_print(network: Described | None, opened: nn.Module | None = None) -> str:
    """Fingerprint of a network: its name, and a digest of its files (or tensors and source) and of its settings.

    Args:
        network: Its description; None for none.
        opened: What `open_network` made of it, which is asked for the tensors of an imported one.
    """
    if network is None:
        return "none"
    spec = spec_of(network)
    settings = spec.model_dump(mode="json", exclude={"path"}, exclude_defaults=True)
    return f"{spec.name} {digest(_contents(spec, opened) | ({'settings': settings} if settings else {}))[:16]}"


def _contents(spec: NetworkSpec, opened: nn.Module | None) -> dict[str, Any]:
    """Hashes of what a network is made of, but for its settings."""
    if spec.imports:
        source = getsourcefile(import_module(spec.path.partition(":")[0]))
        tensors = {} if opened is None else opened.state_dict()
        return {"source": sha256(Path(source)) if source else "none", "tensors": fingerprint_of(tensors)}
    if not spec.place.exists():
        raise CheckpointError(f"{spec.path}: missing; expected a network's folder or file")
    schedule = schedule_of(spec) if isinstance(spec.schedule, str) else None
    beside = {} if schedule is None else {"schedule": schedule.to_diffusers()}
    if (spec.place / MANIFEST).exists():
        proved = read_manifest(spec.place).files
        return {name: sha for name, sha in proved.items() if name != CARD} | beside  # what is said is not what is done
    if spec.place.is_dir():
        files = (path for path in sorted(spec.place.rglob("*")) if path.is_file())
        return {path.relative_to(spec.place).as_posix(): sha256(path) for path in files} | beside
    return {"file": sha256(spec.place), **beside}
